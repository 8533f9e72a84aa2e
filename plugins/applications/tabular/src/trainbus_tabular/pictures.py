"""Pictures of what explains a learner of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _RED, _GREY = "#3266ad", "#c0392b", "0.55"


def _axes(width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("pictures need matplotlib: pip install matplotlib") from None
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes if columns > 1 else axes[0]


def bars(
    names: Sequence[str], values: Sequence[float], spread: Sequence[float], title: str
) -> Figure:
    """Lying bars, the first one on top, each with its spread."""
    figure, axes = _axes(7, 1 + 0.3 * len(names))
    places = range(len(names))
    axes.barh(places, values, xerr=spread, color=_BLUE, ecolor=_GREY, height=0.7)
    axes.set_yticks(places, [_short(name) for name in names])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(title)
    return figure


def lines(
    values: Sequence[Any], predicted: Mapping[str, Sequence[float]], name: str, title: str
) -> Figure:
    """A line for each prediction over the values; words stand below."""
    figure, axes = _axes(7, 4)
    words = any(isinstance(value, str) for value in values)
    places = list(range(len(values))) if words else list(values)
    for label, means in predicted.items():
        axes.plot(places, means, "o" if words else ".-", label=_short(label))
    if words:
        turned = max(len(str(value)) for value in values) * len(values) > 60
        axes.set_xticks(
            places, [_short(str(value)) for value in values],
            rotation=40 if turned else 0, ha="right" if turned else "center",
        )  # fmt: skip
    axes.set_xlabel(name)
    axes.set_ylabel(title)
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False)
    return figure


def calibration(predicted: Sequence[float], right: Sequence[float], error: float) -> Figure:
    """How often predictions are right, against what they say."""
    figure, axes = _axes(4.6, 4.4)
    least = min(*predicted, *right)
    axes.plot([least, 1], [least, 1], color=_GREY, linestyle="--", label="what it says")
    axes.plot(predicted, right, "o-", color=_BLUE, label=f"rows, error {error:.3f}")
    axes.set_xlabel("probability of the prediction")
    axes.set_ylabel("how often it is right")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left")
    return figure


def residuals(predicted: Tensor, actual: Tensor, name: str) -> Figure:
    """Actual against predicted, and a histogram of the difference."""
    figure, (left, right) = _axes(9, 4, 2)
    low, high = float(actual.min()), float(actual.max())
    left.plot([low, high], [low, high], color=_GREY, linestyle="--")
    size = 4 if len(actual) > 1000 else 12
    left.scatter(predicted, actual, s=size, alpha=0.4, color=_BLUE, linewidths=0)
    left.set_xlabel(f"{name}, predicted")
    left.set_ylabel(f"{name}, actual")
    difference = actual - predicted
    right.hist(difference.numpy(), bins=50, color=_BLUE)
    right.axvline(0, color="black", linewidth=0.8)
    mean = float(difference.mean())
    right.axvline(mean, color=_RED, linewidth=1.2, label=f"mean {mean:.3g}")
    right.set_xlabel("actual - predicted")
    right.set_ylabel("rows")
    right.legend(frameon=False)
    return figure


def _short(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
