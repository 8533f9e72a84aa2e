"""The linear forecast in closed form: one ridge regression of all windows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

#: Windows that are solved for, at most: more say the same.
_WINDOWS = 200_000
#: Of the squared weights, for each window: enough for what is nearly the same, and no more.
PENALTY = 1e-4


def ridge(loader: Any, penalty: float = PENALTY) -> tuple[Tensor, Tensor]:
    """Weights (lookback x horizon) and bias (horizon,) that forecast what is behind the last value.

    Each window less its last value is a row of the regression (NLinear: Zeng et al., 2023; solved
    as by Toner and Darlow, 2024). Windows with unknown steps ahead are left out.

    Args:
        loader: `part` of a `ForecastData`: batches of windows, in order.
        penalty: of the squared weights, for each window.
    """
    return solved(_pairs(loader), penalty)


def _pairs(loader: Any) -> Iterable[tuple[Tensor, Tensor]]:
    for history, _, _, wanted, *_ in loader:
        known = ~torch.isnan(wanted).any(1)
        history, wanted = history[known, :, 0].double(), wanted[known].double()
        last = history[:, -1:]
        yield history - last, wanted - last


def solved(pairs: Iterable[tuple[Tensor, Tensor]], penalty: float) -> tuple[Tensor, Tensor]:
    """The ridge regression of rows that come in batches, N x inputs and N x outputs; float64."""
    square = cross = sums = means = None
    count = 0
    for rows, wanted in pairs:
        if square is None:
            square, cross = rows.T @ rows, rows.T @ wanted
            sums, means = rows.sum(0), wanted.sum(0)
        else:
            square += rows.T @ rows
            cross += rows.T @ wanted
            sums += rows.sum(0)
            means += wanted.sum(0)
        count += len(rows)
    if square is None or cross is None or sums is None or means is None or not count:
        raise ValueError("there is no window")
    centre, level = sums / count, means / count
    square = square - count * torch.outer(centre, centre)
    cross = cross - count * torch.outer(centre, level)
    square.diagonal().add_(penalty * count)
    weights = torch.linalg.solve(square, cross)
    return weights, level - centre @ weights


def windows_of(data: Any, most: int = _WINDOWS) -> Any:
    """The windows of training in order, at most so many, evenly over all of them."""
    count = len(data.train_items)
    step = -(-count // most)
    return data.part("train", range(0, count, step))
