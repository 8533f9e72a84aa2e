"""Change the number of accumulated batches from epoch to epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.arguments import is_whole
from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.engine.run import Run


class Accumulate:
    """Let the batches that make one optimizer step change with the epochs.

    `Accumulate({0: 8, 4: 4, 8: 1})`: eight batches make a step in the epochs 0 to 3, four in 4 to
    7, one from 8 on. Before the first epoch that is named, `Trainer(accumulate=...)` holds.

    Args:
        windows: batches for a step, by the index of the epoch from which on that holds.
    """

    #: It says how many batches make a step.
    computes = True

    def __init__(self, windows: dict[int, int]) -> None:
        if not isinstance(windows, dict) or not windows:
            raise PluginError(f"windows={windows!r}: give batches by epoch, {{0: 8, 4: 1}}")
        for epoch, batches in windows.items():
            if not is_whole(epoch, 0):
                raise PluginError(
                    f"windows={windows}: {epoch!r} is no epoch; they are counted 0, 1, 2, ..."
                )
            if not is_whole(batches, 1):
                raise PluginError(
                    f"windows={windows}: epoch {epoch} has {batches!r} batches in a step; give a "
                    "whole number of at least 1"
                )
        self.windows = dict(sorted(windows.items()))

    def window(self, epoch: int, otherwise: int) -> int:
        """Batches for a step in an epoch, `otherwise` before the first that is named."""
        batches = otherwise
        for first, value in self.windows.items():
            if first <= epoch:
                batches = value
        return batches

    @hookimpl(tryfirst=True)
    def on_train_epoch_start(self, run: Run) -> None:
        """Set what holds in this epoch, before its first batch is counted into a step."""
        run.accumulate = self.window(run.epoch, run.trainer.accumulate)

    @hookimpl
    def on_fit_end(self, run: Run) -> None:
        """Leave the trainer's value."""
        run.accumulate = run.trainer.accumulate
