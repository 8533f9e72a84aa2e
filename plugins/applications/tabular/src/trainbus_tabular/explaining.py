"""What a learner of tables goes by, and where it errs: tables, each with a picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus.errors import nearest
from trainbus_learner.evaluation import forward, validation_of
from trainbus_tabular import pictures
from trainbus_tabular.calibration import gathered
from trainbus_tabular.predictor import BATCH, Predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from trainbus_tabular.learner import TabularLearner


@dataclass(frozen=True)
class Importance:
    """How much worse the loss gets without a column.

    Attributes:
        columns: the most important one first.
        losses: by how much the loss grows where the column is shuffled, the mean over `repeats`.
        spread: the standard deviation over them.
    """

    columns: list[str]
    losses: list[float]
    spread: list[float]

    def table(self) -> list[dict[str, Any]]:
        """A row for each column."""
        rows = zip(self.columns, self.losses, self.spread, strict=True)
        return [{"column": c, "loss": loss, "spread": s} for c, loss, s in rows]

    def plot(self, most: int = 20) -> Figure:
        """The most important columns as bars."""
        return pictures.bars(
            self.columns[:most], self.losses[:most], self.spread[:most],
            "how much the loss grows where the column is shuffled",
        )  # fmt: skip


def importance(learner: TabularLearner, loader: Any, repeats: int, rows: int) -> Importance:
    """See `TabularLearner.importance`."""
    check_whole(1, UsageError, "importance", repeats=repeats)
    check_whole(2, UsageError, "importance", rows=rows)
    numbers, codes, target = _rows(learner, loader, rows)
    generator = torch.Generator().manual_seed(0)
    before = _loss_of(learner, numbers, codes, target)
    found = []
    for name, places in _sources(learner.data).items():
        grown = []
        for _ in range(repeats):
            order = torch.randperm(len(numbers), generator=generator)
            shuffled = [numbers.clone(), codes.clone()]
            for part, place in places:
                shuffled[part][:, place] = shuffled[part][order, place]
            grown.append(_loss_of(learner, *shuffled, target) - before)
        values = torch.tensor(grown)
        found.append((float(values.mean()), float(values.std(correction=0)), name))
    found.sort(key=lambda each: -each[0])
    return Importance([n for *_, n in found], [m for m, *_ in found], [s for _, s, _ in found])


def _sources(data: Any) -> dict[str, list[tuple[int, int]]]:
    """For each column of the table where it is in a batch: (0 numbers, 1 codes; the place)."""
    layout = data.layout
    # What was made of a column is shuffled with it, where the data know which it was.
    known = getattr(data.recipe, "origin", None) or {}
    found: dict[str, list[tuple[int, int]]] = {}
    for part, names in enumerate((layout.numbers, layout.categories)):
        for place, name in enumerate(names):
            found.setdefault(known.get(name, name), []).append((part, place))
    return found


def _rows(learner: TabularLearner, loader: Any, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers, codes and target of the first rows of a part."""
    parts: list[tuple[Tensor, ...]] = []
    for batch in validation_of(learner, loader, "importance"):
        inputs, target = learner.source.split(batch)
        parts.append((*inputs, target[0] if isinstance(target, tuple) else target))
        if sum(len(each[0]) for each in parts) >= rows:
            break
    numbers, codes, target = (torch.cat(each)[:rows] for each in zip(*parts, strict=True))
    return numbers, codes, target


def _loss_of(learner: TabularLearner, numbers: Tensor, codes: Tensor, target: Tensor) -> float:
    outputs = [
        forward(learner, numbers[i : i + BATCH], codes[i : i + BATCH])
        for i in range(0, len(numbers), BATCH)
    ]
    output = torch.cat(outputs)
    return float(learner.loss(output, target.to(output.device)))


@dataclass(frozen=True)
class PartialDependence:
    """What is predicted on average where a column has a value (Friedman, 2001).

    Attributes:
        column: which.
        values: that it was given, in the units of the table.
        predicted: by name of the prediction, for each value: the mean over the rows.
    """

    column: str
    values: list[Any]
    predicted: dict[str, list[float]]

    def table(self) -> list[dict[str, Any]]:
        """A row for each value."""
        return [
            {self.column: value, **{name: each[i] for name, each in self.predicted.items()}}
            for i, value in enumerate(self.values)
        ]

    def plot(self) -> Figure:
        """A line for each prediction, or bars for words."""
        return pictures.lines(self.values, self.predicted, self.column, "predicted on average")


def partial_dependence(
    learner: TabularLearner, column: str, source: Any, values: Sequence[Any] | None, most: int
) -> PartialDependence:
    """See `TabularLearner.partial_dependence`."""
    from trainbus_data.tables.columns import Table
    from trainbus_data.tables.reader import read_table
    from trainbus_data.tables.values import column_of

    readings = getattr(learner.source.recipe, "readings", None)
    table = read_table(source, like=readings) if readings else read_table(source)
    if column not in table:
        raise UsageError(
            f"partial_dependence: there is no column {column!r}{nearest(column, table)} Columns "
            f"are {', '.join(table)}"
        )
    kept = table.take(slice(0, most))
    values = _grid(table[column]) if values is None else list(values)
    predictor = learner.predictor()
    found: dict[str, list[float]] = {}
    for value in values:
        same = column_of([value] * kept.rows, column, table[column].reading)
        made = predictor.predictions(Table({**kept.columns, column: same}))
        for name, mean in _means(made).items():
            found.setdefault(name, []).append(mean)
    return PartialDependence(column, values, found)


def _grid(column: Any, steps: int = 20) -> list[Any]:
    """Quantiles of numbers; the most frequent of other values."""
    rows = [row for row, gone in enumerate(column.missing.tolist()) if not gone]
    if column.kind == "number":
        sample = torch.tensor(column.values[rows])
        return sorted(set(sample[torch.linspace(0, len(rows) - 1, 10_000).long()].sort().values[
            torch.linspace(0, 9_999, steps).long()
        ].tolist()))  # fmt: skip
    counts: dict[Any, int] = {}
    for row in rows:
        counts[column.shown(row)] = counts.get(column.shown(row), 0) + 1
    return sorted(counts, key=lambda value: -counts[value])[:steps]


def _means(made: Predicted) -> dict[str, float]:
    """The mean of the probabilities of classes or labels, or of the numbers."""
    probable = {name: each for name, each in made.items() if name.startswith("p(")}
    if len(probable) == 2:  # the second says all
        probable.pop(next(iter(probable)))
    shown = probable or {n: v for n, v in made.items() if not n.endswith(("_low", "_high"))}
    return {name: float(each.mean()) for name, each in shown.items()}


@dataclass(frozen=True)
class CalibrationCurve:
    """How often predictions of a probability are right.

    Attributes:
        predicted: the mean probability of the most probable class, in each tenth of the rows.
        right: how often it is right there.
        count: rows in each.
        error: the mean distance of both, weighted by the rows (expected calibration error).
    """

    predicted: list[float]
    right: list[float]
    count: list[int]
    error: float

    def plot(self) -> Figure:
        """Both against each other; on the diagonal a probability is what it says."""
        return pictures.calibration(self.predicted, self.right, self.error)


def calibration_curve(learner: TabularLearner, loader: Any, bins: int) -> CalibrationCurve:
    """See `TabularLearner.calibration_curve`."""
    target = learner.source.target
    if target.kind == "number":
        raise UsageError("calibration_curve: the target is a number; there are no probabilities")
    output, wanted = gathered(learner, validation_of(learner, loader, "calibration_curve"))
    probabilities = target.activation(output)
    if target.kind == "category":
        sure, place = probabilities.max(1)
        right = (place == wanted).double()
    else:
        sure, right = probabilities.flatten(), wanted.flatten().double()
    groups = sure.argsort().tensor_split(min(bins, len(sure)))
    predicted = [float(sure[each].mean()) for each in groups]
    hits = [float(right[each].mean()) for each in groups]
    count = [len(each) for each in groups]
    gaps = [abs(p - r) * n for p, r, n in zip(predicted, hits, count, strict=True)]
    return CalibrationCurve(predicted, hits, count, sum(gaps) / len(sure))


@dataclass(frozen=True)
class Residuals:
    """What is less what is predicted, in the units of the table.

    Attributes:
        name: of the number.
        predicted, actual: of each row.
        by_column: for each column of numbers, its rank correlation with the size of the residual:
            where it is far from 0 the errors depend on the column.
    """

    name: str
    predicted: Tensor
    actual: Tensor
    by_column: dict[str, float]

    def plot(self) -> Figure:
        """Actual against predicted, and how the residuals are distributed."""
        return pictures.residuals(self.predicted, self.actual, self.name)


def residuals(learner: TabularLearner, loader: Any) -> list[Residuals]:
    """See `TabularLearner.residuals`."""
    target = learner.source.target
    if target.kind != "number":
        raise UsageError("residuals: the target is no number; interpret() has what is confused")
    part = list(validation_of(learner, loader, "residuals"))
    output, wanted = gathered(learner, part)
    given = target.in_units(target.activation(output).reshape(len(output), -1))
    wanted = target.in_units(wanted.reshape(len(output), -1))
    numbers = torch.cat([learner.source.split(batch)[0][0].cpu() for batch in part])
    found = []
    for place in range(given.shape[1]):
        name = target.output_names[place] if target.names else f"number {place}"
        size = _ranks((wanted - given)[:, place].abs())
        by = {
            column: _correlation(_ranks(numbers[:, i]), size)
            for i, column in enumerate(learner.data.layout.numbers)
        }
        ordered = dict(sorted(by.items(), key=lambda each: -abs(each[1])))
        found.append(Residuals(name, given[:, place], wanted[:, place], ordered))
    return found


def _ranks(values: Tensor) -> Tensor:
    return values.argsort().argsort().double()


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
