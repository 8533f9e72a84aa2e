"""Fitted scaling of numbers: what is missing is filled, and flagged where it matters."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data.errors import DataError

Array = np.ndarray[Any, Any]
#: Missing values are flagged where so many rows of training have none.
_FLAGGED = 0.001
KINDS = ("quantile", "robust")
#: What values of "robust" come near, and do not reach.
_BOUND = 3.0


class Scaling:
    """Numbers around 0, of a spread of about 1: N x C to float32 N x (C + flags).

    "quantile" gives them a normal distribution by "noisy quantiles" (Gorishniy et al. 2021):
    quantiles of the training part with noise of 1e-3 of their deviation, as many as rows / 30, from
    10 to 1,000. "robust" takes the median away and divides by the width between the quartiles, and
    bends what is far out: x / sqrt(1 + (x / 3)^2) (Holzmüller et al. 2024), so that distances are
    kept. What is missing becomes the median, 0; a flag of 0 and 1 follows for each column of which
    training lacks values. Columns in `plain` (sine, cosine, 0 and 1) stay as they are.

    Args:
        quantiles: for each column not in `plain`, increasing; float64; of "robust" the median and
            the spread.
        flags: the columns whose missing values are flagged.
        plain: the columns that stay as they are.
        columns: how many there are.
        kind: "quantile" or "robust".

    Raises:
        DataError: it is another kind, or the lists do not fit the columns.
    """

    def __init__(
        self,
        quantiles: list[Tensor] | None = None,
        flags: list[int] | None = None,
        plain: list[int] | None = None,
        columns: int = 0,
        kind: str = "quantile",
    ) -> None:
        if kind not in KINDS:
            raise DataError(f"scaling={kind!r}: one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
        self.kind = kind
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
                made = (
                    _quantiles(known, rows, draw) if self.kind == "quantile"
                    else _median_and_spread(known)
                )  # fmt: skip
                quantiles.append(torch.from_numpy(made))
        self.__init__(quantiles, flags, plain, columns, self.kind)  # type: ignore[misc]
        return self

    def encode(self, values: Array) -> Tensor:
        """N x (C + flags) float32, none missing."""
        rows = len(values)
        made = np.empty((rows, self.columns + len(self.flags)))
        for c, grid, levels in zip(self._scaled, self._grids, self._levels, strict=True):
            if self.kind == "robust":
                made[:, c] = _bent((values[:, c] - grid[0]) / grid[1])
            else:
                made[:, c] = np.interp(values[:, c], grid, levels)
        if self._scaled and self.kind == "quantile":
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
            if self.kind == "robust":
                values[:, c] = _unbent(values[:, c]) * grid[1] + grid[0]
            else:
                values[:, c] = np.interp(shares[:, n], levels, grid)
        for n, c in enumerate(self.flags):
            values[given[:, self.columns + n].numpy() > 0.5, c] = np.nan
        return values

    def options(self) -> dict[str, Any]:
        """JSON values: all but the quantiles."""
        made: dict[str, Any] = {
            "flags": self.flags, "plain": self.plain, "columns": self.columns,
        }  # fmt: skip
        return made if self.kind == "quantile" else made | {"kind": self.kind}

    def tensors(self) -> dict[str, Tensor]:
        """The quantiles by column."""
        return {str(c): each for c, each in zip(self._scaled, self.quantiles, strict=True)}

    @classmethod
    def from_state(cls, options: dict[str, Any], tensors: dict[str, Tensor]) -> Scaling:
        """The scaling that `options` and `tensors` described."""
        ordered = sorted(tensors, key=int)
        return cls([tensors[name].double() for name in ordered], **options)


def _median_and_spread(known: Array) -> Array:
    """The median, and what a column is divided by: never 0."""
    if not len(known):
        return np.array([0.0, 1.0])
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    # Where half of the values are one, the quartiles may be one: then the whole width, halved.
    spread = high - low or (float(known.max()) - float(known.min())) / 2
    return np.array([middle, spread if np.isfinite(spread) and spread > 0 else 1.0])


def _bent(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return values / np.sqrt(1 + np.square(values / _BOUND))  # type: ignore[no-any-return]


def _unbent(values: Array) -> Array:
    values = np.clip(values, -_BOUND + 1e-6, _BOUND - 1e-6)
    return values / np.sqrt(1 - np.square(values / _BOUND))  # type: ignore[no-any-return]


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
