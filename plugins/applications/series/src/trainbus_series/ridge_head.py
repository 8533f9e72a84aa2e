"""A linear layer by ridge regression, its penalty by leaving out one after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_PENALTIES = torch.logspace(-3, 3, 13, dtype=torch.float64)


class Solved(NamedTuple):
    """What was solved.

    Attributes:
        weights: inputs x outputs.
        bias: (outputs,).
        penalty: that was chosen.
        left_out: N x outputs, what each row is given by the others.
    """

    weights: Tensor
    bias: Tensor
    penalty: float
    left_out: Tensor


def solve(rows: Tensor, wanted: Tensor) -> Solved:
    """The ridge regression of N rows, in the space of rows where they are fewer than inputs.

    Args:
        rows: N x inputs.
        wanted: N x outputs.
    """
    centre, level = rows.double().mean(0), wanted.double().mean(0)
    values, goal = rows.double() - centre, wanted.double() - level
    count = len(values)
    gram = values @ values.T
    sizes, turn = torch.linalg.eigh(gram)
    sizes = sizes.clamp(min=0)
    turned = turn.T @ goal
    best: tuple[float, float, Tensor, Tensor] | None = None
    scale = float(sizes.sum()) / count / max(1, count)  # penalties are told in the mean of them
    for penalty in (_PENALTIES * scale).tolist():
        inverse = 1 / (sizes + penalty)
        duals = turn @ (inverse[:, None] * turned)
        # The mean is learned, too: it takes one direction out of the penalty.
        diagonal = (turn.square() @ inverse) - 1 / (penalty * count)
        missed = duals / diagonal.clamp(min=1e-12)[:, None]
        cost = float(missed.square().mean())
        if best is None or cost < best[0]:
            best = (cost, penalty, duals, goal - missed)
    assert best is not None
    _, penalty, duals, left_out = best
    weights = values.T @ duals
    return Solved(weights, level - centre @ weights, penalty, left_out + level)
