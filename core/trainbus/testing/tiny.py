"""Something to train that takes milliseconds, and has what plugins stumble over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus.engine.run import Run
from trainbus.engine.task import Task


class TinyTask(Task):
    """Four numbers to one of three classes: a `body` with a norm and dropout, and a `head`."""

    hparams = {"hidden": 8, "lr": 0.05}  # noqa: RUF012 (as `Task` declares it)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores, batch x 3, of inputs, batch x 4."""
        scores: Tensor = self.head(self.body(inputs))
        return scores

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """The cross entropy, logged as `loss`."""
        inputs, target = batch
        loss = functional.cross_entropy(self(inputs), target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch: Any, run: Run) -> Tensor:
        """Scores; `loss` and `accuracy` are logged."""
        inputs, target = batch
        scores: Tensor = self(inputs)
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        run.log(loss=functional.cross_entropy(scores, target), accuracy=accuracy)
        return scores

    def configure_optimizer(self) -> torch.optim.Optimizer:
        """SGD with momentum, which has a state."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Line(Task):
    """Four numbers to one, by least squares; `Line(width=4)` has the hyperparameter `width`."""

    def __init__(self, dropout: float = 0.0, **hparams: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.dropout = nn.Dropout(dropout)
        self.hparams = hparams

    def forward(self, inputs: Tensor) -> Tensor:
        """Batch x 1 of inputs, batch x 4."""
        outputs: Tensor = self.linear(self.dropout(inputs))
        return outputs

    def training_step(self, batch: Any, run: Run) -> Tensor:
        """The mean squared error, logged as `loss`."""
        inputs, target = batch
        loss = functional.mse_loss(self(inputs), target)
        run.log(loss=loss)
        return loss

    validation_step = training_step

    def configure_optimizer(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def make_loader(batches: int = 5, size: int = 4, shuffle: bool = True) -> DataLoader[Any]:
    """A loader of batches for `TinyTask`: (size x 4 floats, size classes), always the same data."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(batches * size, 4, generator=generator)
    target = inputs[:, :3].argmax(dim=1)
    return DataLoader(TensorDataset(inputs, target), batch_size=size, shuffle=shuffle)


def make_line_loader(
    batches: int = 5, size: int = 2, rest: int = 0, **options: Any
) -> DataLoader[Any]:
    """A loader for `Line`: always the same data, with `rest` samples more in a shorter batch."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(batches * size + rest, 4, generator=generator)
    target = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
    return DataLoader(TensorDataset(inputs, target), batch_size=size, **options)
