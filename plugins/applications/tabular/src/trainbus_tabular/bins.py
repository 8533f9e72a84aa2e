"""Where the pieces of an embedding of numbers begin and end: at quantiles, or splits of a tree."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor

#: Rows from which edges are found: more do not move them.
_ROWS = 100_000
#: Of few rows there are fewer pieces: so many rows in each, as a rule.
_ROWS_OF_A_PIECE = 30
#: Of the trees: the fewest rows of a leaf, and the least that a split has to bring, of the
#: variance of the target (Gorishniy et al., 2022).
_LEAF, _GAIN = 64, 1e-4


def quantile_bins(numbers: Tensor, bins: int = 48, distinct: int = 128) -> list[Tensor]:
    """The edges of pieces with equally many rows, and of pieces with equally many values.

    Where many rows have one value (no gain at all), the quantiles of rows fall together and tell
    little of the others: if fewer than half of the pieces are left, those of the values, each taken
    once, are added.

    Args:
        numbers: rows x columns, of training.
        bins: pieces of a column with equally many rows; fewer where values are equal.
        distinct: pieces with equally many different values; 0 for none, as the authors have it.
    """
    numbers = _some(numbers)
    most = max(2, len(numbers) // _ROWS_OF_A_PIECE)
    bins, distinct = min(bins, most), min(distinct, most)
    rows = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    steps = torch.linspace(0, 1, distinct + 1, dtype=torch.float64)
    found = []
    for each in numbers.T:
        edges = torch.quantile(each.double(), rows)
        if distinct and len(edges.unique()) - 1 < bins / 2:
            edges = torch.cat([edges, torch.quantile(each.unique().double(), steps)])
        found.append(_edges(edges))
    return found


def target_bins(numbers: Tensor, target: Tensor, bins: int = 48) -> list[Tensor]:
    """The edges where a regression tree of one column splits it (Gorishniy et al., 2022).

    A class is one of zeros and ones, for which squared error is the impurity of Gini.

    Args:
        numbers: rows x columns, of training.
        target: rows, of classes (int64); or rows x outputs, of numbers.
        bins: leaves of a tree, at most.
    """
    wanted = target if target.is_floating_point() else torch.nn.functional.one_hot(target)
    wanted = _some(wanted.reshape(len(wanted), -1)).double()
    wanted = (wanted - wanted.mean(0)) / wanted.std(0, correction=0).clamp(min=1e-12)
    # Of many classes: what they have in common is enough to find edges.
    return [_edges(_splits(each.double(), wanted, bins)) for each in _some(numbers).T]


def _some(values: Tensor) -> Tensor:
    return values if len(values) <= _ROWS else values[:: -(-len(values) // _ROWS)]


def _edges(values: Tensor) -> Tensor:
    """Ascending edges in float32, at least two."""
    found = values.float().unique()
    if len(found) > 1:
        return found
    return torch.stack([found[0] - 0.5, found[0] + 0.5])


def _splits(column: Tensor, target: Tensor, leaves: int) -> Tensor:
    """The least value, the splits and the greatest value: the best split first, until it is enough.

    Args:
        column: (N,).
        target: N x outputs, centred.
        leaves: at most.
    """
    order = column.argsort()
    column, target = column[order], target[order]
    sums = torch.cat([torch.zeros(1, target.shape[1], dtype=target.dtype), target.cumsum(0)])
    least = min(_LEAF, max(2, len(column) // 50))
    enough = _GAIN * len(column) * target.shape[1]
    found, number = [], count()
    heap: list[tuple[float, int, int, int, int]] = []

    def offer(start: int, stop: int) -> None:
        gain, place = _best(column, sums, start, stop, least)
        if gain > enough:
            heapq.heappush(heap, (-gain, next(number), start, place, stop))

    offer(0, len(column))
    while heap and len(found) < leaves - 1:
        _, _, start, place, stop = heapq.heappop(heap)
        found.append((column[place - 1] + column[place]) / 2)
        offer(start, place)
        offer(place, stop)
    return torch.stack([column[0], *found, column[-1]])


def _best(column: Tensor, sums: Tensor, start: int, stop: int, least: int) -> tuple[float, int]:
    """The gain of the best split of rows start to stop, and the first row behind it."""
    if stop - start < 2 * least:
        return 0.0, start
    places = torch.arange(start + least, stop - least + 1)
    places = places[column[places - 1] < column[places.clamp(max=len(column) - 1)]]
    if not len(places):
        return 0.0, start
    left, right = sums[places] - sums[start], sums[stop] - sums[places]
    whole = (sums[stop] - sums[start]).square().sum() / (stop - start)
    gains = left.square().sum(1) / (places - start) + right.square().sum(1) / (stop - places)
    best = int(gains.argmax())
    return float(gains[best] - whole), int(places[best])


def counts(bins: Sequence[Tensor]) -> list[int]:
    """How many pieces each column has."""
    return [len(edges) - 1 for edges in bins]
