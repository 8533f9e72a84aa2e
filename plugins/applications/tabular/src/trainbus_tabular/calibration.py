"""Honest probabilities, and intervals that hold what is right as often as they say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus.arguments import check_number
from trainbus_learner.evaluation import outputs, validation_of

if TYPE_CHECKING:
    from trainbus_tabular.learner import TabularLearner
    from trainbus_tabular.targets import TableTarget


@dataclass(frozen=True)
class Calibration:
    """What was found on the rows that were held back.

    Attributes:
        temperature: by which logits are divided; above 1 the model was too sure.
        coverage: that was asked for, or None.
        margin: what makes intervals or sets of that coverage: see `TableTarget`.
        rows: on how many rows it was found.
        loss_before, loss_after: the mean of -log of the probability of what is, for classes and
            labels.
    """

    temperature: float
    coverage: float | None
    margin: list[float] | None
    rows: int
    loss_before: float | None = None
    loss_after: float | None = None


def calibrate(learner: TabularLearner, coverage: float | None, loader: Any) -> Calibration:
    """See `TabularLearner.calibrate`."""
    if coverage is not None:
        check_number(None, UsageError, "calibrate", above=0, below=1, coverage=coverage)
    target = learner.source.target
    if target.levels is not None:
        raise UsageError(
            "calibrate: quantiles are learned, and are intervals already; "
            "validate()['coverage'] tells how often they hold"
        )
    given, wanted = gathered(learner, validation_of(learner, loader, "calibrate"))
    before = after = None
    target.temperature, target.margin = 1.0, None
    if target.kind != "number":
        before = float(_loss(target, given, wanted))
        target.temperature = _temperature(target, given, wanted)
        after = float(_loss(target, given, wanted))
    if coverage is not None and target.kind != "categories":
        target.margin = _margin(target, given, wanted, coverage)
    return Calibration(target.temperature, coverage, target.margin, len(given), before, after)


def gathered(learner: TabularLearner, loader: Any) -> tuple[Tensor, Tensor]:
    """The outputs for all rows, and their targets, on the CPU."""
    given, wanted = [], []
    for _, target, output in outputs(learner, loader):
        given.append(output.detach().float().cpu())
        wanted.append((target[0] if isinstance(target, tuple) else target).cpu())
    return torch.cat(given), torch.cat(wanted)


def _loss(target: TableTarget, output: Tensor, wanted: Tensor) -> Tensor:
    scaled = output / target.temperature
    if target.kind == "category":
        return functional.cross_entropy(scaled, wanted)
    return functional.binary_cross_entropy_with_logits(scaled, wanted)


def _temperature(target: TableTarget, output: Tensor, wanted: Tensor) -> float:
    """By golden sections on its logarithm, from 1/20 to 20: the loss has one valley there."""
    ratio = (math.sqrt(5) - 1) / 2
    low, high = -3.0, 3.0

    def loss(log: float) -> float:
        target.temperature = math.exp(log)
        return float(_loss(target, output, wanted))

    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def _margin(target: TableTarget, output: Tensor, wanted: Tensor, coverage: float) -> list[float]:
    """The quantile of the scores with the correction for a finite number of rows."""
    probabilities = target.activation(output)
    if target.kind == "category":
        scores = (1 - probabilities.gather(1, wanted[:, None])).double()
    else:
        wanted = wanted.reshape(probabilities.shape).double()
        given = probabilities.double()
        if target.target == "count":
            given, wanted = given.sqrt(), wanted.sqrt()
        scores = (given - wanted).abs()
    count = len(scores)
    place = math.ceil((count + 1) * coverage)
    if place > count:
        raise UsageError(
            f"calibrate(coverage={coverage}): {count} rows are too few for it; at least "
            f"{math.ceil(coverage / (1 - coverage))} are needed"
        )
    found = scores.sort(0).values[place - 1]
    return (1 - found if target.kind == "category" else found).tolist()
