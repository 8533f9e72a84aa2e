"""The learning rate range test: the loss while the learning rate grows from step to step."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from trainbus import UsageError, hookimpl
from trainbus.arguments import check_number, check_whole
from trainbus.errors import nearest

if TYPE_CHECKING:
    from torch import Tensor

    from trainbus import Run

#: Weight of what was before in the smoothed loss.
_SMOOTHING = 0.98


@dataclass
class LearningRates:
    """What a range test found.

    Attributes:
        rates: the learning rate of each step.
        losses: the loss of each step, before it was made.
        smoothed: the losses, smoothed exponentially.
        usual: the rate that a fit takes which is given none.
        suggestions: learning rates by the names of the rules.
        chosen: the rule that `suggestion` follows.
        ended: why the test ended.
    """

    rates: list[float]
    losses: list[float]
    suggestions: dict[str, float]
    chosen: str
    ended: str
    smoothed: list[float] = field(repr=False)
    usual: float | None = None

    @property
    def suggestion(self) -> float:
        """The learning rate to take."""
        return self.suggestions[self.chosen]

    def plot(self, axes: Any = None) -> Any:
        """The losses over the learning rates, with the suggestions; returns the Figure."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained") if axes is None else axes.figure
        axes = figure.add_subplot() if axes is None else axes
        axes.plot(self.rates, self.losses, color="0.8", linewidth=1, label="loss")
        axes.plot(self.rates, self.smoothed, color="tab:blue", label="smoothed")
        # The median is one of the others: a mark of its own would hide that.
        shown = {name: rate for name, rate in self.suggestions.items() if name != MEDIAN}
        for number, (name, rate) in enumerate(shown.items()):
            height = self.smoothed[min(bisect_left(self.rates, rate), len(self.rates) - 1)]
            marker, label = "osD^v"[number % 5], f"{name}: {rate:.2g}"
            label += " (suggested)" if rate == self.suggestion else ""
            axes.plot([rate], [height], marker, color=f"C{number + 1}", label=label, markersize=8)
        if self.usual is not None:
            label = f"usual: {self.usual:.2g}"
            axes.axvline(self.usual, color="0.6", linestyle=":", label=label)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        # A diverging end would press everything else flat.
        low, first = min(*self.losses, *self.smoothed), self.smoothed[0]
        room = max(first - low, abs(low) * 0.1)
        axes.set_ylim(low - 0.15 * room, max(first, low) + 0.4 * room)
        axes.legend(loc="lower left", fontsize=8)
        return figure

    def __repr__(self) -> str:
        rules = ", ".join(f"{name} {rate:.2g}" for name, rate in self.suggestions.items())
        return f"LearningRates(suggestion={self.suggestion:.2g}: {rules}; {self.ended})"


class RangeTest:
    """Listens to a fit: sets the learning rate of each step, and notes the loss (Smith, 2015)."""

    plugin_name = "learner_range_test"

    def __init__(self, start: float, stop: float, steps: int, divergence: float) -> None:
        ratio = (stop / start) ** (1 / max(1, steps - 1))
        self._planned = [start * ratio**step for step in range(steps)]
        self._divergence = divergence
        self._waiting: list[Tensor] = []
        self._mean = 0.0
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.ended = f"all {steps} steps were made"

    @hookimpl
    def on_after_loss(self, run: Run) -> None:
        """Keep the loss of this batch of the window."""
        assert run.loss is not None
        self._waiting.append(run.loss)

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run: Run) -> None:
        """Set the rate, note the loss, and stop where it diverges."""
        step = len(self.rates)
        if step == len(self._planned):
            return
        assert run.optimizer is not None
        for group in run.optimizer.param_groups:
            group["lr"] = self._planned[step]
        loss = sum(float(each) for each in self._waiting) / len(self._waiting)
        self._waiting = []
        if not math.isfinite(loss):
            self._end(run, f"the loss was {loss} at {self._planned[step]:.2g}")
            return
        self.rates.append(self._planned[step])
        self.losses.append(loss)
        self._mean = _SMOOTHING * self._mean + (1 - _SMOOTHING) * loss
        self.smoothed.append(self._mean / (1 - _SMOOTHING ** (step + 1)))
        best = min(self.smoothed)
        # Losses may be below 0: what counts is how far it rose from where it began.
        limit = self._divergence * best if best > 0 else best + 3 * abs(best - self.smoothed[0]) + 1
        if step and self.smoothed[-1] > limit:
            self._end(run, f"the loss diverged at {self.rates[-1]:.2g}")

    def _end(self, run: Run, why: str) -> None:
        self.ended = why
        run.stop(why)

    def result(self, suggest: str, usual: float | None = None) -> LearningRates:
        """What was found; `usual` is the rate that a fit would take.

        Raises `UsageError` when the loss diverged at once.
        """
        if len(self.rates) < 10:
            given = f"{self._planned[0]:.2g}"
            raise UsageError(
                f"find_lr: {self.ended}, after {len(self.rates)} of {len(self._planned)} steps, "
                "which is too few to say anything. "
                + (
                    f"Give a smaller start than {given}, or look at the data and the loss: it is "
                    "not finite before anything was learned"
                    if len(self.rates) < 2
                    else f"Give a smaller start than {given}, or more steps"
                )
            )
        # The first steps smooth over too few losses; the last ones are part of the divergence.
        first = len(self.rates) // 10
        last = len(self.rates) - (5 if len(self.rates) > 20 else 0)
        rates, losses = self.rates[first:last], self.smoothed[first:last]
        found = {name: rule(rates, losses) for name, rule in RULES.items()}
        found[MEDIAN] = median(found.values())
        return LearningRates(
            self.rates, self.losses, found, suggest, self.ended, smoothed=self.smoothed, usual=usual
        )


def check(start: float, stop: float, steps: int, suggest: str) -> None:
    """Refuse what cannot be tested. Raises `UsageError`."""
    check_number(None, UsageError, "find_lr", above=0, start=start)
    check_number(None, UsageError, "find_lr", above=start, stop=stop)
    check_whole(10, UsageError, "find_lr", steps=steps)
    if suggest not in (names := (*RULES, MEDIAN)):
        raise UsageError(
            f"find_lr(suggest={suggest!r}): no such rule{nearest(suggest, names)} "
            f"There are {', '.join(names)}"
        )


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Half-way along the longest falling part of the curve (the rule of ESRI's learners).

    The longest decreasing subsequence, found in n log n steps: noise inside a valley does not
    cut it in two.
    """
    tails: list[float] = []  # of the best subsequence of each length, negated: they grow
    ends: list[int] = []
    before: list[int] = []
    for index, loss in enumerate(losses):
        length = bisect_left(tails, -loss)
        before.append(ends[length - 1] if length else -1)
        if length == len(tails):
            tails.append(-loss)
            ends.append(index)
        else:
            tails[length], ends[length] = -loss, index
    way, index = [], ends[-1]
    while index >= 0:
        way.append(index)
        index = before[index]
    return rates[way[len(way) // 2]]


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Where the loss falls fastest over the logarithm of the rate."""
    slopes = [
        (losses[i + 1] - losses[i - 1]) / math.log(rates[i + 1] / rates[i - 1])
        for i in range(1, len(losses) - 1)
    ]
    return rates[1 + slopes.index(min(slopes))]


def minimum(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the lowest loss: the last one that is surely not too high."""
    return rates[losses.index(min(losses))] / 10


RULES: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "valley": valley,
    "steepest": steepest,
    "minimum/10": minimum,
}
#: The rule that lies between the two others: each of them alone is far off for some task.
MEDIAN = "median"
