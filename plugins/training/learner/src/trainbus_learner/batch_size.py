"""How many samples in a batch: as many as memory holds and speed gains from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus import UsageError, hookimpl
from trainbus.batches import leaves, rebuilt

if TYPE_CHECKING:
    from trainbus import Accelerator, Run


@dataclass
class BatchSizes:
    """What was measured.

    Attributes:
        suggestion: the smallest batch size whose speed no larger one beats by more than a tenth.
        speeds: samples per second by batch size.
        memory: peak bytes by batch size, where the device counts them.
        ended: why no larger one was tried.
    """

    suggestion: int
    speeds: dict[int, float]
    ended: str
    memory: dict[int, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        speeds = ", ".join(f"{size}: {speed:,.0f}/s" for size, speed in self.speeds.items())
        return f"BatchSizes(suggestion={self.suggestion}; {speeds}; {self.ended})"


class Stopwatch:
    """Times the steps of a short fit but the first, which makes buffers and chooses kernels."""

    plugin_name = "learner_stopwatch"

    def __init__(self) -> None:
        #: Of each step but the first.
        self.seconds: list[float] = []
        self.accelerator: Accelerator | None = None
        self._since = 0.0

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Remember the device."""
        self.accelerator = run.accelerator

    @hookimpl(trylast=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Wait for the device, and look at the clock."""
        run.accelerator.synchronize()
        now = perf_counter()
        if run.batch_index > 0:
            self.seconds.append(now - self._since)
        self._since = now


def tiled(batch: Any, size: int) -> Any:
    """A batch of `size` samples, made of the samples of a batch, again and again."""

    def longer(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        if not value.ndim or not len(value):
            raise UsageError("find_batch_size: a part of the batch has no samples in it")
        times = -(-size // len(value))
        return value.repeat(times, *[1] * (value.ndim - 1))[:size]

    for part in leaves(batch):
        if not isinstance(part, Tensor):
            raise UsageError(
                f"find_batch_size: a part of the batch is a {type(part).__name__}; only tensors "
                "can be made longer"
            )
    return rebuilt(batch, longer)


def choose(speeds: dict[int, float], gain: float) -> int:
    """The smallest size whose speed no larger one beats by the factor `gain`."""
    sizes = sorted(speeds)
    return next(
        size
        for size in sizes
        if all(speeds[later] < gain * speeds[size] for later in sizes if later > size)
    )


def room_for(growth: int) -> bool:
    """Whether the host has this many bytes to spare, as far as the system knows.

    Where the memory of a CPU is out, no error comes: the system kills the process.
    """
    try:
        spare = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return True
    return growth < 0.8 * spare


def peak_bytes(accelerator: Accelerator) -> int | None:
    """The most memory that was in use so far."""
    return accelerator.memory_stats().get("peak")


def forget_peak(accelerator: Accelerator) -> None:
    """Give memory back, and begin to count its peak, where the device does."""
    accelerator.free_memory()
    if accelerator.device.type != "cpu":
        reset = getattr(torch.accelerator.memory, "reset_peak_memory_stats", None)
        if reset is not None:
            reset(accelerator.device)
