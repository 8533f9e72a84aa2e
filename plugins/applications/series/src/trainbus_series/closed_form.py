"""The linear forecast in closed form: the mean of ridge regressions of all windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainbus_series.parts import windows

#: Windows that are solved for, at most: more say the same.
_WINDOWS = 200_000
_BLOCK = 4096
#: Of the squared weights, for each window: enough for what is nearly the same, and no more.
PENALTY = 1e-4
#: Of a lookback: a second regression looks back at so much.
_SHORTER = 2 / 3


class Solution(NamedTuple):
    """A linear forecast: last + (series - last) @ weights + last * level; float64.

    There is no bias: what series rose in training on average they will not rise for ever.

    Attributes:
        weights: lookback x horizon.
        level: (horizon,), how much of the last value itself is added.
    """

    weights: Tensor
    level: Tensor

    def __call__(self, series: Tensor) -> Tensor:
        """N x horizon of N x lookback."""
        last = series[:, -1:].double()
        made = (series.double() - last) @ self.weights + last * self.level + last
        return made.float()


class Moments:
    """What regressions of windows are solved from: sums of products, of one pass.

    Args:
        data: a `ForecastData`.
        lookback: steps; all windows of training that are so long are taken, at most 200,000 of
            them, but those with unknown steps ahead.
    """

    def __init__(self, data: Any, lookback: int) -> None:
        horizon, series, wanted = data.recipe.horizon, data.seen.history[:, 0], data.seen.wanted
        starts, _ = windows(data.panel, data.bounds, 0, lookback, horizon, data.padded)
        every = torch.from_numpy(starts)[:: -(-len(starts) // _WINDOWS) or 1]
        back, front = torch.arange(lookback), lookback + torch.arange(horizon)
        self.count = 0
        for begins in every.split(_BLOCK):
            ahead = wanted[begins[:, None] + front]
            known = ~torch.isnan(ahead).any(1)
            ahead = ahead[known].double()
            rows = series[begins[known][:, None] + back].double()
            if not self.count:
                self.square, self.cross = rows.T @ rows, rows.T @ ahead
            else:
                self.square += rows.T @ rows
                self.cross += rows.T @ ahead
            self.count += len(rows)
        if not self.count:
            raise ValueError("there is no window")

    def solved(self, from_last: bool, penalty: float = PENALTY) -> Solution:
        """The ridge regression.

        Args:
            from_last: of series less their last value (NLinear: Zeng et al., 2023; solved as by
                Toner and Darlow, 2024), whose level says nothing then; or as they are.
            penalty: of the squared weights, for each window.
        """
        square, cross, steps = self.square, self.cross, len(self.square)
        if from_last:
            turn = torch.eye(steps, dtype=torch.float64)
            turn[-1] -= 1.0  # each step less the last one
            cross = turn.T @ (cross - square[:, -1:])
            square = turn.T @ square @ turn
        square = square + penalty * self.count * torch.eye(steps, dtype=torch.float64)
        weights = torch.linalg.solve(square, cross)
        return Solution(weights, torch.zeros_like(weights[0]) if from_last else weights.sum(0) - 1)


def ridge(data: Any) -> Solution:
    """The mean of regressions of the whole lookback and of two thirds of it, each less the last
    value and as it is: they err in different ways. Of a horizon beyond the lookback only those less
    the last value: the levels that series had say nothing of what is so far ahead.
    """
    whole, horizon = data.recipe.lookback, data.recipe.horizon
    found = []
    for steps in {whole, max(1, round(_SHORTER * whole))}:
        moments = Moments(data, steps)
        for from_last in (True, False) if horizon <= whole else (True,):
            weights, level = moments.solved(from_last)
            longer = torch.zeros(whole, horizon, dtype=torch.float64)
            longer[-steps:] = weights
            found.append((longer, level))
    return Solution(*(torch.stack(each).mean(0) for each in zip(*found, strict=True)))
