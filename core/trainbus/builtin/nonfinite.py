"""Say so when the loss is no longer a number."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainbus.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.run import Run

logger = logging.getLogger("trainbus")


class Nonfinite:
    """Warn once when the training loss, or a metric logged in training, is NaN or infinite.

    It looks at numbers when they are on the host anyway, and once more at the end of each epoch:
    no step waits for the device because of it.
    """

    observer = True

    def __init__(self) -> None:
        self.warned = False

    @hookimpl
    def on_fit_start(self) -> None:
        """Be ready to warn again."""
        self.warned = False

    @hookimpl
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at what was fetched for the loggers."""
        if self.warned:
            return
        for name, value in metrics.items():
            if name.startswith("train/") and not math.isfinite(value):
                self._warn(name, value, f"at step {step}")
                return

    @hookimpl
    def on_train_epoch_end(self, run: Run) -> None:
        """Look at the last loss of the epoch."""
        if not self.warned and run.loss is not None and not math.isfinite(value := float(run.loss)):
            self._warn("the loss", value, f"at the end of epoch {run.epoch}")

    def _warn(self, name: str, value: float, when: str) -> None:
        self.warned = True
        logger.warning(
            "%s is %s %s. If that is the loss, the weights are lost, too: a lower learning rate, "
            "clip_norm=1.0 or normalised inputs are the usual cures; "
            "torch.autograd.set_detect_anomaly(True) finds the operation",
            name, value, when,
        )  # fmt: skip
