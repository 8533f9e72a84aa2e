"""What is solved and not trained: biases, EASE, implicit ALS, nearest items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus import UsageError

Array = np.ndarray[Any, Any]
#: Items of which a whole matrix is made, at most.
MOST = 15_000
_SWEEPS = 10


def biases(
    users: Array, items: Array, ratings: Array, shapes: tuple[int, int], shrink: float = 5.0
) -> tuple[float, Array, Array]:
    """The mean, and what each user and item adds to it; codes 0 add nothing.

    Least squares with a penalty of `shrink` for each, alternately (Koren, 2008).

    Args:
        users, items, ratings: of training.
        shapes: numbers of users and items.
        shrink: ratings of the mean that each is begun with.
    """
    mean = float(ratings.mean())
    of_user, of_item = np.zeros(shapes[0] + 1), np.zeros(shapes[1] + 1)
    rest = ratings - mean
    in_user = np.bincount(users, minlength=len(of_user)) + shrink
    in_item = np.bincount(items, minlength=len(of_item)) + shrink
    for _ in range(_SWEEPS):
        of_item = np.bincount(items, rest - of_user[users], len(of_item)) / in_item
        of_user = np.bincount(users, rest - of_item[items], len(of_user)) / in_user
    of_user[0] = of_item[0] = 0.0
    return mean, of_user, of_item


def counted(starts: Tensor, seen: Tensor, items: int) -> Tensor:
    """How many users have seen each pair of items: items x items, float32."""
    check_size(items)
    counts = starts.diff()
    users = torch.arange(len(counts)).repeat_interleave(counts)
    made = torch.zeros(items, items)
    step = max(1, 50_000_000 // items)
    for begin in range(0, len(counts), step):
        rows = (users >= begin) & (users < begin + step)
        block = torch.zeros(min(step, len(counts) - begin), items)
        block[users[rows] - begin, seen[rows] - 1] = 1.0
        made += block.T @ block
    return made


def check_size(items: int) -> None:
    """Refuse a matrix that would not fit."""
    if items > MOST:
        size = 8 * items**2 / 1e9
        raise UsageError(
            f"a matrix of {items:,} x {items:,} items needs {size:,.0f} GB: arch='factors', or "
            f"the {MOST:,} most frequent items"
        )


def ease(pairs: Tensor, penalty: float) -> Tensor:
    """Weights of seen items, items x items, with nothing on the diagonal (EASE: Steck, 2019).

    Args:
        pairs: of `counted`.
        penalty: of the squared weights.
    """
    square = pairs.double()
    square.diagonal().add_(penalty)
    inverse = torch.linalg.inv(square)
    made = -inverse / inverse.diagonal()
    made.diagonal().zero_()
    return made.float()


def nearest_items(pairs: Tensor, shrink: float = 10.0) -> Tensor:
    """Cosines of items by who has seen both, less where few have: items x items."""
    size = pairs.diagonal().sqrt()
    made = pairs / (torch.outer(size, size) + shrink)
    made = made.clone()
    made.diagonal().zero_()
    return made


def ease_penalty(starts: Tensor, seen: Tensor, items: int, pairs: Tensor) -> float:
    """The penalty, of a few, by which the last item of users is found best, in training itself.

    The last item of each user with three or more is taken out, and ranked.
    """
    counts = starts.diff()
    rows = torch.arange(len(counts))[counts >= 3]
    if len(rows) < 20:
        return 100.0
    rows = rows[:: max(1, len(rows) // 2000)]
    held = torch.zeros(len(seen), dtype=torch.bool)
    last = starts[rows + 1] - 1
    held[last] = True
    kept_counts = counts.clone()
    kept_counts[rows] -= 1
    kept_starts = torch.cat([torch.zeros(1, dtype=starts.dtype), kept_counts.cumsum(0)])
    kept = counted(kept_starts, seen[~held], items)
    history = torch.zeros(len(rows), items)
    for place, row in enumerate(rows.tolist()):
        history[place, seen[int(starts[row]) : int(starts[row + 1]) - 1] - 1] = 1.0
    best = (-1.0, 100.0)
    for penalty in (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0):
        scores = (history @ ease(kept, penalty)).masked_fill(history > 0, float("-inf"))
        own = scores.gather(1, (seen[last] - 1)[:, None])
        rank = (scores > own).sum(1).double()
        gain = float(torch.where(rank < 10, 1 / (rank + 2).log2(), 0.0).mean())
        best = max(best, (gain, penalty))
    return best[1]


def implicit_als(
    starts: Tensor, seen: Tensor, items: int, width: int = 64, alpha: float = 1.0,
    penalty: float = 0.003, sweeps: int = 8, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Vectors of items, items x width (iALS: Hu et al., 2008, in the form of Rendle et al., 2021).

    Seen items are wanted to be 1, and all others, with a weight of `alpha`, 0; the penalty of a
    vector grows with what there is of it.
    """
    counts = starts.diff()
    users = torch.arange(len(counts)).repeat_interleave(counts)
    draw = torch.Generator().manual_seed(seed)
    own = torch.randn(items, width, generator=draw, dtype=torch.float64) * 0.1 / width**0.5
    codes = seen - 1
    order = torch.argsort(codes, stable=True)
    item_counts = torch.bincount(codes, minlength=items)
    for _ in range(sweeps):
        of_users = _half(own, codes, counts, alpha, penalty)
        own = _half(of_users, users[order], item_counts, alpha, penalty)
    return own.float()


def _half(own: Tensor, codes: Tensor, counts: Tensor, alpha: float, penalty: float) -> Tensor:
    """Solve one side: a small system for each, in blocks of those with like many."""
    width = own.shape[1]
    gram = alpha * own.T @ own
    made = torch.zeros(len(counts), width, dtype=own.dtype)
    starts = counts.cumsum(0) - counts
    order = torch.argsort(counts, stable=True)
    order = order[counts[order] > 0]
    for rows in order.split(1024):
        longest = int(counts[rows].max())
        steps = torch.arange(longest)
        there = steps < counts[rows][:, None]
        places = (starts[rows][:, None] + steps).clamp(max=len(codes) - 1)
        vectors = own[codes[places]] * there[..., None]
        system = gram + torch.einsum("nsk,nsl->nkl", vectors, vectors)
        size = penalty * (counts[rows] + alpha * len(own)).double()
        system = system + size[:, None, None] * torch.eye(width, dtype=own.dtype)
        made[rows] = torch.linalg.solve(system, vectors.sum(1))
    return made
