"""The classical answers beside the learner's own: same split, same metrics, with their times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import Tensor

from trainbus import TrainbusError, UsageError
from trainbus.errors import nearest
from trainbus_learner.evaluation import Part, measured, validation_of
from trainbus_learner.fitter import Fitter

#: Where installed distributions list their baselines: functions of a `Problem`.
GROUP = "trainbus.baselines"


class Unsuited(TrainbusError):
    """A baseline is not for such a problem, or needs what is not installed; says why."""


@dataclass(frozen=True)
class Problem:
    """What a baseline is fitted to, and is asked about.

    Attributes:
        kind: of the target: "category" (indices), "categories" (zeros and ones), "number", ...
        outputs: how many a model gives: classes, labels, numbers.
        inputs: of training, as a model gets them: tensors, N x ...; those of int64 are codes.
        target: of training, N x ...
        asked: the inputs of validation.
        seed: for what is random in it.
        levels: of quantiles, one for each output, where those are wanted.
    """

    kind: str
    outputs: int
    inputs: tuple[Tensor, ...]
    target: Tensor
    asked: tuple[Tensor, ...]
    seed: int = 0
    levels: Sequence[float] | None = None


#: Gives for each row of `asked` what a model would give (N x outputs): logarithms of
#: probabilities, logits of labels, or numbers as targets have them.
Baseline = Callable[[Problem], Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the baseline, or "this learner".
        metrics: by name, as `Learner.validate` has them; empty where there is none.
        seconds: for fitting and predicting.
        note: why there is no result.
    """

    name: str
    metrics: dict[str, float]
    seconds: float
    note: str = ""


class Comparison(Sequence[Row]):
    """Baselines with their metrics and times, the learner's own line last; printed as a table."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)

    def __getitem__(self, place: Any) -> Any:
        """A row by its place, or by its name."""
        if isinstance(place, str):
            for row in self._rows:
                if row.name == place:
                    return row
            raise KeyError(place)
        return self._rows[place]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        names = list(dict.fromkeys(name for row in self for name in row.metrics))
        lines = [["", *names, "seconds"]]
        for row in self:
            cells = [f"{row.metrics[name]:.4g}" if name in row.metrics else "" for name in names]
            lines.append([row.name, *cells, f"{row.seconds:.1f}"])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        notes = ["", *(row.note for row in self)]
        return "\n".join(
            "  ".join(
                [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:]), note]
            ).rstrip()
            for line, note in zip(lines, notes, strict=True)
        )


def compare(
    learner: Fitter, part: Part, names: Sequence[str] | None, rows: int, ask: Any
) -> Comparison:
    """See `Learner.baselines`."""
    known = {each.name: each for each in entry_points(group=GROUP)}
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"baselines: there is no {name!r}{nearest(name, known)} There are "
                f"{', '.join(sorted(known))}"
            )
    loader = validation_of(learner, part, "baselines")
    problem = _problem(learner, loader, rows)
    found = []
    for name in names or sorted(known):
        begun = time.perf_counter()
        try:
            outputs = known[name].load()(problem)
        except Unsuited as error:
            if names:  # asked for by name
                found.append(Row(name, {}, 0.0, str(error)))
            continue
        seconds = time.perf_counter() - begun
        found.append(Row(name, _measure(learner, loader, outputs), seconds))
    return Comparison([*found, Row("this learner", ask(), learner.seconds)])


def _problem(learner: Fitter, loader: Iterable[Any], rows: int) -> Problem:
    source = learner.source
    train = source.train if learner.data is None else validation_of(learner, "train", "baselines")
    inputs, target = _gathered(source, train, rows)
    asked, _ = _gathered(source, loader, None)
    if not isinstance(target, Tensor):
        raise UsageError("baselines: an item has several targets; there is no classical answer")
    outputs = source.target.outputs
    if outputs is None:
        count = target.shape[1] if target.ndim > 1 else 1
        outputs = int(target.max()) + 1 if source.target.kind == "category" else count
    seed = learner.options.get("seed") or 0
    levels = getattr(source.target, "levels", None)
    return Problem(source.target.kind, outputs, inputs, target, asked, int(seed), levels)


def _gathered(source: Any, loader: Iterable[Any], rows: int | None) -> tuple[Any, Any]:
    """Inputs and target of all batches, or of the first so many rows, on the CPU."""
    batches: list[tuple[tuple[Tensor, ...], Any]] = []
    count = 0
    for batch in loader:
        inputs, target = source.split(batch)
        target = target[0] if isinstance(target, tuple) else target  # weights stand behind it
        batches.append((tuple(each.cpu() for each in inputs), target.cpu()))
        count += len(inputs[0])
        if rows is not None and count >= rows:
            break
    inputs = tuple(torch.cat(parts) for parts in zip(*(each[0] for each in batches), strict=True))
    return inputs, torch.cat([each[1] for each in batches])


def _measure(learner: Fitter, loader: Iterable[Any], outputs: Tensor) -> dict[str, float]:
    """What the learner's loss and metrics are for these outputs of the loader's items."""
    place = 0

    def next_ones(inputs: tuple[Any, ...]) -> Tensor:
        nonlocal place
        chosen = outputs[place : place + len(inputs[0])].to(inputs[0].device)
        place += len(chosen)
        return chosen

    return measured(learner, loader, next_ones)


# --- those of every distribution -----------------------------------------------------------------


def constant(problem: Problem) -> Tensor:
    """The mean, or how often each class occurs: what is known without looking at an item."""
    target = problem.target
    if problem.kind == "category":
        counts = torch.bincount(target, minlength=problem.outputs).float()
        made = (counts / counts.sum()).clamp(min=1e-12).log()
    elif problem.kind == "categories":
        made = target.float().mean(0).logit(eps=1e-6)
    elif problem.levels is not None:
        made = _quantiles(target, problem.levels)
    elif problem.kind == "number":
        made = target.float().reshape(len(target), -1).mean(0)
    else:
        raise Unsuited(f"a target of the kind {problem.kind!r} has no mean")
    return made.expand(len(problem.asked[0]), -1)


def _quantiles(values: Tensor, levels: Sequence[float]) -> Tensor:
    """A quantile of each column: N x levels to levels."""
    columns = values.float().reshape(len(values), len(levels))
    return torch.stack([
        column.quantile(level) for column, level in zip(columns.T, levels, strict=True)
    ])  # fmt: skip


def linear(problem: Problem) -> Tensor:
    """Ridge regression or logistic regression, on standardized columns, on pixels for images.

    The penalty is 1/N of the squared weights. Images are made smaller, to at most 32 x 32.
    """
    if problem.kind not in ("category", "categories", "number"):
        raise Unsuited(f"for a target of the kind {problem.kind!r} there is no linear model")
    sizes = [int(max(a.max(), b.max())) + 1 if a.numel() else 0 for a, b in _codes(problem)]
    train, asked = _features(problem.inputs, sizes), _features(problem.asked, sizes)
    mean, deviation = train.mean(0), train.std(0, correction=0)
    deviation = torch.where(deviation > 1e-6, deviation, torch.inf)
    train, asked = (train - mean) / deviation, ((asked - mean) / deviation).clamp(-10, 10)
    if problem.levels is not None:  # around the mean, as far as the residuals of training
        wanted = problem.target.float().reshape(len(train), -1)
        residuals = wanted - _ridge(train, wanted, train)
        return _ridge(train, wanted, asked) + _quantiles(residuals, problem.levels)
    if problem.kind == "number":
        return _ridge(train, problem.target, asked)
    return _logistic(train, problem, asked)


def _codes(problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
    """Each column of codes, of training and of what is asked."""
    for ours, theirs in zip(problem.inputs, problem.asked, strict=True):
        if ours.dtype == torch.int64:
            yield from zip(
                ours.reshape(len(ours), -1).T, theirs.reshape(len(theirs), -1).T, strict=True
            )


def _features(inputs: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """All inputs as columns of floats; codes as zeros and ones, of those with few codes."""
    columns, left = [], iter(sizes)
    for each in inputs:
        if each.dtype == torch.int64:
            for column in each.reshape(len(each), -1).T:
                size = next(left)
                if size <= 1000:
                    columns.append(torch.nn.functional.one_hot(column, size).float())
            continue
        values = each.float()
        if values.ndim == 4 and max(values.shape[2:]) > 32:
            values = torch.nn.functional.interpolate(values, size=(32, 32), mode="area")
        columns.append(values.reshape(len(values), -1))
    return torch.cat(columns, 1)


def _ridge(train: Tensor, target: Tensor, asked: Tensor) -> Tensor:
    wanted = target.double().reshape(len(target), -1)
    centre, values = wanted.mean(0), train.double()
    square = values.T @ values + torch.eye(values.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(square, values.T @ (wanted - centre))
    return (asked.double() @ weights + centre).float()


def _logistic(train: Tensor, problem: Problem, asked: Tensor) -> Tensor:
    """By L-BFGS, in at most 100 iterations."""
    weights = torch.zeros(train.shape[1], problem.outputs, requires_grad=True)
    bias = torch.zeros(problem.outputs, requires_grad=True)
    search = torch.optim.LBFGS(
        [weights, bias], max_iter=100, history_size=10, line_search_fn="strong_wolfe"
    )
    several = problem.kind == "categories"

    def closure() -> Tensor:
        search.zero_grad()
        made = torch.addmm(bias, train, weights)
        if several:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                made, problem.target.float()
            )
        else:
            loss = torch.nn.functional.cross_entropy(made, problem.target)
        loss = loss + weights.square().sum() / (2 * len(train))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
    made = torch.addmm(bias, asked, weights).detach()
    return made if several else made.log_softmax(1)


def boosted_trees(problem: Problem) -> Tensor:
    """Gradient boosted trees of scikit-learn, by its defaults with at most 300 trees."""
    if problem.kind not in ("category", "number") or any(each.ndim > 2 for each in problem.inputs):
        raise Unsuited("boosted trees are for rows of numbers and codes, with one class or numbers")
    try:
        from sklearn import ensemble  # type: ignore[import-untyped]
    except ImportError:
        raise Unsuited("boosted trees need scikit-learn: pip install scikit-learn") from None
    train, asked, codes = _columns(problem)
    options: dict[str, Any] = {
        "max_iter": 300, "categorical_features": codes, "random_state": problem.seed,
    }  # fmt: skip
    if problem.kind == "category":
        trees = ensemble.HistGradientBoostingClassifier(**options).fit(
            train, problem.target.numpy()
        )
        found = torch.full((len(asked), problem.outputs), 1e-12)
        found[:, torch.as_tensor(trees.classes_)] = (
            torch.from_numpy(trees.predict_proba(asked)).float().clamp(min=1e-12)
        )
        return found.log()
    wanted = problem.target.reshape(len(train), -1).numpy()
    columns = []
    for place, each in enumerate(wanted.T):
        if problem.levels is not None:
            options |= {"loss": "quantile", "quantile": problem.levels[place]}
        trees = ensemble.HistGradientBoostingRegressor(**options).fit(train, each)
        columns.append(torch.from_numpy(trees.predict(asked)).float())
    return torch.stack(columns, 1)


def _columns(problem: Problem) -> tuple[Any, Any, list[bool]]:
    """Training and what is asked as arrays, and which columns are codes of categories."""
    codes: list[bool] = []
    for ours in problem.inputs:
        columns = ours.reshape(len(ours), -1)
        few = columns.amax(0) < 255 if len(columns) and columns.shape[1] else torch.zeros(0)
        codes += [ours.dtype == torch.int64 and bool(each) for each in few]
    made = []
    for inputs in (problem.inputs, problem.asked):
        made.append(torch.cat([each.reshape(len(each), -1).float() for each in inputs], 1).numpy())
    return made[0], made[1], codes
