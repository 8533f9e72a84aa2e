"""What a model gets wrong: confusion matrix, worst losses, a report for each class."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus.storage.files import replacing
from trainbus_learner import show
from trainbus_learner.evaluation import Part, each_loss, outputs, validation_of
from trainbus_learner.fitter import Fitter
from trainbus_learner.ignoring import ignored
from trainbus_learner.learning_data import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Worst:
    """An item with a great loss.

    Attributes:
        index: its place in the data.
        name: its file, or its number.
        loss: its loss.
        target: what it is, and `predicted`: what the model says, as a person is shown them.
        probability: of the prediction, where it is one of several labels.
    """

    index: int
    name: str
    loss: float
    target: Any
    predicted: Any
    probability: float | None


class Interpretation:
    """A pass over data, gathered: made by `Learner.interpret`.

    Inputs are kept for the worst items alone, so that memory holds no data set.

    Attributes:
        losses: of each item, (N,) on the CPU.
        targets, predictions: shaped like the target's, on the CPU.
        probabilities: what the activation of the target gave, on the CPU; empty for masks and
            other large targets, of which they are not kept.
    """

    def __init__(self, source: Source, keep: int, stage: str, ignored: int | None = None) -> None:
        check_whole(1, UsageError, "interpret", worst=keep)
        self._source, self._keep, self._stage = source, keep, stage
        #: The index of a class that does not count.
        self._ignored = ignored
        self._losses: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._predictions: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._count = 0
        #: (loss, index, inputs, target, prediction, probabilities) of the worst, the worst first.
        self._worst: list[tuple[float, int, Any, Tensor, Tensor, Tensor]] = []

    # --- gathering -----------------------------------------------------------------------------

    def add(self, inputs: Any, target: Any, probabilities: Tensor, losses: Tensor) -> None:
        """Take a batch; used by `Learner.interpret`."""
        if not isinstance(target, Tensor):
            raise UsageError("interpret: an item has several targets; there is no one loss to rank")
        block = self._source.target
        given = block.read(probabilities).cpu()
        probabilities, target, losses = probabilities.cpu(), target.cpu(), losses.float().cpu()
        self._losses.append(losses)
        self._targets.append(target)
        self._predictions.append(given)
        self._probabilities.append(probabilities if probabilities.ndim <= 2 else torch.empty(0))
        values, rows = losses.topk(min(self._keep, len(losses)))
        floor = self._worst[-1][0] if len(self._worst) == self._keep else -float("inf")
        for value, row in zip(values.tolist(), rows.tolist(), strict=True):
            if value > floor:
                kept = tuple(part[row].cpu() for part in inputs)
                self._worst.append((
                    value, self._count + row, kept, target[row], given[row], probabilities[row]
                ))  # fmt: skip
        self._worst = sorted(self._worst, key=lambda each: -each[0])[: self._keep]
        self._count += len(losses)

    def finish(self) -> Interpretation:
        """Put the batches together; used by `Learner.interpret`."""
        self.losses = torch.cat(self._losses)
        self.targets = _joined(self._targets)
        self.predictions = _joined(self._predictions)
        self.probabilities = torch.cat(self._probabilities)
        return self

    # --- reading -------------------------------------------------------------------------------

    @property
    def vocab(self) -> list[Any]:
        """The labels, or the numbers of the classes where they have no names."""
        block = self._source.target
        words = list(getattr(block, "vocab", None) or getattr(block, "codes", None) or ())
        if block.kind == "mask":  # a last one that is ignored has no output
            words = words[: block.outputs]
        if words or block.kind not in ("category", "categories", "mask"):
            return words
        if block.kind == "categories":
            return list(range(self.targets.shape[1]))
        outputs = self.probabilities.shape[1] if self.probabilities.ndim == 2 else 0
        highest = max(int(self.targets.max()), int(self.predictions.max())) + 1
        return list(range(max(outputs, highest)))

    def confusion_matrix(self) -> Tensor:
        """Counts C x C int64: a row for each true class, a column for each predicted one.

        Of several labels a matrix for each of them, C x 2 x 2: not there or there, predicted not
        there or there.

        Raises:
            UsageError: the target is neither one of several classes, nor several labels.
        """
        self._need("confusion_matrix", ("category", "categories", "mask"))
        if self._source.target.kind == "categories":
            true, given = self.targets > 0.5, self.predictions > 0.5
            cells = torch.stack([~true & ~given, ~true & given, true & ~given, true & given])
            return cells.sum(dim=1).T.reshape(-1, 2, 2)
        classes = len(self.vocab)
        true, given = self.targets.flatten().long(), self.predictions.flatten().long()
        there = (true >= 0) & (true < classes)  # others are codes that do not count
        if self._ignored is not None:
            there &= true != self._ignored
        cells = true[there] * classes + given[there]
        return torch.bincount(cells, minlength=classes**2).view(classes, classes)

    def most_confused(self, at_least: int = 1) -> list[tuple[Any, Any, int]]:
        """(true, predicted, how often), the most frequent first."""
        self._need("most_confused", ("category", "mask"))
        matrix = self.confusion_matrix().fill_diagonal_(0)
        words = self.vocab
        pairs = (matrix >= at_least).nonzero().tolist()
        found = [(words[i], words[j], int(matrix[i, j])) for i, j in pairs]
        return sorted(found, key=lambda each: -each[2])

    def per_class(self) -> dict[Any, dict[str, float]]:
        """For each class `precision`, `recall`, `f1`, `count`; NaN where nothing is to divide.

        Of masks the intersection over union, too: `iou`. What is ignored is in none of them. Of
        boxes `ap`, `ap_50`, and `precision` and `recall` of those that are shown.
        """
        self._need("per_class", ("category", "categories", "mask", "boxes"))
        if self._source.target.kind == "boxes":
            rows: dict[Any, dict[str, float]]
            rows = self._source.target.per_class(self.predictions, self.targets)
            return rows
        if self._source.target.kind == "categories":
            true, given = self.targets > 0.5, self.predictions > 0.5
            right = (true & given).sum(0)
            predicted, there = given.sum(0), true.sum(0)
        else:
            matrix = self.confusion_matrix()
            right, predicted, there = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
        precision, recall = right / predicted, right / there
        numbers = {"precision": precision, "recall": recall, "f1": 2 * right / (predicted + there)}
        if self._source.target.kind == "mask":
            numbers["iou"] = right / (predicted + there - right)
        return {
            word: {**{name: float(of[i]) for name, of in numbers.items()}, "count": int(there[i])}
            for i, word in enumerate(self.vocab)
            if i != self._ignored
        }

    def report(self) -> str:
        """The table of `per_class`, as text."""
        rows = self.per_class()
        width = max(len("class"), *(len(str(word)) for word in rows))
        names = [name for name in next(iter(rows.values())) if name != "count"]
        head = "  ".join(f"{name:>6}" for name in [*names, "count"])
        lines = [f"{'class':<{width}}  {head}"]
        for word, row in rows.items():
            numbers = "  ".join(f"{row[name]:{max(6, len(name))}.4f}" for name in names)
            lines.append(f"{word!s:<{width}}  {numbers}  {row['count']:6d}")
        return "\n".join(lines)

    def worst(self, count: int = 9) -> list[Worst]:
        """The items with the greatest losses, at most as many as `interpret(worst=...)` kept."""
        block, found = self._source.target, []
        for loss, index, _, target, given, probabilities in self._worst[:count]:
            name = self._source.describe(self._stage, index) if self._stage else f"item {index}"
            sure = float(probabilities[int(given)]) if block.kind == "category" else None
            found.append(Worst(index, name, loss, block.decode(target), block.decode(given), sure))
        return found

    def worst_inputs(self, count: int = 9) -> list[tuple[Tensor, ...]]:
        """What the model saw of them, in the same order, on the CPU."""
        return [kept[2] for kept in self._worst[:count]]

    # --- drawing -------------------------------------------------------------------------------

    def plot_confusion_matrix(self, normalize: bool = False, axes: Any = None) -> Figure:
        """The confusion matrix as a picture; `normalize` gives each row the sum 1.

        Of several labels a small matrix for each, on a figure of their own.
        """
        if self._source.target.kind == "categories":
            return show.confusion_of_labels(self.confusion_matrix(), self.vocab)
        return show.confusion(self.confusion_matrix(), self.vocab, normalize, axes)

    def plot_worst(self, count: int = 9) -> Figure:
        """The worst items as pictures, with target, prediction, its probability and the loss."""
        items = zip(self._worst, self.worst(count), strict=False)
        return show.grid(
            self._source, [(kept[2], kept[3], kept[4], _note(each)) for kept, each in items]
        )

    # --- cleaning ------------------------------------------------------------------------------

    def to_clean(self, path: str | Path | None = None, count: int = 100) -> list[dict[str, Any]]:
        """A table of the worst items, to be looked through: which files to drop or to relabel.

        Fill the column `action` with "drop" or "relabel", and `label` with the new one; data take
        it as `clean=`: `image_folder("photos", clean="clean.csv")`. To look through what was
        trained on: `interpret("train", worst=100)`.

        Args:
            path: a CSV file to write it to, for a spreadsheet.
            count: rows at most, as many as `interpret(worst=...)` kept.

        Returns:
            Rows with `file`, `action`, `label`, `target`, `predicted`, `probability` and `loss`.
        """
        rows = [
            {
                "file": each.name,
                "action": "",
                "label": "",
                "target": _cell(each.target),
                "predicted": _cell(each.predicted),
                "probability": None if each.probability is None else round(each.probability, 4),
                "loss": round(each.loss, 4),
            }
            for each in self.worst(count)
        ]
        if path is not None:
            with (
                replacing(Path(path)) as beside,
                beside.open("w", encoding="utf-8", newline="") as file,
            ):
                table = csv.DictWriter(file, list(rows[0]) if rows else ["file", "action", "label"])
                table.writeheader()
                table.writerows(rows)
        return rows

    def _need(self, verb: str, kinds: tuple[str, ...]) -> None:
        kind = self._source.target.kind
        if kind not in kinds:
            raise UsageError(
                f"{verb}: the target is of the kind {kind!r}; this is for {', '.join(kinds)}"
            )

    def __repr__(self) -> str:
        return f"Interpretation({self._count} items, mean loss {self.losses.mean():.4f})"


def interpret(learner: Fitter, loader: Part, worst: int) -> Interpretation:
    """See `Learner.interpret`."""
    stage = loader if isinstance(loader, str) else ""
    leave_out = ignored(learner.loss, learner.source.target)
    gathered = Interpretation(learner.source, worst, stage, leave_out)
    for inputs, target, output in outputs(learner, validation_of(learner, loader, "interpret")):
        losses = each_loss(learner.loss, output, target)
        gathered.add(inputs, target, learner.source.target.activation(output), losses)
    return gathered.finish()


def _joined(batches: list[Tensor]) -> Tensor:
    """Batches one after the other; NaN fills where items have not equally many things."""
    if len({each.shape[1:] for each in batches}) > 1:
        most = max(each.shape[1] for each in batches)
        batches = [
            functional.pad(each, (0, 0, 0, most - each.shape[1]), value=torch.nan)
            for each in batches
        ]
    return torch.cat(batches)


def _note(item: Worst) -> str:
    sure = "" if item.probability is None else f"{item.probability:.0%}, "
    return f"{sure}loss {item.loss:.2f}\n{_end(item.name)}"


def _cell(value: Any) -> Any:
    """A label as a table has it; of a mask, points or boxes nothing."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return value if isinstance(value, (str, int, float)) else ""


def _end(name: str, most: int = 22) -> str:
    return name if len(name) <= most else "..." + name[-most:]
