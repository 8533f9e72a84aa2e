"""Predictions of what series are: one by one, many, or of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainbus import UsageError
from trainbus_data import DataError
from trainbus_learner import Prediction, Predictor
from trainbus_series.labelled import LabelledRecipe, one_series
from trainbus_series.ts_file import read_ts

#: Series that the model is asked about together.
BATCH = 64


class SeriesPredictions(list[Prediction]):
    """Predictions in the order of the series; `rows()` gives them as rows of a table."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each prediction as a row."""
        for place, each in enumerate(self):
            sure = {} if each.probability is None else {"probability": each.probability}
            yield {"series": place, "label": each.label, **sure}


class SeriesPredictor(Predictor):
    """Brings series to one length, asks a model, and says what its outputs mean.

    Args:
        forward: gives the outputs of (series, lengths), in evaluation mode.
        recipe: of the series.
        about: what an export says of itself.
    """

    takes_tables = takes_whole_files = True
    #: How the names of files end that `trainbus predict` gives it.
    file_endings = (".ts",)

    def __init__(
        self,
        forward: Callable[..., Any],
        recipe: LabelledRecipe,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(forward, recipe.encode_input, recipe.target, recipe, about)
        self._ask = forward

    def predict(self, item: Any) -> Prediction:
        """Predict one series: steps, or dimensions x steps."""
        return self.predictions([item])[0]

    def predictions(self, items: Any, batch_size: int = BATCH) -> SeriesPredictions:  # type: ignore[override]
        """Predict many series, in their order.

        Args:
            items: N x steps, N x dimensions x steps, a list of arrays, or the path of a `.ts` file.
            batch_size: series that the model is asked about together.

        Raises:
            UsageError: one is no series, or has other dimensions; says which.
        """
        try:
            if isinstance(items, (str, Path)):
                series = read_ts(items).series
            else:
                series = [one_series(each, f"series {n}") for n, each in enumerate(items)]
            values, lengths = self.recipe.together(series)
        except (DataError, TypeError) as error:
            raise UsageError(f"predictions: {error}") from error
        made = SeriesPredictions()
        for begin in range(0, len(series), batch_size):
            part = slice(begin, begin + batch_size)
            made += self.read(self._ask(values[part], lengths[part]))
        return made


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> SeriesPredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    return SeriesPredictor(run, LabelledRecipe.from_state(state), about)
