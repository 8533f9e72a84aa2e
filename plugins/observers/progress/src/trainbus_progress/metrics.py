"""Which of the numbers that a run has told are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainbus.errors import nearest

#: What is no metric of the training: that of other stages, and what a profile tells.
_ASIDE = ("valid/", "test/", "predict/", "profile/")
#: What the core appends to the name of a metric of the training steps for its mean of the epoch.
_MEAN = "_epoch"


def trained(
    metrics: Mapping[str, float], names: Sequence[str] | None = None, means: bool = False
) -> dict[str, float]:
    """The metrics of training: those of the newest step, or the `means` of the epoch.

    Means go by the name of their metric. One that an object computes for the whole epoch is both.

    Args:
        metrics: the newest value of each metric of the run.
        names: those wanted, with or without their stage; None for all.
        means: the means, and not the newest values.
    """
    chosen = {}
    for name, value in metrics.items():
        plain = name.removesuffix(_MEAN)
        is_mean = plain != name
        has_mean = name + _MEAN in metrics
        fits = is_mean or not has_mean if means else not is_mean
        if fits and not name.startswith(_ASIDE) and _wanted(plain, names):
            chosen[plain] = value
    return chosen


def evaluated(
    metrics: Mapping[str, float], stage: str, names: Sequence[str] | None = None
) -> dict[str, float]:
    """The metrics of a stage other than training: `valid`, `test`."""
    return {
        name: value
        for name, value in metrics.items()
        if name.startswith(f"{stage}/") and _wanted(name, names)
    }


def missing(metrics: Mapping[str, float], names: Sequence[str] | None) -> list[str]:
    """A message for each wanted name that no metric has."""
    logged = {name.removesuffix(_MEAN) for name in metrics}
    known = logged | {name.partition("/")[2] for name in logged}
    return [
        f"the metric {name!r} was never logged{nearest(name, known)} "
        f"Logged were: {', '.join(sorted(logged)) or 'none'}"
        for name in names or ()
        if name not in known
    ]


def _wanted(name: str, names: Sequence[str] | None) -> bool:
    return names is None or name in names or name.partition("/")[2] in names
