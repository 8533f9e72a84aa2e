"""The classical answers for series: what a forecast is worth beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.baselines import Comparison, Row, Unsuited
from trainbus_learner.evaluation import measured, validation_of
from trainbus_series.closed_form import Moments

#: Gives N x horizon for the history N x lookback of windows.
Rule = Callable[[Tensor], Tensor]


def compare(learner: Any, part: Any, names: Sequence[str] | None, scaled: bool) -> Comparison:
    """See `ForecastLearner.baselines`."""
    known: dict[str, Callable[[Any], Rule]] = {
        "repeat": repeat, "seasonal naive": seasonal, "drift": drift, "closed form": closed,
    }  # fmt: skip
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"baselines: there is no {name!r}{nearest(name, known)} There are "
                f"{', '.join(known)}"
            )
    loader = validation_of(learner, part, "baselines")
    target = learner.source.target
    found = []
    target.scaled = scaled
    try:
        for name in names or known:
            begun = time.perf_counter()
            try:
                rule = known[name](learner.data)
            except Unsuited as error:
                found.append(Row(name, {}, 0.0, str(error)))
                continue
            errors = measured(learner, loader, lambda inputs, rule=rule: rule(inputs[0][..., 0]))
            found.append(Row(name, errors, time.perf_counter() - begun))
    finally:
        target.scaled = False
    own = learner.validate(part, scaled=scaled)
    return Comparison([*found, Row("this learner", own, learner.seconds)])


def repeat(data: Any) -> Rule:
    """The last value."""
    return lambda series: series[:, -1:].expand(-1, data.recipe.horizon)


def seasonal(data: Any) -> Rule:
    """What was a season before, again and again."""
    season, horizon = data.recipe.season, data.recipe.horizon
    if season > data.recipe.lookback:
        raise Unsuited(
            f"a season of {season} steps is longer than the lookback of {data.recipe.lookback}"
        )
    places = torch.arange(horizon) % season
    return lambda series: series[:, -season:][:, places]


def drift(data: Any) -> Rule:
    """The line from the first value of a window to its last, drawn on."""
    steps = torch.arange(1, data.recipe.horizon + 1)

    def rule(series: Tensor) -> Tensor:
        slope = (series[:, -1:] - series[:, :1]) / max(1, series.shape[1] - 1)
        return series[:, -1:] + slope * steps

    return rule


def closed(data: Any) -> Rule:
    """One ridge regression of all windows of training, less their last value."""
    try:
        return Moments(data, data.recipe.lookback).solved(from_last=True)
    except ValueError:
        raise Unsuited("no window of training is known as a whole") from None
