"""The order of the items of an epoch: made of a seed and the epoch alone, so it can resume."""

from __future__ import annotations

import hashlib
import struct

import torch
from torch import Tensor

from trainbus.arguments import check_whole
from trainbus_data.errors import DataError


def order_of(
    count: int,
    seed: int,
    epoch: int,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    size: int | None = None,
) -> Tensor:
    """The items of an epoch: a permutation, unless something else is asked for.

    Args:
        count: how many items there are.
        seed: of the draws.
        epoch: of which the order is.
        weights: items are drawn with replacement, each by its weight.
        groups: a number for each item; those of a group stay together, in their order.
        size: items of an epoch; epochs go on where the one before ended, so that all items have
            been there before any comes again.
    """
    if size is not None and weights is None:
        return _stretch(count, seed, epoch, groups, size)
    if groups is not None:
        return _grouped(groups, seed, epoch)
    draw = _generator(seed, epoch)
    if weights is None:
        return torch.randperm(count, generator=draw)
    ends = weights.cumsum(0)
    points = torch.rand(size or count, dtype=torch.float64, generator=draw) * ends[-1]
    return torch.searchsorted(ends, points, right=True).clamp(max=count - 1)


def _generator(seed: int, epoch: int) -> torch.Generator:
    data = hashlib.blake2b(struct.pack("<qq", seed, epoch), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(data, "little") >> 1)


def _stretch(count: int, seed: int, epoch: int, groups: Tensor | None, size: int) -> Tensor:
    """Items number epoch * size and on of one permutation after the other."""
    check_whole(1, DataError, epoch_size=size)
    first, last = epoch * size // count, ((epoch + 1) * size - 1) // count
    laps = [order_of(count, seed, lap, groups=groups) for lap in range(first, last + 1)]
    begin = epoch * size - first * count
    return torch.cat(laps)[begin : begin + size]


def _grouped(groups: Tensor, seed: int, epoch: int) -> Tensor:
    """Groups in a new order, each in its own."""
    _, group = torch.unique(groups, return_inverse=True)
    places = torch.randperm(int(group.max()) + 1, generator=_generator(seed, epoch))
    return torch.argsort(places[group], stable=True)


def bucketed(lengths: Tensor, order: Tensor, batch_size: int, seed: int, epoch: int) -> Tensor:
    """An order in which items of a batch have nearly the same length.

    Pools of 50 batches are sorted by length, and their batches shuffled; a last batch that is not
    full stays the last.

    Args:
        lengths: of all items.
        order: of the items.
        batch_size: items in a batch.
        seed: of the order of the batches.
        epoch: see `order_of`.
    """
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(50 * batch_size)]
    batches = torch.cat(pools).split(batch_size)
    full = [batch for batch in batches if len(batch) == batch_size]
    rest = [batch for batch in batches if len(batch) < batch_size]
    turn = torch.randperm(len(full), generator=_generator(seed, ~epoch)).tolist()
    return torch.cat([*(full[place] for place in turn), *rest])
