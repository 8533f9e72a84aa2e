"""Predictions of rows: one by one, or a table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus_learner import Prediction, Predictor
from trainbus_tabular.targets import TableTarget

#: Rows that the model is asked about together.
BATCH = 2048


@dataclass(frozen=True)
class RowPrediction(Prediction):
    """What a model says of one row.

    Attributes:
        odd: what was odd about the row: a category that training did not know, a column that is
            missing, a value out of range; empty where nothing was.
        interval: (low, high) of each number, where the learner was calibrated.
        labels: the classes that hold the right one with the coverage of the calibration.
    """

    odd: list[str] = field(default_factory=list)
    interval: Any = None
    labels: list[Any] | None = None

    def __repr__(self) -> str:
        said = super().__repr__().removeprefix("Prediction(").removesuffix(")")
        if self.interval is not None and isinstance(self.interval, tuple):
            said += f", {self.interval[0]:.4g} to {self.interval[1]:.4g}"
        said += f", odd: {'; '.join(self.odd)}" if self.odd else ""
        return f"Prediction({said})"


class Predicted(dict[str, Any]):
    """A table of predictions: columns by name, in the order of the rows.

    Columns of numbers are arrays, those of labels lists. It is a dict of columns: every frame takes
    it (`pandas.DataFrame(predicted)`), and so does `table`.
    """

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary."""
        for values in zip(*self.values(), strict=True):
            yield dict(zip(self, values, strict=True))

    @property
    def count(self) -> int:
        """How many rows."""
        return len(next(iter(self.values()), ()))

    def __repr__(self) -> str:
        return f"Predicted({self.count:,} rows: {', '.join(self)})"


class TablePredictor(Predictor):
    """Encodes rows, asks a model, and says what its outputs mean.

    Args:
        forward: gives the outputs of (numbers, codes), without gradients, in evaluation mode.
        recipe: encodes rows, and says what is odd about them.
        target: says what an output means.
        about: what an export says of itself.
    """

    #: What `trainbus predict` gives the rows of files, in blocks.
    takes_tables = True

    def __init__(
        self,
        forward: Callable[..., Any],
        recipe: Any,
        target: TableTarget,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(forward, recipe.encode, target, recipe, about)
        self._ask = forward

    def __repr__(self) -> str:
        return f"TablePredictor({self.target!r})"

    def predict(self, item: Any) -> RowPrediction:
        """Predict one row: a mapping of columns to values; the target need not be in it.

        Raises:
            UsageError: it is more than one row, or cannot be read.
        """
        numbers, codes, odd = self.recipe.encode_and_look(item)
        if len(numbers) != 1:
            raise UsageError(
                f"predict: these are {len(numbers)} rows; for many there is predictions(rows)"
            )
        output = self._ask(numbers, codes)
        probabilities = self.target.activation(output)
        value = self.target.read(probabilities)[0].cpu()
        each = probabilities[0].cpu()
        sure = float(each[int(value)]) if self.target.kind == "category" else None
        interval, labels = self._sets(each, value)
        vocab = self.vocab
        return RowPrediction(
            self.target.decode(value), sure, each, value, vocab, odd[0], interval, labels
        )

    def _sets(self, probabilities: Tensor, value: Tensor) -> tuple[Any, list[Any] | None]:
        """The interval of numbers, or the classes that may be it, where there is a coverage."""
        target = self.target
        if target.margin is None:
            return None, None
        if target.kind == "category":
            return None, target.decoded_set(probabilities)
        low, high = target.bounds(value.reshape(1, -1))
        pairs = list(zip(low[0].tolist(), high[0].tolist(), strict=True))
        if len(pairs) == 1:
            return pairs[0], None
        return dict(zip(target.output_names, pairs, strict=True)), None

    def predictions(self, items: Any, batch_size: int = BATCH) -> Predicted:  # type: ignore[override]
        """A table of what is predicted for many rows, in their order.

        Args:
            items: rows of any kind that `table` takes: a frame, a path, a dict of columns, a list
                of dicts.
            batch_size: rows that the model is asked about together.
        """
        check_whole(1, UsageError, "predictions", batch_size=batch_size)
        numbers, codes = self.recipe.encode(items)
        outputs = [
            self._ask(numbers[start : start + batch_size], codes[start : start + batch_size])
            for start in range(0, len(numbers), batch_size)
        ]
        if not outputs:
            raise UsageError("predictions: there is no row")
        return self.columns(torch.cat(outputs))

    def columns(self, output: Tensor) -> Predicted:
        """What the outputs of rows mean, as columns."""
        target = self.target
        probabilities = target.activation(output)
        values = target.read(probabilities).cpu()
        probabilities = probabilities.cpu()
        if target.kind == "category":
            return self._classes(probabilities, values)
        if target.kind == "categories":
            flags = {
                f"{name}": values[:, i].numpy().astype(bool) for i, name in enumerate(self.vocab)
            }
            sure = {f"p({name})": probabilities[:, i].numpy() for i, name in enumerate(self.vocab)}
            return Predicted({**flags, **sure})
        values = values.reshape(len(values), -1)
        shown = target.in_units(values).numpy()
        names = target.output_names or [f"prediction_{i}" for i in range(shown.shape[1])]
        made = Predicted({name: shown[:, i] for i, name in enumerate(names)})
        if target.margin is not None:
            for end, bound in zip(("low", "high"), target.bounds(values), strict=True):
                made |= {f"{name}_{end}": bound[:, i].numpy() for i, name in enumerate(names)}
        return Predicted(made)

    def _classes(self, probabilities: Tensor, values: Tensor) -> Predicted:
        words: Sequence[Any] = self.vocab or range(probabilities.shape[1])
        name = self.target.names[0] if self.target.names else "label"
        sure = probabilities.gather(1, values[:, None])[:, 0].numpy()
        made = Predicted({name: [words[i] for i in values.tolist()], "probability": sure})
        made |= {f"p({word})": probabilities[:, i].numpy() for i, word in enumerate(words)}
        return Predicted(made)


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> TablePredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    from trainbus_tabular.recipe import TableRecipe

    recipe = TableRecipe.from_state(state, tensors)
    return TablePredictor(run, recipe, recipe.target, about)
