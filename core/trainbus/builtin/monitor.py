"""A metric that is watched: its value, and whether it has become better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from trainbus.errors import PluginError, UsageError, nearest
from trainbus.storage.untrusted import choice, fields, maybe, number, text, whole

if TYPE_CHECKING:
    from trainbus.engine.loop import Loop

#: What a monitor keeps in a checkpoint.
SECTION = fields(
    {
        "metric": text(),
        "mode": choice("min", "max"),
        "best": maybe(number),
        "seen": whole(),
    }
)


class Monitor:
    """One metric, and the best value that it had.

    Args:
        metric: its name, `valid/loss` for example.
        mode: whether a smaller ("min") or a larger ("max") value is better.
        min_delta: what a value must be better by, to count as better than the best.
        relative: `min_delta` is a part of the best.
        cumulative: a value that is better by less does not become the best.
    """

    def __init__(
        self,
        metric: str,
        mode: Literal["min", "max"] = "min",
        min_delta: float = 0.0,
        relative: bool = False,
        cumulative: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise PluginError(f"mode={mode!r}: give 'min' or 'max'")
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise PluginError(f"min_delta={min_delta}: give a number of at least 0")
        self.metric = metric
        self.mode = mode
        self.min_delta = min_delta
        self.relative = relative
        self.cumulative = cumulative
        self.best: float | None = None
        #: How often it had been measured when it was looked at.
        self._seen = 0

    def reset(self) -> None:
        """Forget the best."""
        self.best, self._seen = None, 0

    def is_new(self, run: Loop) -> bool:
        """Whether the metric was measured since it was looked at."""
        run.flush()
        return run.buffer.measured.get(self.metric, 0) != self._seen

    def due(self, run: Loop) -> bool:
        """Whether there is a value that was not looked at; or none, where one should be.

        A metric of validation has none in an epoch that was not validated, since `validate_every`
        left it out or the run was stopped before; and it need not be logged in each validation.
        """
        if self.is_new(run):
            return True
        if self.metric in run.buffer.measured:
            return False
        if not self.metric.startswith("valid/"):
            return True
        cadence = run.trainer.cadence
        if cadence.unit in ("step", "second"):
            return False  # it need not be reached in an epoch
        due = cadence.unit == "part" or (run.epoch + 1) % cadence.amount == 0
        return due and not run.stopping

    def value(self, run: Loop, who: str) -> float:
        """The newest value of the metric.

        Raises:
            UsageError: it was not logged; the message names `who` monitors it, and what was.
        """
        metrics = run.metrics
        if self.metric not in metrics:
            logged = ", ".join(sorted(metrics)) or "nothing"
            raise UsageError(
                f"{who} monitors {self.metric!r}, which was not logged"
                f"{nearest(self.metric, metrics)} Logged were: {logged}"
            )
        self._seen = run.buffer.measured.get(self.metric, 0)
        return metrics[self.metric]

    def improved(self, value: float) -> bool:
        """Whether a value is better than the best, which it then becomes. NaN never is."""
        if math.isnan(value):
            return False
        if self.best is not None:
            gain = self.best - value if self.mode == "min" else value - self.best
            needed = self.min_delta * (abs(self.best) if self.relative else 1)
            if not gain > needed:
                if gain > 0 and not self.cumulative:
                    self.best = value
                return False
        self.best = value
        return True

    def state_dict(self) -> dict[str, Any]:
        """The best, and of what."""
        same = {"metric": self.metric, "mode": self.mode}
        return {**same, "best": self.best, "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on comparing with a best of before, unless it was that of another metric."""
        same = (state["metric"], state["mode"]) == (self.metric, self.mode)
        self.best = state["best"] if same else None
        self._seen = state["seen"] if same else 0
