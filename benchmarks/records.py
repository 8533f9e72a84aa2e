"""What logging costs the training thread, what a slow logger costs, and a million numbers.

    python benchmarks/records.py [--peers] [--rounds N] [--steps N]

What is measured, and how, is told in README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import JournalFile, Task, Trainer, hookimpl
from trainbus.builtin import Journal
from trainbus.records.journal import Entry

WARM_UP = 100


class Times(NamedTuple):
    """Seconds of this thread, and of all threads of the process."""

    thread: float
    process: float

    @staticmethod
    def now() -> Times:
        return Times(thread_time(), process_time())


class Batches:
    """The same batch again and again; looks at the clocks where training asks for it."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        generator = torch.Generator().manual_seed(0)
        self.batch = (
            torch.randn(4, 8, generator=generator),
            torch.randn(4, 1, generator=generator),
        )
        self.started = self.ended = Times(0.0, 0.0)

    def __len__(self) -> int:
        return WARM_UP + self.steps + 2

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in range(len(self)):
            if index == WARM_UP:
                self.started = Times.now()
            elif index == WARM_UP + self.steps:
                self.ended = Times.now()
            yield self.batch

    def per_step(self) -> Times:
        """Microseconds per step."""
        return Times(
            *((b - a) / self.steps * 1e6 for a, b in zip(self.started, self.ended, strict=True))
        )


Train = Callable[[Iterable[Any], int], None]


def names(scalars: int) -> list[str]:
    return [f"m{i}" for i in range(scalars)]


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


class Regression(Task):
    """Logs the loss under so many names, one call for each."""

    def __init__(self, scalars: int) -> None:
        super().__init__()
        self.net, self.optimizer = model_and_optimizer()
        self.names = names(scalars)

    def training_step(self, batch: Any, run: Any) -> Tensor:
        loss = functional.mse_loss(self.net(batch[0]), batch[1])
        for name in self.names:
            run.log(name, loss)
        return loss

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer


def with_trainbus(*plugins: Any) -> Train:
    def train(batches: Iterable[Any], scalars: int) -> None:
        quiet = ["-manifest", "-nonfinite"]
        Trainer(plugins=[*quiet, *plugins]).fit(Regression(scalars), batches)

    return train


# --- clients, called directly --------------------------------------------------------------------


def by_hand(batches: Iterable[Any], log: Callable[[int, float], None] | None = None) -> None:
    """A loop that hands each loss to a client at once, which waits for the number."""
    model, optimizer = model_and_optimizer()
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        if log is not None:
            log(step, loss.item())
        loss.backward()
        optimizer.step()


def tensorboard(batches: Iterable[Any], scalars: int) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter("tensorboard") as writer:

        def log(step: int, loss: float) -> None:
            for name in names(scalars):
                writer.add_scalar(name, loss, step)

        by_hand(batches, log if scalars else None)


def wandb(batches: Iterable[Any], scalars: int) -> None:
    import wandb as client

    settings = client.Settings(silent=True, console="off", x_disable_stats=True)
    with client.init(mode="offline", dir=".", settings=settings, reinit="create_new") as run:

        def log(step: int, loss: float) -> None:
            run.log(dict.fromkeys(names(scalars), loss))

        by_hand(batches, log if scalars else None)


def mlflow(batches: Iterable[Any], scalars: int) -> None:
    import mlflow as client

    client.set_tracking_uri(f"sqlite:///{Path.cwd()}/mlflow.db")
    with client.start_run():

        def log(step: int, loss: float) -> None:
            client.log_metrics(dict.fromkeys(names(scalars), loss), step=step)

        by_hand(batches, log if scalars else None)


def trackio(batches: Iterable[Any], scalars: int) -> None:
    import trackio as client

    client.init(project="benchmark", embed=False)

    def log(step: int, loss: float) -> None:
        client.log(dict.fromkeys(names(scalars), loss))

    by_hand(batches, log if scalars else None)
    client.finish()


def lightning(batches: Iterable[Any], scalars: int) -> None:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.optimizer = model_and_optimizer()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = functional.mse_loss(self.net(batch[0]), batch[1])
            for name in names(scalars):
                self.log(name, loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.optimizer

    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=1,
        logger=TensorBoardLogger("lightning"),
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), batches)


def arms(peers: bool) -> dict[str, Train]:
    found = {
        "trainbus, journal": with_trainbus(),
        "trainbus, tensorboard": with_trainbus("tensorboard"),
    }
    if not peers:
        return found
    clients = {"lightning": lightning, "tensorboard": tensorboard, "wandb": wandb}
    clients |= {"trackio": trackio, "mlflow": mlflow}
    for name, train in clients.items():
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed here: left out")
        elif name == "lightning":
            found["Lightning, its TensorBoard logger"] = train
        else:
            found[f"{name}, called directly"] = train
    return found


# --- the three measurements ----------------------------------------------------------------------


def cost_of_log(rounds: int, steps: int, peers: bool) -> None:
    """Microseconds per logged scalar: the difference to the same arm without any."""
    trains = arms(peers)
    measured: dict[tuple[str, int], list[Times]] = {}
    for _ in range(rounds):
        order = [(name, scalars) for name in trains for scalars in (0, 1, 5)]
        random.shuffle(order)
        for name, scalars in order:
            # A client that takes milliseconds is measured on fewer steps.
            batches = Batches(steps if not name.startswith("mlflow") else 100)
            with in_empty_directory(), redirect_stdout(StringIO()):
                trains[name](batches, scalars)
            measured.setdefault((name, scalars), []).append(batches.per_step())
    base = median(each.thread for each in measured["trainbus, journal", 0])
    print(f"a step of trainbus that logs nothing: {base:.0f} us")
    print(f"\n{'microseconds per scalar':36}{'training thread':>20}{'all threads':>20}")
    print(f"{'scalars per step':36}{'1':>10}{'5':>10}{'1':>10}{'5':>10}   target")
    for name in trains:
        cells = []
        for clock in (0, 1):
            for scalars in (1, 5):
                pairs = zip(measured[name, scalars], measured[name, 0], strict=True)
                cells.append(median(with_[clock] - without[clock] for with_, without in pairs))
                cells[-1] /= scalars
        target = ""
        if name.startswith("trainbus"):
            target = "   5" + (" !" if max(cells[:2]) > 5 else "")
        print(f"{name:36}" + "".join(f"{cell:10.1f}" for cell in cells) + target)


class Slow:
    """A logger whose every call takes 200 ms."""

    observer = True

    @hookimpl
    def on_log_start(self) -> None:
        """Nothing to begin."""

    @hookimpl
    def on_metrics(self) -> None:
        """Take long."""
        time.sleep(0.2)


class Wide(Task):
    """A step of some milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 1))

    def training_step(self, batch: Any, run: Any) -> Tensor:
        loss: Tensor = self.net(batch).square().mean()
        run.log(loss=loss)
        return loss

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def slow_logger(rounds: int) -> None:
    """The time of a training with a slow logger, by that of one without."""
    batch = torch.randn(256, 256)

    def seconds(*plugins: Any) -> float:
        clock: list[float] = []
        # What is left when the training is over waits in the journal.
        trainer = Trainer(plugins=["-manifest", Journal(finish_seconds=0.0), *plugins])
        trainer.on("train_epoch_start")(lambda: clock.append(perf_counter()))
        trainer.on("fit_end", tryfirst=True)(lambda: clock.append(perf_counter()))
        with in_empty_directory():
            trainer.fit(Wide(), [batch] * 600)
        return clock[1] - clock[0]

    seconds()
    ratios = []
    for _ in range(rounds):
        pair = [("with", Slow), ("without", None)]
        random.shuffle(pair)
        took = {name: seconds(*([make()] if make else [])) for name, make in pair}
        ratios.append(took["with"] / took["without"])
    ratio = median(ratios)
    mark = " !" if ratio > 1.02 else ""
    print(f"\na logger that takes 200 ms a call: {ratio - 1:+.1%} (target 2%){mark}")


def million() -> None:
    """A journal of ten series of 100,000 points."""
    series = [f"train/m{i}" for i in range(10)]
    with in_empty_directory():
        path = Path("journal.db")
        memory = []
        with JournalFile.create(path) as journal:
            started = perf_counter()
            for first in range(0, 100_000, 100):
                journal.append([
                    Entry("metrics", time.time(), first + i, dict.fromkeys(series, random.random()))
                    for i in range(100)
                ])  # fmt: skip
                if first in (10_000, 99_900):
                    memory.append(resident())
            written = perf_counter() - started
        with JournalFile.open(path) as journal:
            queries = []
            for name in series:
                started = perf_counter()
                points = journal.series(name)
                queries.append(perf_counter() - started)
                assert len(points.steps) == 100_000
        size = path.stat().st_size / 1e6
    query = median(queries) * 1e3
    mark = " !" if query > 50 else ""
    print(
        f"\na million numbers: {size:.0f} MB, written in {written:.1f} s, one series of 100,000 "
        f"read in {query:.0f} ms (target 50){mark}, "
        f"memory {(memory[1] - memory[0]) / 1e6:+.1f} MB from the first tenth to the end"
    )


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def in_empty_directory() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        os.chdir(directory)
        try:
            yield
        finally:
            os.chdir(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="beside Lightning and the clients")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    # Read when it is imported.
    os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")
    lightning = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")
    for name in (*lightning, "trainbus", "mlflow", "mlflow.store.db.utils", "alembic", "wandb"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    cost_of_log(arguments.rounds, arguments.steps, arguments.peers)
    slow_logger(arguments.rounds)
    million()


if __name__ == "__main__":
    main()
