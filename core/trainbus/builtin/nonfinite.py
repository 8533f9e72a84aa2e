"""Notice when the loss or the gradients are no longer numbers, and do something about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainbus.builtin.checkpoint import Checkpoint
from trainbus.errors import PluginError, SkipStep, StopRun, TrainbusError, UsageError
from trainbus.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.run import Run

logger = logging.getLogger("trainbus")

MODES = ("warn", "stop", "skip", "restore")
#: What a return to an older state leaves as it is: where the run stands in its data.
_STAYS = ("epoch", "epochs_done", "skipped_steps", "resume_at")


class Nonfinite:
    """Warn of a loss that is NaN or infinite, or keep bad gradients from the weights.

    - "warn" looks at numbers when they are on the host anyway, and at the last loss of each epoch:
      no step waits for the device because of it.
    - "stop" ends the run before a step whose gradients are not finite.
    - "skip" leaves out such steps.
    - "restore" leaves them out and returns to the newest checkpoint of the run; the data goes on
      with the batches that follow. Chowdhery et al. (2022), "PaLM", section 5.1, met spikes of
      the loss so: neither the state nor the batches alone bring them back.

    All but "warn" read one number from the device before each step.

    Args:
        mode: what to do.
        limit: with "skip" bad steps in a row, with "restore" returns without progress between
            them, after which the run ends with an error.
    """

    plugin_name = "nonfinite"  # whichever of the two it is

    def __new__(cls, mode: str = "warn", limit: int = 10) -> Nonfinite:
        """Make a listener that costs a step nothing, or one that looks at each."""
        if mode not in MODES:
            raise PluginError(f"mode={mode!r}: give one of {', '.join(map(repr, MODES))}")
        return super().__new__(Warn if mode == "warn" else Guard)

    def __init__(
        self, mode: Literal["warn", "stop", "skip", "restore"] = "warn", limit: int = 10
    ) -> None:
        if limit < 1:
            raise PluginError(f"limit={limit}: give a whole number of at least 1")
        self.mode = mode
        self.limit = limit
        self.warned = False


class Warn(Nonfinite):
    """The mode "warn"."""

    observer = True

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
            "clip_norm=1.0 or normalised inputs are the usual cures; -o nonfinite.mode=skip leaves "
            "such steps out; torch.autograd.set_detect_anomaly(True) finds the operation",
            name, value, when,
        )  # fmt: skip


class Guard(Nonfinite):
    """The modes that look at the gradients before each step."""

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Begin to count anew."""
        self._in_a_row = self._returns = 0
        self._furthest = run.global_step
        self._return_to: Path | None = None
        self._told_at = 0
        keeps = any(isinstance(plugin, Checkpoint) for plugin in run.bus.plugins.values())
        if self.mode == "restore" and not keeps:
            raise UsageError(
                "nonfinite: mode 'restore' returns to checkpoints, and nothing writes any: add "
                '"checkpoint" to the plugins'
            )

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run: Run) -> None:
        """Let no gradient that is not finite reach the weights."""
        value = _largest(run)
        if math.isfinite(value):
            self._in_a_row = 0
            return
        when = f"the gradients hold {value} at step {run.global_step}"
        if self.mode == "stop":
            raise StopRun(when)
        self._in_a_row += 1
        if self._in_a_row > self.limit:
            raise TrainbusError(f"{when}, after {self.limit} skipped steps in a row")
        if self.mode == "restore":
            self._plan_return(run, when)
        elif self._in_a_row == 1 and (not self._told_at or run.global_step >= self._told_at + 100):
            self._told_at = max(run.global_step, 1)
            logger.warning("%s; steps like this one are skipped", when)
        raise SkipStep

    def _plan_return(self, run: Run, when: str) -> None:
        from trainbus import checkpoint

        if run.global_step > self._furthest:
            self._furthest, self._returns = run.global_step, 0
        path = checkpoint.newest_valid(run.dir / "checkpoints")
        if path is None:
            logger.warning("%s; there is no checkpoint yet, the step is skipped", when)
            return
        self._returns += 1
        if self._returns > self.limit:
            raise TrainbusError(
                f"{when}, after {self.limit} returns to a checkpoint that brought the run no "
                f"further than step {self._furthest}"
            )
        logger.warning("%s; the run returns to %s", when, path)
        self._return_to = path

    @hookimpl(tryfirst=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Return, now that every optimizer has had its turn."""
        path, self._return_to = self._return_to, None
        if path is None:
            return
        kept = {name: getattr(run, name) for name in _STAYS}
        records = run.records_state()
        run.load_checkpoint(path)
        run.load_records_state(records)
        for name, value in kept.items():
            setattr(run, name, value)
        self._in_a_row = 0


def _largest(run: Run) -> float:
    """The largest magnitude among the gradients; NaN if one of them is."""
    import torch

    assert run.optimizer is not None
    gradients: list[Any] = []
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.numel():
                gradients.append(gradient.coalesce().values() if gradient.is_sparse else gradient)
    if not gradients:
        return 0.0
    # No sum of squares, which could overflow where each gradient is finite.
    return float(torch.nn.utils.get_total_norm(gradients, norm_type=math.inf))
