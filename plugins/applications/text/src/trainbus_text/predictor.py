"""Predictions of texts: one by one, or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_data import DataError
from trainbus_learner import Prediction, Predictor

#: Texts that the model is asked about together.
BATCH = 256


@dataclass(frozen=True)
class TextPrediction(Prediction):
    """What a model says of one text.

    Attributes:
        odd: what was odd about it: it was cut, or has no token that is known; empty for nothing.
    """

    odd: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        said = super().__repr__()
        return f"{said[:-1]}, odd: {'; '.join(self.odd)})" if self.odd else said


class TextPredictions(list[TextPrediction]):
    """Predictions in the order of the texts; `rows()` gives them as rows of a table."""

    def __init__(self, made: Sequence[TextPrediction], name: str = "label") -> None:
        super().__init__(made)
        self.name = name

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each prediction as a row: the label and its probability, or labels, or numbers."""
        for each in self:
            if each.probability is not None:
                yield {self.name: each.label, "probability": each.probability}
            elif isinstance(each.label, dict):
                yield dict(each.label)
            elif each.vocab:
                sure = zip(each.vocab, each.probabilities.tolist(), strict=True)
                yield {self.name: " ".join(map(str, each.label)), **{f"p({w})": p for w, p in sure}}
            else:
                yield {self.name: each.label}


class TextPredictor(Predictor):
    """Encodes texts, asks a model, and says what its outputs mean.

    Args:
        forward: gives the outputs of (tokens, lengths), without gradients, in evaluation mode.
        recipe: encodes texts.
        target: says what an output means.
        about: what an export says of itself.
    """

    #: What `trainbus predict` gives the rows of files, in blocks; and texts as they are.
    takes_tables = takes_words = True

    def __init__(
        self,
        forward: Callable[..., Any],
        recipe: Any,
        target: Any,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(forward, recipe.encode_input, target, recipe, about)
        self._ask = forward

    def __repr__(self) -> str:
        return f"TextPredictor({self.recipe!r})"

    def predict(self, item: Any) -> TextPrediction:
        """Predict one text; or a row, a mapping of columns to values.

        Raises:
            UsageError: it is neither, or lacks a column.
        """
        if isinstance(item, list) and len(self.recipe.names) == 1:
            raise UsageError("predict takes one text; for several there is predictions(texts)")
        return self.predictions([item])[0]

    def predictions(self, items: Any, batch_size: int = BATCH) -> TextPredictions:  # type: ignore[override]
        """Predict many texts, in their order.

        Args:
            items: a list of texts or of rows, a frame, the path of a table; one text is one text.
            batch_size: texts that the model is asked about together.

        Raises:
            UsageError: an item is no text; the message says which.
        """
        if batch_size < 1:
            raise UsageError(f"predictions(batch_size={batch_size}): give at least 1")
        texts = self._texts(items)
        made: list[TextPrediction] = []
        for start in range(0, len(texts), batch_size):
            made += self._asked(texts[start : start + batch_size])
        names = getattr(self.target, "names", None) or ["label"]
        return TextPredictions(made, names[0])

    def _texts(self, items: Any) -> list[str]:
        if isinstance(items, (str, Mapping)):
            items = [items]
        elif isinstance(items, Path) or hasattr(items, "columns"):
            items = _rows(items, self.recipe.names)
        elif items is None or not hasattr(items, "__iter__"):
            raise UsageError(f"predictions({items!r:.60}): give a list of texts")
        texts = []
        for number, item in enumerate(items):
            try:
                texts.append(self.recipe.text_of(item))
            except DataError as error:
                raise UsageError(f"item {number}, {item!r:.60}: {error}") from error
        return texts

    def _asked(self, texts: list[str]) -> Iterator[TextPrediction]:
        recipe = self.recipe
        flat, lengths = recipe.tokens.encode_all(texts)
        kept, cut = recipe.cutting(flat, lengths)
        # Like lengths together: least padding, and what is asked has no part in what is answered.
        order = np.argsort(cut, kind="stable")
        starts = np.cumsum(cut) - cut
        outputs: dict[int, Tensor] = {}
        for rows in _runs(order, cut):
            tokens = np.concatenate([kept[starts[r] : starts[r] + cut[r]] for r in rows])
            output = self._ask(*recipe.padded(tokens, cut[rows]))
            outputs |= dict(zip(rows.tolist(), output, strict=True))
        output = torch.stack([outputs[row] for row in range(len(texts))])
        for row, each in enumerate(self.read(output)):
            odd = []
            if lengths[row] > cut[row]:
                odd.append(f"{lengths[row]} tokens, of which {cut[row]} were read")
            if not lengths[row]:
                odd.append("it has no token that is known")
            yield TextPrediction(
                each.label, each.probability, each.probabilities, each.value, each.vocab, odd
            )


def _runs(order: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> Iterator[Any]:
    """Rows of one length each: what a text is told does not depend on its neighbours."""
    ordered = lengths[order]
    ends = [*(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(order)]
    begin = 0
    for end in ends:
        yield order[begin:end]
        begin = end


def _rows(source: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """The texts of a table."""
    from trainbus_data.tables.columns import Reading
    from trainbus_data.tables.reader import read_table

    table = read_table(source, like={name: Reading("text") for name in names})
    columns = [table[name].texts() for name in names]
    return [dict(zip(names, texts, strict=True)) for texts in zip(*columns, strict=True)]


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> TextPredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    from trainbus_text.recipe import TextRecipe

    recipe = TextRecipe.from_state(state, tensors)
    return TextPredictor(run, recipe, recipe.target, about)
