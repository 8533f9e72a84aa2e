"""Loaders of ranges of longer tensors: windows of series, streams of tokens, texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus_data.errors import DataError
from trainbus_data.memory_loader import MemoryLoader
from trainbus_data.orders import bucketed


class WindowLoader(MemoryLoader):
    """Batches of windows of tensors: each is one indexing operation for each part.

    Args:
        parts: tensors T x ..., the steps along the first dimension.
        kinds: the kind of each.
        starts: where windows begin, N; they may overlap, and have to end before T does.
        length: steps of a window; or for each part (first, last): steps from `start + first` to
            before `start + last`.
        options: of `MemoryLoader`.
    """

    def __init__(
        self,
        parts: Sequence[Tensor],
        kinds: tuple[str, ...],
        starts: Tensor,
        length: int | Sequence[tuple[int, int]],
        **options: Any,
    ) -> None:
        each = [(0, length)] * len(parts) if isinstance(length, int) else list(length)
        if len(each) != len(parts):
            raise DataError(f"{len(each)} ranges for {len(parts)} parts")
        for number, (part, (first, last)) in enumerate(zip(parts, each, strict=True)):
            if len(starts) and (
                int(starts.min()) + first < 0 or int(starts.max()) + last > len(part)
            ):
                raise DataError(
                    f"part {number} has {len(part)} steps; the windows go from "
                    f"{int(starts.min()) + first} to {int(starts.max()) + last}"
                )
        super().__init__([starts], kinds, **options)
        self.series = tuple(parts)
        self._steps = [
            torch.arange(*span, device=p.device) for span, p in zip(each, parts, strict=True)
        ]

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """Each part of these windows, N x steps x ..."""
        starts = self.dataset.parts[0][rows]
        return [
            part[starts.to(part.device)[:, None] + steps]
            for part, steps in zip(self.series, self._steps, strict=True)
        ]


class BucketLoader(MemoryLoader):
    """Batches of sequences of unequal length, those of a batch of nearly the same, padded behind.

    A batch is (sequences N x the longest, lengths N, ...).

    Args:
        flat: all sequences one after the other, T x ...
        lengths: of each, N.
        parts: further parts, N x ...: targets.
        kinds: the kind of each part of a batch.
        padding: what stands behind shorter ones.
        options: of `MemoryLoader`.
    """

    def __init__(
        self,
        flat: Tensor,
        lengths: Tensor,
        parts: Sequence[Tensor],
        kinds: tuple[str, ...],
        padding: float = 0,
        **options: Any,
    ) -> None:
        if int(lengths.sum()) != len(flat):
            raise DataError(
                f"the lengths add up to {int(lengths.sum())}, but there are {len(flat)} steps"
            )
        super().__init__([lengths, *parts], kinds, **options)
        self.flat, self.padding = flat, padding
        self.starts = lengths.cumsum(0) - lengths

    def order(self) -> Tensor:
        """By length within pools of 50 batches."""
        order = super().order()
        lengths = self.dataset.parts[0]
        return bucketed(lengths, order, self.batch_size, self.seed, self.epoch)

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """The sequences, padded to the longest of them, and the other parts."""
        lengths, *others = [part[rows] for part in self.dataset.parts]
        steps = torch.arange(int(lengths.max()) if len(lengths) else 0)
        inside = steps < lengths[:, None]
        places = self.starts[rows][:, None] + steps
        made = self.flat[places.clamp(max=len(self.flat) - 1)]
        outside = ~inside.reshape(*inside.shape, *([1] * (made.ndim - 2)))
        return [made.masked_fill(outside, self.padding), lengths, *others]

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self.one_by_one(skip)
