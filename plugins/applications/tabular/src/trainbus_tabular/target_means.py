"""Categories as what the target is in the mean with them, without telling a row its own target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from trainbus_data import DataError
from trainbus_data.steps import Step, new_words, words_of
from trainbus_data.tables.columns import Column

Array = np.ndarray[Any, Any]
#: A row of training is encoded by the rows of the other folds.
_FOLDS = 5


class TargetMeans(Step):
    """The mean of the target by word, drawn towards the mean of all (Micci-Barreca, 2001).

    A word that n rows of training have gets (sum + smoothing * mean of all) / (n + smoothing), and
    a new one the mean of all. The rows of training themselves, which would be told their own
    target by that, are encoded by means over the other four fifths of the rows: see
    `of_training`.

    Args:
        means: of each target, by word.
        overall: those of all rows.
        targets: what the targets are called; one is not named.
        smoothing: in rows.
    """

    def __init__(
        self,
        means: Mapping[str, Sequence[float]] | None = None,
        overall: Sequence[float] = (0.0,),
        targets: Sequence[str] = ("",),
        smoothing: float = 20.0,
    ) -> None:
        self.means = {word: list(each) for word, each in (means or {}).items()}
        self.overall, self.targets, self.smoothing = list(overall), list(targets), smoothing
        #: The rows that it was fitted on, in their order, N x the targets.
        self.of_training: Array | None = None

    @property
    def words(self) -> list[str]:
        """The words of training."""
        return list(self.means)

    def fit(self, column: Column) -> Self:
        """Refused: it learns from the target, too."""
        raise DataError("TargetMeans learns from the target: fit_to(column, values)")

    def fit_to(self, column: Column, values: Array, seed: int = 0) -> Self:
        """Learn the means of the training part.

        Args:
            column: the words.
            values: N x the targets, float64.
            seed: of the folds.
        """
        words, codes = words_of(column)
        self.overall = values.mean(axis=0).tolist()
        found = self._smoothed(codes, values, len(words))
        counts = np.bincount(codes[codes >= 0], minlength=len(words)).tolist()
        kept = {w: m for w, m, n in zip(words, found[:-1].tolist(), counts, strict=True) if n}
        self.means = dict(sorted(kept.items()))
        fold = np.random.default_rng(seed).permutation(len(codes)) % min(_FOLDS, len(codes))
        self.of_training = np.empty_like(values)
        for number in range(fold.max() + 1):
            here, others = fold == number, fold != number
            table = self._smoothed(codes[others], values[others], len(words))
            self.of_training[here] = table[codes[here]]
        self.of_training[codes < 0] = np.nan
        return self

    def _smoothed(self, codes: Array, values: Array, words: int) -> Array:
        """The means by code, the last for none: (words + 1) x the targets."""
        known = codes >= 0
        overall = values.mean(axis=0)
        counts = np.bincount(codes[known], minlength=words)[:, None]
        sums = np.stack([
            np.bincount(codes[known], column, minlength=words) for column in values[known].T
        ], axis=1)  # fmt: skip
        means = (sums + self.smoothing * overall) / (counts + self.smoothing)
        return np.concatenate([means, np.full((1, values.shape[1]), np.nan)])

    def encode(self, column: Column) -> Array:
        """N x the targets; NaN where the value is missing."""
        words, codes = words_of(column)
        rows = [self.means.get(word, self.overall) for word in words]
        return np.array([*rows, [np.nan] * len(self.overall)])[codes]

    def decode(self, values: Array) -> list[Any]:
        """The means: the words cannot be told of them."""
        return [None if row[0] != row[0] else row for row in values.tolist()]

    def names(self, name: str) -> tuple[str, ...]:
        """One for each target."""
        return tuple(f"{name} mean{f' {each}' if each else ''}" for each in self.targets)

    def odd(self, column: Column) -> dict[int, str]:
        """Words that training did not have."""
        return new_words(column, self.means)

    def options(self) -> dict[str, Any]:
        """The means."""
        return {
            "means": self.means, "overall": self.overall, "targets": self.targets,
            "smoothing": self.smoothing,
        }  # fmt: skip
