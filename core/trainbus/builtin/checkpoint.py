"""Keep the last and the best state of a run on the disk."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainbus.errors import PluginError, UsageError, nearest
from trainbus.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.run import Run

logger = logging.getLogger("trainbus")


class Checkpoint:
    """Write `checkpoints/last.pt` each epoch, and `checkpoints/best.pt` when `monitor` improves.

    Args:
        monitor: a metric, `valid/loss` for example; without one there is no best.
        mode: whether a smaller ("min") or a larger ("max") value is better.
        every_epochs: epochs between writes of the last state.
    """

    def __init__(
        self,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        every_epochs: int = 1,
    ) -> None:
        if mode not in ("min", "max"):
            raise PluginError(f"mode={mode!r}: give 'min' or 'max'")
        if every_epochs < 1:
            raise PluginError(f"every_epochs={every_epochs}: give a whole number of at least 1")
        self.monitor = monitor
        self.mode = mode
        self.every_epochs = every_epochs
        self.best_value: float | None = None
        self.best_path: Path | None = None
        self.last_path: Path | None = None

    @hookimpl
    def on_fit_start(self) -> None:
        """Start without a best, unless a checkpoint brings one."""
        self.best_value = self.best_path = self.last_path = None

    @hookimpl(trylast=True, rank_zero=True)
    def on_epoch_end(self, run: Run) -> None:
        """Compare, then write."""
        if run.dry_run:
            return
        directory = run.dir / "checkpoints"
        if self._improved(run):
            self.best_path = directory / "best.pt"
            run.save_checkpoint(self.best_path)
        if (run.epoch + 1) % self.every_epochs == 0:
            self.last_path = directory / "last.pt"
            run.save_checkpoint(self.last_path)

    def _improved(self, run: Run) -> bool:
        if self.monitor is None:
            return False
        value = run.metrics.get(self.monitor)
        if value is None:
            logged = ", ".join(sorted(run.metrics)) or "nothing"
            raise UsageError(
                f"checkpoint monitors {self.monitor!r}, which was not logged"
                f"{nearest(self.monitor, run.metrics)} Logged were: {logged}"
            )
        if math.isnan(value):
            return False
        better = self.best_value is None or (
            value < self.best_value if self.mode == "min" else value > self.best_value
        )
        if better:
            self.best_value = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """What the best is, to go on comparing with it."""
        return {"best_value": self.best_value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on comparing with a best of before."""
        self.best_value = state["best_value"]
