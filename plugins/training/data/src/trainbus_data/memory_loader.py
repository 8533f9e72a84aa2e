"""Batches of tensors in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from trainbus_data.blocks import Block
from trainbus_data.items import Tensors
from trainbus_data.orders import order_of

#: Batches are taken together up to so many bytes.
_AT_ONCE = 1 << 19


class MemoryLoader:
    """Batches of tensors in memory: each is one indexing operation for each part.

    The order of an epoch is a permutation made of `seed` and the epoch; where nobody tells the
    epoch, as in a loop of one's own, each pass is the next one. Tensors on a device give
    batches on that device, without a copy between them.

    Args:
        parts: tensors of equal length N.
        kinds: the kind of each.
        batch_size: samples in a batch.
        shuffle: a new order for each epoch.
        drop_last: leave out a last batch that is not full.
        seed: of the order.
        weights: how often each item is drawn in an epoch, in proportion to the others; by default
            each is, once.
        batch_transforms: applied to placed batches by the plugin `data`.
        blocks: what the parts are, for whoever asks; none if only the kinds are known.
        groups: a number for each item; in training, those of a group come together.
        epoch_size: items of an epoch of training; the next one goes on behind it, so that all have
            been there before one comes again.
    """

    def __init__(
        self,
        parts: Sequence[Tensor],
        kinds: tuple[str, ...],
        batch_size: int = 64,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        batch_transforms: Sequence[Any] = (),
        blocks: Sequence[Block] = (),
        weights: Tensor | None = None,
        groups: Tensor | None = None,
        epoch_size: int | None = None,
    ) -> None:
        self.dataset = Tensors(parts)
        self.weights, self.groups, self.epoch_size = weights, groups, epoch_size
        self._bytes = sum(part[:1].numel() * part.element_size() for part in parts)
        self.kinds = kinds
        self.blocks = tuple(blocks)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.batch_transforms = tuple(batch_transforms)
        self.epoch = 0
        self._skip = 0
        self._told, self._passes = False, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch."""
        self._told = True
        self.epoch = epoch

    def start_at(self, batch: int) -> None:
        """Leave out the batches before this one, once."""
        self.start_at_sample(batch * self.batch_size)

    def start_at_sample(self, sample: int) -> int:
        """Leave out the samples before this one, once; returns the batches that are left."""
        self._skip = sample
        return self._count(max(0, self.samples - sample))

    @property
    def samples(self) -> int:
        """Items of an epoch."""
        return (self.epoch_size if self.shuffle else None) or len(self.dataset)

    def __len__(self) -> int:
        return self._count(self.samples)

    def _count(self, samples: int) -> int:
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        skip, self._skip = self._skip, 0
        if not self._told:
            self.epoch, self._passes = self._passes, self._passes + 1
        return self._batches(skip)

    def first(self) -> tuple[Tensor, ...]:
        """The first batch, whatever was to be left out."""
        return next(self._batches(0))

    def order(self) -> Tensor:
        """The items of this epoch, in the order in which they come."""
        return order_of(
            len(self.dataset), self.seed, self.epoch, self.weights, self.groups, self.epoch_size
        )

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """Each part of these items, copied: who writes into a batch writes not into the data."""
        if isinstance(rows, slice):
            return [part[rows].clone() for part in self.dataset.parts]
        # index_select copies whole rows; indexing goes from element to element.
        return [part.index_select(0, rows.to(part.device)) for part in self.dataset.parts]

    def one_by_one(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        """Batches, each with an indexing operation for each part."""
        size, count = self.batch_size, self._count(self.samples - skip)
        rows = self.order()[skip:].split(size) if self.shuffle else None
        for batch in range(count):
            start = skip + batch * size
            yield tuple(self.taken(slice(start, start + size) if rows is None else rows[batch]))

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        size, count = self.batch_size, self._count(self.samples - skip)
        together = _AT_ONCE // max(1, size * self._bytes)
        if together < 2:
            yield from self.one_by_one(skip)
            return
        # Some batches at once, of which each is a part: what a batch costs is no more than a view.
        end = skip + count * size
        order = self.order()[:end] if self.shuffle else None
        for start in range(skip, end, together * size):
            last = min(start + together * size, end)
            rows = slice(start, last) if order is None else order[start:last]
            yield from zip(*[part.split(size) for part in self.taken(rows)], strict=True)
