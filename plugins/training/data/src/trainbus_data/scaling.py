"""Fitted scaling of numbers: what is missing is filled, and flagged where it matters."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus_data.errors import DataError

Array = np.ndarray[Any, Any]
#: Missing values are flagged where so many rows of training have none.
_FLAGGED = 0.001


class Scaling:
    """Numbers as a normal distribution has them: N x C to float32 N x (C + flags).

    "Noisy quantiles" (Gorishniy et al. 2021): quantiles of the training part with noise of 1e-3 of
    their deviation, as many as rows / 30, from 10 to 1,000. What is missing becomes the median, 0;
    a flag of 0 and 1 follows for each column of which training lacks values. Columns in `plain`
    (sine, cosine, 0 and 1) stay as they are.

    Args:
        quantiles: for each column not in `plain`, increasing; float64.
        flags: the columns whose missing values are flagged.
        plain: the columns that stay as they are.
        columns: how many there are.
    """

    def __init__(
        self,
        quantiles: list[Tensor] | None = None,
        flags: list[int] | None = None,
        plain: list[int] | None = None,
        columns: int = 0,
    ) -> None:
        self.flags, self.plain, self.columns = list(flags or ()), list(plain or ()), columns
        self.quantiles = list(quantiles or ())
        self._scaled = [c for c in range(columns) if c not in set(self.plain)]
        self._grids = [each.numpy() for each in self.quantiles]
        self._levels = [np.linspace(0, 1, len(each)) for each in self._grids]
        if len(self._grids) != len(self._scaled):
            raise DataError(
                f"{len(self._grids)} lists of quantiles for {len(self._scaled)} columns of numbers"
            )

    def fit(self, values: Array, plain: list[int], seed: int = 0) -> Self:
        """Learn from the numbers of the training part, N x C float64 with NaN."""
        rows, columns = values.shape
        lacking = np.isnan(values).sum(axis=0)
        flags = [c for c in range(columns) if lacking[c] >= max(1, _FLAGGED * rows)]
        draw = np.random.default_rng(seed)
        quantiles = []
        for c in range(columns):
            if c not in set(plain):
                column = values[:, c]
                known = column[~np.isnan(column)] if lacking[c] else column
                quantiles.append(torch.from_numpy(_quantiles(known, rows, draw)))
        self.__init__(quantiles, flags, plain, columns)  # type: ignore[misc]
        return self

    def encode(self, values: Array) -> Tensor:
        """N x (C + flags) float32, none missing."""
        rows = len(values)
        made = np.empty((rows, self.columns + len(self.flags)))
        for c, grid, levels in zip(self._scaled, self._grids, self._levels, strict=True):
            made[:, c] = np.interp(values[:, c], grid, levels)
        if self._scaled:
            whole = torch.from_numpy(made[:, self._scaled])
            normal = torch.special.ndtri(whole.clamp(1e-7, 1 - 1e-7))
            made[:, self._scaled] = normal.numpy()
        if self.plain:
            made[:, self.plain] = values[:, self.plain]
        if self.flags:
            made[:, self.columns :] = np.isnan(values[:, self.flags])
        made[np.isnan(made)] = 0
        return torch.from_numpy(made.astype(np.float32))

    def decode(self, numbers: Tensor) -> Array:
        """The values that the numbers stand for, N x C float64, NaN where a flag says missing."""
        given = numbers.detach().cpu().double()
        values = given[:, : self.columns].numpy().copy()
        shares = torch.special.ndtr(given[:, self._scaled]).numpy()
        for n, (c, grid, levels) in enumerate(
            zip(self._scaled, self._grids, self._levels, strict=True)
        ):
            values[:, c] = np.interp(shares[:, n], levels, grid)
        for n, c in enumerate(self.flags):
            values[given[:, self.columns + n].numpy() > 0.5, c] = np.nan
        return values

    def options(self) -> dict[str, Any]:
        """JSON values: all but the quantiles."""
        return {"flags": self.flags, "plain": self.plain, "columns": self.columns}

    def tensors(self) -> dict[str, Tensor]:
        """The quantiles by column."""
        return {str(c): each for c, each in zip(self._scaled, self.quantiles, strict=True)}

    @classmethod
    def from_state(cls, options: dict[str, Any], tensors: dict[str, Tensor]) -> Scaling:
        """The scaling that `options` and `tensors` described."""
        ordered = sorted(tensors, key=int)
        return cls([tensors[name].double() for name in ordered], **options)


def _quantiles(known: Array, rows: int, draw: np.random.Generator) -> Array:
    """Increasing quantiles of a column, with noise that tells equal values apart."""
    count = int(max(min(rows / 30, 1000), 10))
    if not len(known):
        return np.linspace(-1, 1, count)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(known.std())
    if not np.isfinite(spread) or spread == 0:  # constant, or too large for squares
        spread = 1.0
    noisy = known + draw.normal(0, 1e-3 * spread, len(known))
    places = np.linspace(0, len(noisy) - 1, count)
    return np.interp(places, np.arange(len(noisy)), np.sort(noisy))
