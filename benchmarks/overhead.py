"""Time and function calls per training step, over a hand-written loop.

    python benchmarks/overhead.py [--peers] [--rounds N] [--steps N]

What is measured, and how, is told in README.md.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import logging
import platform
import pstats
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import trainbus
from trainbus import Task, Trainer, hookimpl

WARM_UP = 50
#: Lengths between which the function calls are counted.
SHORT, LONG = 200, 600
PLUGINS, HOOKS = 10, 3
LISTENER_CALLS = PLUGINS * HOOKS


class Times(NamedTuple):
    """Processor time of this process, all threads together, and time on the wall."""

    cpu: float
    wall: float

    @staticmethod
    def now() -> Times:
        return Times(process_time(), perf_counter())


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """One batch, handed out again and again, and the times at which two of them were asked for."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.started = self.ended = Times(0.0, 0.0)
        generator = torch.Generator().manual_seed(0)
        self.batch = (
            torch.randn(4, 8, generator=generator),
            torch.randn(4, 1, generator=generator),
        )

    def __len__(self) -> int:
        # Two more than are timed: some trainers read ahead.
        return self.last + 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.first:
            self.started = Times.now()
        elif index == self.last:
            self.ended = Times.now()
        return self.batch

    def per_step(self) -> Times:
        """Microseconds per step between the first and the last of the timed batches."""
        scale = 1e6 / (self.last - self.first)
        cpu, wall = self.ended.cpu - self.started.cpu, self.ended.wall - self.started.wall
        return Times(cpu * scale, wall * scale)


Loader = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Arm:
    """One way to train the same model on the same batches."""

    name: str
    train: Callable[[Loader], None]
    #: What to reach, in microseconds and calls per step over the hand-written loop.
    microseconds: float | None = None
    calls: float | None = None


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    """The same small model for every arm, so that what the trainer adds is all that differs."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def by_hand(loader: Loader) -> None:
    """The loop that all others are compared with."""
    model, optimizer = model_and_optimizer()
    for x, y in loader:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()


# --- trainbus ------------------------------------------------------------------------------------


class Regression(Task):
    """Logs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.optimizer = model_and_optimizer()

    def training_step(self, batch: Any, run: trainbus.Run) -> Tensor:
        x, y = batch
        return functional.mse_loss(self.net(x), y)

    def configure_optimizer(self) -> torch.optim.Optimizer:
        return self.optimizer


class LogsOne(Regression):
    """Logs the loss."""

    def training_step(self, batch: Any, run: trainbus.Run) -> Tensor:
        x, y = batch
        loss = functional.mse_loss(self.net(x), y)
        run.log(loss=loss)
        return loss


class LogsFive(Regression):
    """Logs five tensors in one call."""

    def training_step(self, batch: Any, run: trainbus.Run) -> Tensor:
        x, y = batch
        loss = functional.mse_loss(self.net(x), y)
        run.log(loss=loss, b=loss, c=loss, d=loss, e=loss)
        return loss


class LogsFiveTimes(Regression):
    """Logs five tensors in a call each."""

    def training_step(self, batch: Any, run: trainbus.Run) -> Tensor:
        x, y = batch
        loss = functional.mse_loss(self.net(x), y)
        run.log(loss=loss)
        run.log(b=loss)
        run.log(c=loss)
        run.log(d=loss)
        run.log(e=loss)
        return loss


class Idle:
    """A plugin that listens three times in a step and does nothing."""

    def __init__(self, number: int) -> None:
        self.plugin_name = f"idle_{number}"

    @hookimpl
    def on_train_batch_start(self, run: trainbus.Run) -> None:
        pass

    @hookimpl
    def on_after_backward(self, run: trainbus.Run) -> None:
        pass

    @hookimpl
    def on_train_batch_end(self, run: trainbus.Run) -> None:
        pass


def trainbus_arms(run_dir: str) -> list[Arm]:
    """All ways to train with trainbus, made anew for each segment as a user would."""
    off = ["-journal", "-manifest", "-nonfinite"]

    def trainer(count: int) -> Trainer:
        return Trainer(plugins=[*off, *(Idle(i) for i in range(count))], accelerator="cpu")

    def fit(task: type[Regression], count: int) -> Callable[[Loader], None]:
        return lambda loader: ignore(trainer(count).fit(task(), loader))

    def default(loader: Loader) -> None:
        Trainer(accelerator="cpu", run_dir=run_dir).fit(LogsOne(), loader)

    def own_loop(loader: Loader) -> None:
        model, optimizer = model_and_optimizer()
        with trainer(0).open(model, optimizer) as run:
            for x, y in run.batches(loader, epochs=1):
                run.step(functional.mse_loss(model(x), y))

    heard = 14 + LISTENER_CALLS
    return [
        Arm("trainbus, no listener", fit(Regression, 0), 6, 14),
        Arm("trainbus, 10 plugins", fit(Regression, PLUGINS), None, heard),
        Arm("trainbus, 10 plugins, one log", fit(LogsOne, PLUGINS), 16, heard + 8),
        Arm(
            "trainbus, 10 plugins, five values in one log", fit(LogsFive, PLUGINS), None, heard + 40
        ),
        Arm("trainbus, 10 plugins, five logs", fit(LogsFiveTimes, PLUGINS), None, heard + 40),
        Arm("trainbus, default Trainer, one log", default, None, 28),
        Arm("trainbus, your own loop", own_loop),
    ]


def ignore(_: object) -> None:
    """Drop a result."""


# --- measuring -----------------------------------------------------------------------------------


def time_of(arm: Arm, steps: int) -> Times:
    """Microseconds per step, from inside the loop: the start and the end of a run are left out."""
    data = Batches(WARM_UP, WARM_UP + steps)
    gc.collect()
    arm.train(DataLoader(data, batch_size=None))
    return data.per_step()


def calls_of(arm: Arm) -> float:
    """Function calls per step, as cProfile counts them: the slope between two lengths."""
    totals = []
    # The first run is for what is done only once in a process.
    for steps in (SHORT, SHORT, LONG):
        loader = DataLoader(Batches(0, steps - 2), batch_size=None)
        profile = cProfile.Profile()
        profile.runcall(arm.train, loader)
        totals.append(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]
    return (totals[2] - totals[1]) / (LONG - SHORT)


def measure(arms: Sequence[Arm], rounds: int, steps: int) -> dict[str, list[Times]]:
    """Microseconds per step of each arm in each round; the order within a round is random."""
    for arm in arms:
        time_of(arm, WARM_UP)
    # What is there by now is not looked at again by the collections between the segments.
    gc.collect()
    gc.freeze()
    order = random.Random(0)
    times: dict[str, list[Times]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        for arm in order.sample(arms, len(arms)):
            times[arm.name].append(time_of(arm, steps))
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    gc.unfreeze()
    return times


# --- reporting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """An arm beside the hand-written loop: one line of the table."""

    arm: Arm
    #: Microseconds of processor time over the loop, paired round by round: median and quartiles.
    added: float
    low: float
    high: float
    #: Microseconds on the wall over the loop, and processor time as a multiple of the loop's.
    wall: float
    ratio: float
    calls: float


def compare(arm: Arm, times: Sequence[Times], base: Sequence[Times], calls: float) -> Result:
    """An arm beside the hand-written loop of the same rounds."""
    pairs = list(zip(times, base, strict=True))
    low, middle, high = quantiles([a.cpu - b.cpu for a, b in pairs], n=4, method="inclusive")
    wall = median(a.wall - b.wall for a, b in pairs)
    return Result(arm, middle, low, high, wall, median(a.cpu / b.cpu for a, b in pairs), calls)


def show(results: Sequence[Result]) -> None:
    print("per step, over the hand-written loop (medians and quartiles of the rounds)")
    print(
        f"{'':46}{'us':>8} {'quartiles':>16}{'target':>8}{'ratio':>8}{'us wall':>9}"
        f"{'calls':>9}{'target':>8}"
    )
    for each in results:
        print(
            f"{each.arm.name:46}{each.added:8.1f} {f'{each.low:.1f} .. {each.high:.1f}':>16}"
            f"{_target(each.added, each.arm.microseconds):>8}{each.ratio:8.2f}{each.wall:9.1f}"
            f"{each.calls:9.1f}{_target(each.calls, each.arm.calls):>8}"
        )


def _target(value: float, target: float | None) -> str:
    if target is None:
        return ""
    return f"<={target:.0f}" + ("" if value <= target else "!")


def show_logged_scalars(results: Sequence[Result]) -> None:
    """What one logged scalar adds to 10 plugins that log nothing."""
    by_name = {each.arm.name: each for each in results}
    without = by_name["trainbus, 10 plugins"]
    print()
    print("per logged scalar, a tensor")
    for name, scalars in (
        ("trainbus, 10 plugins, one log", 1),
        ("trainbus, 10 plugins, five values in one log", 5),
        ("trainbus, 10 plugins, five logs", 5),
    ):
        time = (by_name[name].added - without.added) / scalars
        calls = (by_name[name].calls - without.calls) / scalars
        print(f"{name:46}{time:8.1f} us {calls:8.1f}{_target(calls, 10):>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="measure other trainers, too")
    parser.add_argument("--rounds", type=int, default=30, help="at least 2")
    parser.add_argument(
        "--steps", type=int, default=1000, help="timed steps in a segment, a multiple of 200"
    )
    given = parser.parse_args()

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    base = Arm("hand-written loop", by_hand)
    with tempfile.TemporaryDirectory() as run_dir:
        arms = [Arm("hand-written loop, once more", by_hand), *trainbus_arms(run_dir)]
        if given.peers:
            import peers

            arms += [Arm(name, train) for name, train in peers.arms(model_and_optimizer)]
        times = measure([base, *arms], given.rounds, given.steps)
        calls = {arm.name: calls_of(arm) for arm in [base, *arms]}

    base_times, base_calls = times[base.name], calls[base.name]
    results = [
        compare(arm, times[arm.name], base_times, calls[arm.name] - base_calls) for arm in arms
    ]
    print(
        f"trainbus {trainbus.__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}, {platform.machine()}, one thread; "
        f"{given.rounds} rounds of {given.steps} steps"
    )
    print(
        f"{base.name}: {median(each.cpu for each in base_times):.1f} us "
        f"({median(each.wall for each in base_times):.1f} us on the wall) and "
        f"{base_calls:.0f} function calls per step"
    )
    print()
    show(results)
    show_logged_scalars(results)
    print()
    print(
        f"10 plugins listen to {HOOKS} hooks each: {LISTENER_CALLS} of the calls are their own. "
        "! marks a missed target."
    )


if __name__ == "__main__":
    main()
