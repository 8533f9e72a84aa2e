"""Where the items of a stage are, and the loaders that make batches of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from trainbus import Loader
from trainbus_data.blocks import Block
from trainbus_data.errors import DataError, message
from trainbus_data.orders import order_of
from trainbus_data.recipe import Recipe
from trainbus_data.transforms import Parts, transform_name
from trainbus_data.workers import (
    Failure,
    Reading,
    check_portable,
    is_portable,
    unseen_by_workers,
    watched,
)

#: An array of more numbers is no label: it is not kept.
_FEW = 1000

#: Batches are taken together up to so many bytes.
_AT_ONCE = 1 << 19

#: What a batch size that nobody named is between, and how many steps an epoch is to have.
SMALLEST_BATCH, LARGEST_BATCH, STEPS_OF_EPOCH = 8, 64, 20


class Items:
    """Raw items by index: `items[i]` gives a raw value for each part, and reads no file.

    Args:
        things: what the parts are made of: paths, rows, pairs.
        getters: a function of a thing for each part.
        root: a folder that is left out of the names of files in messages.
    """

    def __init__(
        self,
        things: Sequence[Any],
        getters: Sequence[Callable[[Any], Any]],
        root: Path | None = None,
    ) -> None:
        self.things = things
        self.getters = tuple(getters)
        self.root = root
        #: Parts that were taken already, by number.
        self.taken: dict[int, list[Any]] = {}

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, index: int) -> Parts:
        return tuple(self.raw(index, number) for number in range(len(self.getters)))

    def portable(self) -> Items:
        """The same for worker processes: what a local function gives is taken now, once.

        Arrays and images are not: those would all be in memory.
        """
        items = Items(self.things, self.getters, self.root)
        items.taken = dict(self.taken)
        for number, getter in enumerate(self.getters):
            if not is_portable(getter) and _is_plain(next(self.part(number), None)):
                items.taken[number] = list(self.part(number))
                items.getters = (*items.getters[:number], _taken, *items.getters[number + 1 :])
        return items

    def relabelled(self, labels: Mapping[int, Any]) -> Items:
        """The same items, some of them with another target."""
        if not labels:
            return self
        last = len(self.getters) - 1
        items = Items(self.things, (*self.getters[:last], _taken), self.root)
        items.taken = {**self.taken, last: list(self.part(last))}
        for index, label in labels.items():
            items.taken[last][index] = label
        return items

    def without(self, indices: Collection[int]) -> Items:
        """The items but these."""
        if not indices:
            return self
        kept = [index for index in range(len(self)) if index not in indices]
        items = Items([self.things[index] for index in kept], self.getters, self.root)
        items.taken = {
            number: [those[index] for index in kept] for number, those in self.taken.items()
        }
        return items

    def joined(self, other: Items) -> Items:
        """These items, and then those of another part of the same source."""
        items = Items([*self.things, *other.things], self.getters, self.root)
        for number in {*self.taken, *other.taken}:
            items.taken[number] = [*self.part(number), *other.part(number)]
        return items

    def raw(self, index: int, number: int) -> Any:
        """One part of an item."""
        taken = self.taken.get(number)
        return self.getters[number](self.things[index]) if taken is None else taken[index]

    def part(self, number: int) -> Iterator[Any]:
        """One part of all items; an error names the item."""
        for index, thing in enumerate(self.things):
            try:
                yield self.raw(index, number)
            except Exception as error:
                raise DataError(f"item {index} ({thing!r:.100}): {message(error)}") from error

    def describe(self, index: int) -> str:
        """The file of an item, or `item 17`."""
        try:
            raw = self.raw(index, 0)
        except Exception:  # whoever needs it raises the error
            raw = None
        if not isinstance(raw, (str, Path)):
            return f"item {index}"
        path = Path(raw)
        inside = self.root is not None and path.is_relative_to(self.root)
        return str(path.relative_to(self.root) if inside and self.root is not None else path)


def _is_plain(raw: Any) -> bool:
    """A name, a number, or a list of such: nothing that takes much memory."""
    if isinstance(raw, (list, tuple, set, frozenset)):
        return all(map(_is_plain, raw))
    if isinstance(raw, (np.ndarray, np.generic, Tensor)):  # a number, or a few points
        return math.prod(raw.shape) <= _FEW
    return raw is None or isinstance(raw, (str, Path, int, float))


def _taken(_thing: Any) -> Any:
    """Stands for a function whose values were taken."""
    raise RuntimeError("its values are in Items.taken")


class Tensors:
    """Encoded items in memory: for each part a tensor whose first dimension is the items'.

    Args:
        parts: the tensors.
        names: the items that they were made of, for messages.
    """

    def __init__(self, parts: Sequence[Tensor], names: Items | None = None) -> None:
        self.parts = tuple(parts)
        self.names = names

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, index: int) -> Parts:
        return tuple(part[index] for part in self.parts)

    def joined(self, other: Tensors) -> Tensors:
        """These items, and then the others."""
        parts = [torch.cat(both) for both in zip(self.parts, other.parts, strict=True)]
        names = None
        if self.names is not None and other.names is not None:
            names = self.names.joined(other.names)
        return Tensors(parts, names)

    def describe(self, index: int) -> str:
        """The file that an item came from, or `item 17`."""
        return f"item {index}" if self.names is None else self.names.describe(index)


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
        """Each part of these items, copied: a step that writes into a batch writes not into them."""
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


class ItemLoader(Loader):
    """Batches of items that are read when they are needed, by worker processes or here.

    Args:
        items: the raw items.
        recipe: how they become tensors.
        training: with the random transforms, in a new order for each epoch; or in order.
        stage: what messages call it.
        weights: how often each item is drawn in an epoch of training, in proportion to the others;
            by default each is, once.
        options: of `trainbus.Loader`.
    """

    def __init__(
        self,
        items: Items,
        recipe: Recipe,
        training: bool = False,
        stage: str = "train",
        batch_transforms: Sequence[Any] = (),
        weights: Tensor | None = None,
        **options: Any,
    ) -> None:
        self._encoded = _Encoded(items, recipe, training, stage, options.get("num_workers", 0))
        super().__init__(
            self._encoded,
            shuffle=training,
            seed_samples=training,
            collate_fn=_Collate(items, recipe, stage),
            **options,
        )
        if weights is not None:
            self.order: Any = _Drawn(weights, self.order.seed)
            self.batch_sampler.sampler = self.order  # type: ignore[union-attr]
        self.items = items
        self.recipe = recipe
        self.blocks = recipe.blocks[: len(items.getters)]
        self.kinds = tuple(block.kind for block in self.blocks)
        self.batch_transforms = tuple(batch_transforms)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.num_workers:
            check_portable(self._sent(), self.multiprocessing_context)
            self.recipe.prepare()
        with unseen_by_workers():
            batches = super().__iter__()
        while True:
            with watched(self._encoded.reading):
                batch = next(batches, None)
            if batch is None:
                return
            if type(batch) is Failure:
                # No variable holds the error: it would keep this frame, and so the workers, in a
                # cycle of references, and PyTorch takes 5 s to end each worker of such a loader.
                raise batch.error()
            yield batch

    def _sent(self) -> Iterator[tuple[str, Any]]:
        """What worker processes are given, by what it is."""
        for getter in self.items.getters:
            yield f"the function {getattr(getter, '__name__', repr(getter))} of an item", getter
        for transform in self.recipe.transforms:
            yield f"the item transform {transform_name(transform)}", transform
        for block in self.recipe.blocks:
            yield f"the block {block!r:.80}", block

    def first(self) -> tuple[Tensor, ...]:
        """The first batch, read in this process; whatever was to be left out."""
        size = self.batch_sampler.batch_size  # type: ignore[union-attr]
        skip, self.order.skip = self.order.skip, 0
        keys = list(islice(self.order, size))
        self.order.skip = skip
        batch: tuple[Tensor, ...] = self.collate_fn([self.dataset[key] for key in keys])
        return batch


class _Drawn:
    """The indices of an epoch, drawn with replacement, each with its epoch: see `trainbus.Loader`.

    Args:
        weights: of the items.
        seed: of the draw.
    """

    shuffle = True

    def __init__(self, weights: Tensor, seed: int) -> None:
        self.weights = weights
        self.size = len(weights)
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        indices = order_of(self.size, self.seed, self.epoch, self.weights).tolist()
        skip, self.skip = self.skip, 0
        return ((self.epoch, index) for index in indices[skip:])


class _Encoded(Dataset[Any]):
    """Items as tensors, each with its index."""

    def __init__(
        self, items: Items, recipe: Recipe, training: bool, stage: str, workers: int = 0
    ) -> None:
        self.items = items
        self.recipe = recipe
        self.training = training
        self.stage = stage
        #: What each worker is at, for the message if it ends.
        self.reading = Reading(partial(where, items, stage=stage), workers) if workers else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if self.reading is not None:
            self.reading.note(index)
        try:
            return index, encode_item(self.items, index, self.recipe, self.training, self.stage)
        except DataError as error:
            if get_worker_info() is None:
                raise
            return Failure(error)


class _Collate:
    """A batch of what `_Encoded` gives."""

    def __init__(self, items: Items, recipe: Recipe, stage: str) -> None:
        self.items = items
        self.recipe = recipe
        self.stage = stage

    def __call__(self, encoded: Sequence[Any]) -> Any:
        for each in encoded:
            if type(each) is Failure:
                return each

        def name(number: int) -> str:
            return where(self.items, encoded[number][0], self.stage)

        try:
            return self.recipe.collate([parts for _, parts in encoded], name)
        except DataError as error:
            if get_worker_info() is None:
                raise
            return Failure(error)


def encode_item(items: Items, index: int, recipe: Recipe, training: bool, stage: str) -> Parts:
    """One item as tensors; an error names the item, its file and the step."""
    try:
        raws = items[index]
    except Exception as error:
        raise DataError(
            f"{where(items, index, stage)}: taking its parts: {message(error)}"
        ) from error
    try:
        return recipe.encode(raws, training)
    except DataError as error:
        raise DataError(f"{where(items, index, stage)}: {error}") from error


def where(items: Items | Tensors, index: int, stage: str) -> str:
    """`item 17 of train (ants/17.jpg)`."""
    name = items.describe(index)
    more = "" if name == f"item {index}" else f" ({name})"
    return f"item {index} of {stage}{more}"


def default_workers(items: int, batch_size: int) -> int:
    """Worker processes for items that are read: one for each core, at most 8, none for few."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 8, items // max(batch_size, LARGEST_BATCH))


def usual_batch_size(items: int) -> int:
    """A power of two, from 8 to 64, with which an epoch has 20 steps, if it can have them.

    Smaller batches would be too few for batch normalization, and larger ones are no faster on most
    devices.
    """
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and items < STEPS_OF_EPOCH * size:
        size //= 2
    return size
