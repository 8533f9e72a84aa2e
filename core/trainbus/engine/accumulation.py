"""Gradient accumulation: the batches whose gradients make one optimizer step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from math import inf
from typing import Any

from torch.optim import Optimizer

from trainbus.devices.peers import Peers


class Window:
    """The batches whose gradients make one optimizer step; without accumulation just one.

    The gradient of a window is the mean of those of its batches, weighted as the values that they
    log are: by `run.batch_size`.
    """

    __slots__ = (
        "begun", "first_batch", "first_weight", "gathered", "size", "total_weight", "uneven",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Batches in it.
        self.size = 1
        #: The index in its pass of the first one, with accumulation.
        self.first_batch = 0
        #: Batches that were begun, until the last one is.
        self.begun = 0
        #: Batches whose gradients are there.
        self.gathered = 0
        self.first_weight = self.total_weight = 1
        #: Its batches weigh otherwise than those of other processes.
        self.uneven = False

    def begin_batch(self, wanted: int, left: int | None) -> bool:
        """Count a batch in; True while more are to come before the step.

        Args:
            wanted: batches in a window.
            left: batches to come in this pass, this one included, where that is known: the last
                window may be short.
        """
        if self.begun == 0:
            self.size = wanted if left is None or left < 1 else min(wanted, left)
        self.begun += 1
        if self.begun < self.size:
            return True
        self.begun = 0
        return False

    def divisor(self, weight: int) -> float:
        """What the loss of the next batch is divided by, if it weighs so much.

        It is right at once where all weigh the same; `close` does the rest for others, so that
        no loss grows with its weight (16 bits overflow soon).
        """
        first = self.first_weight if self.gathered else weight
        return (first or 1) * self.size / weight if weight else inf

    def gather(self, weight: int) -> None:
        """Count in a batch whose gradient is there."""
        if self.gathered == 0:
            self.first_weight, self.total_weight = weight or 1, 0
        self.total_weight += weight
        self.gathered += 1

    def close(self, optimizers: Iterable[Optimizer]) -> None:
        """Make the gradients their weighted mean, and begin a new window."""
        factor = self.size * self.first_weight / (self.total_weight or 1)
        if factor != 1.0:  # they differ in weight, or are fewer than was planned
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.grad.mul_(factor)
        self.clear()

    def clear(self) -> None:
        """Begin a new window."""
        self.size, self.begun, self.gathered = 1, 0, 0


class SharedWindow(Window):
    """One whose batches are those of several processes, which make the mean of their gradients.

    A batch counts by its samples, which the loader tells: then each process knows what those of the
    others weigh, and nothing has to be said.
    """

    __slots__ = ("_peers", "round")

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._peers = peers
        #: What the present batch weighs in each process, by rank.
        self.round: Sequence[int] = (1,) * peers.data_size

    def begin_round(self, weights: Sequence[int]) -> None:
        """Take the weights of a batch in all processes."""
        self.round = weights
        self.uneven = len(set(weights)) > 1

    def divisor(self, weight: int) -> float:
        """See `Window`; the weight is that of the round, in this process."""
        weight = self.round[self._peers.data_rank]
        first = self.first_weight if self.gathered else self.round[0]
        return (first or 1) * self.size / weight if weight else inf

    def gather(self, weight: int) -> None:
        """See `Window`."""
        if self.gathered == 0:
            self.first_weight, self.total_weight = self.round[0] or 1, 0
        self.total_weight += sum(self.round)
        self.gathered += 1

    def close(self, optimizers: Iterable[Optimizer]) -> None:
        """See `Window`: the gradients are a mean over the processes already."""
        self.first_weight *= self._peers.data_size
        super().close(optimizers)
        self.uneven = False


def looking_ahead(rest: Iterator[Any], told: int, longer: Callable[[], None]) -> Iterator[Any]:
    """The batches of a loader that may be longer than it tells, so that windows stay whole.

    Args:
        rest: the batches.
        told: how many there are, as the loader tells.
        longer: called before the last of these is given, if there are more.
    """
    yield from islice(rest, max(0, told - 1))
    last = list(islice(rest, 1))
    more = list(islice(rest, 1))
    if more:
        longer()
    yield from chain(last, more, rest)
