"""Batches of items that are read when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from trainbus import Loader
from trainbus_data.errors import DataError, message
from trainbus_data.items import Items, where
from trainbus_data.orders import order_of
from trainbus_data.recipe import Recipe
from trainbus_data.transforms import Parts, transform_name
from trainbus_data.workers import (
    Failure,
    Reading,
    check_portable,
    unseen_by_workers,
    watched,
)


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
