"""Other trainers on the same model and batches, each where it is installed.

Each is set up lean: no progress bar, no logger, no checkpoint.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Loader = Iterable[tuple[Tensor, Tensor]]
Make = Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
Train = Callable[[Loader], None]


def arms(make: Make) -> list[tuple[str, Train]]:
    """Name and function of each peer that can be imported; `make` gives model and optimizer."""
    warnings.filterwarnings("ignore")
    found: list[tuple[str, Train]] = []
    for module, make_arms in (
        ("lightning", lightning_arms),
        ("ignite", ignite_arms),
        ("accelerate", accelerate_arms),
    ):
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed here: left out")
        else:
            found += make_arms(make)
    return found


def lightning_arms(make: Make) -> list[tuple[str, Train]]:
    """Trainer with and without `self.log`, and Fabric."""
    from lightning import Fabric
    from lightning.pytorch import LightningModule, Trainer

    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Regression(LightningModule):
        def __init__(self, names: tuple[str, ...]) -> None:
            super().__init__()
            self.names = names
            self.net, self.optimizer = make()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            loss = functional.mse_loss(self.net(x), y)
            for name in self.names:
                self.log(name, loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.optimizer

    def fit(*names: str) -> Train:
        def train(loader: Loader) -> None:
            trainer = Trainer(
                max_epochs=1,
                accelerator="cpu",
                devices=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(Regression(names), loader)

        return train

    def fabric(loader: Loader) -> None:
        fabric = Fabric(accelerator="cpu", devices=1)
        model, optimizer = fabric.setup(*make())
        for x, y in fabric.setup_dataloaders(loader):
            optimizer.zero_grad()
            loss = functional.mse_loss(model(x), y)
            fabric.backward(loss)
            optimizer.step()

    return [
        ("Lightning Fabric", fabric),
        ("Lightning Trainer", fit()),
        ("Lightning Trainer, one log", fit("loss")),
        ("Lightning Trainer, five logs", fit("loss", "b", "c", "d", "e")),
    ]


def ignite_arms(make: Make) -> list[tuple[str, Train]]:
    """`create_supervised_trainer`, which fetches each loss as its output."""
    from ignite.engine import create_supervised_trainer

    def train(loader: Loader) -> None:
        model, optimizer = make()
        create_supervised_trainer(model, optimizer, functional.mse_loss).run(loader, max_epochs=1)

    return [("Ignite, supervised trainer", train)]


def accelerate_arms(make: Make) -> list[tuple[str, Train]]:
    """`prepare` and `accumulate`, in a hand-written loop."""
    from accelerate import Accelerator

    def train(loader: Loader) -> None:
        accelerator = Accelerator(cpu=True)
        model, optimizer, loader = accelerator.prepare(*make(), loader)
        for x, y in loader:
            with accelerator.accumulate(model):
                optimizer.zero_grad()
                loss = functional.mse_loss(model(x), y)
                accelerator.backward(loss)
                optimizer.step()

    return [("Accelerate", train)]
