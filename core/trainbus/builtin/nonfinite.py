"""Notice when the loss or the gradients are no longer numbers, and do something about it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from trainbus.arguments import check_whole
from trainbus.builtin.checkpoint import Checkpoint
from trainbus.errors import PluginError, SkipStep, StopRun, TrainbusError, UsageError
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")

MODES = ("warn", "stop", "skip", "restore")

_GUARDING = ("on_before_optimizer_step", "on_train_batch_end")


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

    #: A guard of long runs: a short trial of a step does without it.
    computes = False

    def __init__(
        self, mode: Literal["warn", "stop", "skip", "restore"] = "warn", limit: int = 10
    ) -> None:
        if mode not in MODES:
            raise PluginError(f"mode={mode!r}: give one of {', '.join(map(repr, MODES))}")
        check_whole(1, limit=limit)
        self.mode = mode
        self.limit = limit
        #: A failure to warn ends no run; one to guard the weights does.
        self.observer = mode == "warn"
        # What a mode does not need is not there, and costs a step nothing.
        if mode == "warn":
            for hook in _GUARDING:
                setattr(self, hook, None)
        self._begin(0)

    def _begin(self, step: int) -> None:
        self._warned = self._warned_of_validation = False
        #: Bad steps in a row, by optimizer.
        self._in_a_row: dict[int, int] = {}
        self._told_at: int | None = None
        self._returns = 0
        self._furthest = step
        #: Why the run returns when the batch is over.
        self._reason: str | None = None

    @hookimpl
    def on_fit_start(self, run: Run) -> None:
        """Begin again; refuse to return where nothing is kept."""
        self._begin(run.global_step)
        keeps = any(isinstance(plugin, Checkpoint) for plugin in run.bus.plugins.values())
        if self.mode == "restore" and not keeps:
            raise UsageError(
                "nonfinite: mode 'restore' returns to checkpoints, and nothing writes any: add "
                '"checkpoint" to the plugins'
            )

    # --- warning -------------------------------------------------------------------------------

    @hookimpl
    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at what was fetched for the loggers."""
        for name, value in metrics.items():
            if math.isfinite(value):
                continue
            if name.startswith("train/") and self.mode == "warn" and not self._warned:
                self._warn(name, value, f"at step {step}")
            elif name.startswith("valid/") and not self._warned_of_validation:
                self._warned_of_validation = True
                logger.warning(
                    "%s is %s at step %d: by it no state is the best, and nothing is compared",
                    name, value, step,
                )  # fmt: skip

    @hookimpl
    def on_train_epoch_end(self, run: Run) -> None:
        """Look at the last loss of the epoch; or return, if its last step was the bad one."""
        if self.mode != "warn":
            self._return(run)
        elif not self._warned and run.loss is not None:
            value = float(run.loss)
            if not math.isfinite(value):
                self._warn("the loss", value, f"at the end of epoch {run.epoch}")

    def _warn(self, name: str, value: float, when: str) -> None:
        self._warned = True
        logger.warning(
            "%s is %s %s. If that is the loss, the weights are lost, too: a lower learning rate, "
            "clip_norm=1.0 or normalised inputs are the usual cures; -o nonfinite.mode=skip leaves "
            "such steps out; torch.autograd.set_detect_anomaly(True) finds the operation",
            name, value, when,
        )  # fmt: skip

    # --- guarding ------------------------------------------------------------------------------

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run: Run) -> None:
        """Let no gradient that is not finite reach the weights."""
        value, which = _norm(run), id(run.optimizer)
        if math.isfinite(value):
            self._in_a_row[which] = 0
            return
        when = f"the gradients hold {value} at step {run.global_step}"
        if self.mode == "stop":
            raise StopRun(when)
        if self.mode == "restore":
            self._reason = when
            raise SkipStep
        bad = self._in_a_row[which] = self._in_a_row.get(which, 0) + 1
        if bad > self.limit:
            raise TrainbusError(f"{when}, after {self.limit} skipped steps in a row")
        if self._told_at is None or (bad == 1 and run.global_step >= self._told_at + 100):
            self._told_at = run.global_step
            logger.warning("%s; steps like this one are skipped", when)
        raise SkipStep

    @hookimpl(tryfirst=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Return to a checkpoint, now that every optimizer has had its turn."""
        if self._reason is not None:
            self._return(run)

    def _return(self, run: Run) -> None:
        from trainbus.checkpoints import archive

        when, self._reason = self._reason, None
        if when is None:
            return
        if run.global_step > self._furthest:
            self._furthest, self._returns = run.global_step, 0
        path = archive.newest_valid(run.dir / "checkpoints")
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
        run.load_checkpoint(path, keep_place=True)
        # What a half-made step said of the way it came to is over.
        run.stepped = run.finished = False


def _norm(run: Run) -> float:
    """The norm of the gradients; infinite or NaN only if one of them is."""
    import torch

    gradients: list[Any] = []
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.numel():
                gradients.append(gradient.coalesce().values() if gradient.is_sparse else gradient)
    if not gradients:
        return 0.0
    norm = float(run.peers.norm(gradients))
    if math.isfinite(norm):
        return norm
    # A sum of squares overflows where each gradient may be finite; the largest does not.
    largest = torch.nn.utils.get_total_norm(gradients, norm_type=math.inf)
    return float(run.peers.unshard(largest))
