"""The linear forecast in closed form: the mean of four ridge regressions of all windows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Windows that are solved for, at most: more say the same.
_WINDOWS = 200_000
#: Of the squared weights, for each window: enough for what is nearly the same, and no more.
PENALTY = 1e-4
#: Of a lookback: a second regression looks back at so much.
_SHORTER = 2 / 3


class Solution(NamedTuple):
    """A linear forecast: last + (series - last) @ weights + last * level + bias; float64.

    Attributes:
        weights: lookback x horizon.
        level: (horizon,), how much of the last value itself is added.
        bias: (horizon,).
    """

    weights: Tensor
    level: Tensor
    bias: Tensor

    def __call__(self, series: Tensor) -> Tensor:
        """N x horizon of N x lookback."""
        last = series[:, -1:].double()
        made = (series.double() - last) @ self.weights + last * self.level + self.bias + last
        return made.float()


class Moments:
    """What regressions of windows are solved from: sums of products, of one pass.

    Args:
        loader: batches of windows, in order; those with unknown steps ahead are left out.
    """

    def __init__(self, loader: Any) -> None:
        self.count = 0
        for history, _, _, wanted, *_ in loader:
            known = ~torch.isnan(wanted).any(1)
            rows, ahead = history[known, :, 0].double(), wanted[known].double()
            found = rows.T @ rows, rows.T @ ahead, rows.sum(0), ahead.sum(0)
            if not self.count:
                self.square, self.cross, self.rows, self.ahead = found
            else:
                self.square += found[0]
                self.cross += found[1]
                self.rows += found[2]
                self.ahead += found[3]
            self.count += len(rows)
        if not self.count:
            raise ValueError("there is no window")

    def solved(self, steps: int, from_last: bool, penalty: float = PENALTY) -> Solution:
        """The ridge regression of the last so many steps.

        Args:
            steps: that are looked back at.
            from_last: of series less their last value (NLinear: Zeng et al., 2023; solved as by
                Toner and Darlow, 2024), whose level says nothing then; or as they are.
            penalty: of the squared weights, for each window.
        """
        square, cross = self.square[-steps:, -steps:], self.cross[-steps:]
        rows, ahead = self.rows[-steps:], self.ahead
        if from_last:
            turn = torch.eye(steps, dtype=torch.float64)
            turn[-1] -= 1.0  # each step less the last one
            cross = turn.T @ (cross - square[:, -1:])
            square = turn.T @ square @ turn
            ahead = ahead - rows[-1]
            rows = turn.T @ rows
        centre, goal = rows / self.count, ahead / self.count
        square = square - self.count * torch.outer(centre, centre)
        cross = cross - self.count * torch.outer(centre, goal)
        square.diagonal().add_(penalty * self.count)
        own = torch.linalg.solve(square, cross)
        weights = torch.zeros(len(self.rows), own.shape[1], dtype=torch.float64)
        weights[-steps:] = own
        level = torch.zeros_like(goal) if from_last else own.sum(0) - 1
        return Solution(weights, level, goal - centre @ own)


def ridge(loader: Any) -> Solution:
    """The mean of regressions of the whole lookback and of two thirds of it, each less the last
    value and as it is: they err in different ways.
    """
    moments = Moments(loader)
    whole = len(moments.rows)
    found = [
        moments.solved(steps, from_last)
        for steps in {whole, max(1, round(_SHORTER * whole))}
        for from_last in (True, False)
    ]
    return Solution(*(torch.stack(each).mean(0) for each in zip(*found, strict=True)))


def windows_of(data: Any, most: int = _WINDOWS) -> Any:
    """The windows of training in order, at most so many, evenly over all of them."""
    count = len(data.train_items)
    step = -(-count // most)
    return data.part("train", range(0, count, step))
