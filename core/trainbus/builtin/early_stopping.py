"""End a run that does not get better any more."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from trainbus.arguments import check_number, check_whole
from trainbus.builtin.monitor import SECTION, Monitor
from trainbus.checkpoints import sections
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import fields, whole

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run


class EarlyStopping:
    """Stop the run when a metric has not become better for `patience` values in a row.

    A metric of validation is looked at after each validation, any other at the end of each epoch.

    Args:
        monitor: the metric, as it is logged.
        mode: whether a smaller ("min") or a larger ("max") value is better.
        patience: values in a row that may be no better; the last of them ends the run.
        min_delta: what a value must be better by, to count as better.
        check_finite: stop at once when the metric is NaN or infinite.
        stop_at: stop at once when the metric is as good as this.
        give_up_at: stop at once when the metric is as bad as this: it diverges.
        start_epoch: the first epoch, counted from 0, in which values may be no better.
        relative: `min_delta` is a part of the best, 0.01 for a hundredth.
        cumulative: a value that is better by less than `min_delta` becomes no new best, so that
            small gains add up; with False it does, and each gain is looked at alone.
    """

    def __init__(
        self,
        monitor: str = "valid/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
        check_finite: bool = True,
        stop_at: float | None = None,
        give_up_at: float | None = None,
        start_epoch: int = 0,
        relative: bool = False,
        cumulative: bool = True,
    ) -> None:
        check_whole(1, patience=patience)
        check_whole(0, start_epoch=start_epoch)
        for name, limit in {"stop_at": stop_at, "give_up_at": give_up_at}.items():
            if limit is not None:
                check_number(**{name: limit})
        self.monitor = monitor
        self.mode = mode
        self.patience = patience
        self.min_delta = min_delta
        self.check_finite = check_finite
        self.stop_at = stop_at
        self.waited = 0
        self.give_up_at = give_up_at
        self.start_epoch = start_epoch
        self._monitor = Monitor(monitor, mode, min_delta, relative, cumulative)

    @property
    def best(self) -> float | None:
        """The best value so far."""
        return self._monitor.best

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Begin again with each fit, before a checkpoint may bring what was."""
        if run.stage == "train":
            self._monitor.reset()
            self.waited = 0

    @hookimpl(trylast=True)
    def on_validation_end(self, run: Loop) -> None:
        """Decide, where the validation measured the metric."""
        if "fit" in run.open_events and self._monitor.is_new(run):
            self._decide(run)

    @hookimpl
    def on_epoch_end(self, run: Loop) -> None:
        """Decide, where that is not done."""
        if self._monitor.due(run):
            self._decide(run)

    def _decide(self, run: Loop) -> None:
        value = self._monitor.value(run, "early_stopping")
        improved = self._monitor.improved(value)
        self.waited = 0 if improved or run.epoch < self.start_epoch else self.waited + 1
        if reason := self._reason(value):
            run.stop(reason)

    def _reason(self, value: float) -> str:
        if self.check_finite and not math.isfinite(value):
            return f"{self.monitor} is {value}"
        sign = 1 if self.mode == "min" else -1
        if self.stop_at is not None and sign * value <= sign * self.stop_at:
            return f"{self.monitor} is {value:.6g} and was to reach {self.stop_at:.6g}"
        if self.give_up_at is not None and sign * value >= sign * self.give_up_at:
            return f"{self.monitor} is {value:.6g}, as bad as give_up_at={self.give_up_at:.6g}"
        if self.waited >= self.patience:
            one = "validation" if self.monitor.startswith("valid/") else "epoch"
            times = f"1 {one}" if self.waited == 1 else f"{self.waited} {one}s"
            best = "no value was finite" if self.best is None else f"the best was {self.best:.6g}"
            return f"{self.monitor} has not become better for {times}; {best}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The best, and how long there was none better."""
        return {"monitor": self._monitor.state_dict(), "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on waiting. Raises `CheckpointError` for the section of something else."""
        sections.check(state, fields({"monitor": SECTION, "waited": whole()}), "early_stopping")
        self._monitor.load_state_dict(state["monitor"])
        self.waited = state["waited"]
