"""The container: loaders for training, validation and test, and the recipe that they follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from trainbus.arguments import check_whole
from trainbus.errors import nearest
from trainbus_data.balance import Balance, class_counts, item_weights
from trainbus_data.blocks import Block
from trainbus_data.errors import DataError
from trainbus_data.item_loader import ItemLoader, encode_item
from trainbus_data.items import Items, Tensors
from trainbus_data.memory_loader import MemoryLoader
from trainbus_data.plugin import apply_batch_transforms
from trainbus_data.reading import unreadable_in
from trainbus_data.recipe import Recipe
from trainbus_data.sizes import default_workers, usual_batch_size
from trainbus_data.summary import summary_of
from trainbus_data.survey import surveyed
from trainbus_data.transforms import Parts

AnyLoader = ItemLoader | MemoryLoader
Store = Items | Tensors
BatchTransform = Callable[[Parts, tuple[str, ...]], Parts]


class Container:
    """Loaders for training, validation and test, and the recipe that they follow.

    A batch is a plain tuple of tensors, inputs first. See `Data`, which says how it is made.

    Args:
        recipe: blocks that are set up, and transforms of items.
        train: the items of training.
        valid: the items of validation; None if all are for training.
        test: the items of the test, if there are any.
        batch_size: samples in a batch; by default 64, or so many fewer, down to 8, that an epoch
            has 20 steps.
        batch_transforms: functions of (parts of a placed batch, kinds) that give parts, for every
            stage; the plugin `data` applies them.
        num_workers: processes that read items; by default as many as cores, at most 8, and none
            for data in memory.
        seed: of the order of training, and of its random transforms.
        drop_last: leave out a last batch of training that is not full; by default only where it
            would be a single sample, with which batch normalization cannot train.
        name: what they are called, in the names of runs.
        sampling: "balanced" draws the items of training with replacement, so that all labels occur
            equally often; {label: weight} draws those of a label so many times as often. An epoch
            has as many items as without it.
    """

    def __init__(
        self,
        recipe: Recipe,
        train: Store,
        valid: Store | None,
        test: Store | None = None,
        *,
        batch_size: int | None = None,
        batch_transforms: Sequence[BatchTransform] = (),
        num_workers: int | None = None,
        seed: int = 0,
        drop_last: bool | None = None,
        name: str = "",
        sampling: Balance | None = None,
    ) -> None:
        #: Whether the batch size follows from the number of items.
        self.batch_size_by_rule = batch_size is None
        if batch_size is None:
            batch_size = usual_batch_size(len(train))
        check_whole(1, DataError, batch_size=batch_size)
        check_whole(0, DataError, seed=seed)
        if num_workers is not None:
            check_whole(0, DataError, num_workers=num_workers)
        self.recipe = recipe
        self.name = name
        self.batch_size = batch_size
        self.batch_transforms = tuple(batch_transforms)
        self.train_items, self.valid_items, self.test_items = train, valid, test
        self._num_workers = num_workers
        self._seed = seed
        self._drop_last = drop_last
        self._sampling = sampling
        for stage, items in (("train", train), ("valid", valid)):
            if items is not None and not len(items):
                raise DataError(f"the {stage} part is empty: check the split and the source")
        if drop_last is None:
            drop_last = 1 < batch_size < len(train) and len(train) % batch_size == 1
        if drop_last and batch_size > len(train):
            raise DataError(
                f"batch_size={batch_size} with drop_last leaves no batch: train has {len(train)} "
                "items"
            )
        weights = None if sampling is None else item_weights(train, self.target, sampling)
        self.train: AnyLoader = self._loader(train, "train", drop_last, weights)
        self.valid: AnyLoader | None = None if valid is None else self._loader(valid, "valid")
        self.test: AnyLoader | None = None if test is None else self._loader(test, "test")
        #: What of the targets does not count; None where everything does.
        self.survey = surveyed(recipe, train)
        if any(type(block).see is not Block.see for block in recipe.blocks):
            self._show_batch()

    def _loader(
        self,
        store: Store,
        stage: str,
        drop_last: bool = False,
        weights: Tensor | None = None,
    ) -> AnyLoader:
        training = stage == "train"
        if isinstance(store, Tensors):
            return MemoryLoader(
                store.parts,
                self.kinds,
                self.batch_size,
                shuffle=training,
                drop_last=drop_last,
                seed=self._seed,
                batch_transforms=self.batch_transforms,
                blocks=self.blocks,
                weights=weights,
            )
        workers = self._num_workers
        if workers is None:
            workers = default_workers(len(store), self.batch_size)
        return ItemLoader(
            store,
            self.recipe,
            training,
            stage,
            self.batch_transforms,
            weights,
            batch_size=self.batch_size,
            drop_last=drop_last,
            seed=self._seed,
            num_workers=workers,
            persistent_workers=workers > 0 and stage != "predict",
            pin_memory=torch.accelerator.is_available(),
        )

    def _show_batch(self) -> None:
        """Let blocks that learn from a batch see one, as validation has it."""
        store = self.train_items if self.valid_items is None else self.valid_items
        if isinstance(store, Tensors):
            parts = store[0]
        else:
            parts = encode_item(store, 0, self.recipe, False, "valid")
        batch = apply_batch_transforms(self.recipe.collate([parts]), self.train)
        for block in self.blocks:
            block.see(batch, self.kinds)

    # --- what it is ----------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[Block, ...]:
        """What the parts of an item are."""
        return self.recipe.blocks

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each part."""
        return self.recipe.kinds

    @property
    def input(self) -> Block:
        """The first part."""
        return self.recipe.input

    @property
    def target(self) -> Block:
        """The last part."""
        return self.recipe.target

    @property
    def vocab(self) -> list[Any] | None:
        """The labels of the target, in the order of a model's outputs, if it has any."""
        return getattr(self.target, "vocab", None)

    def items(self, stage: str) -> Store:
        """The items of "train", "valid" or "test", by index."""
        stores = {"train": self.train_items, "valid": self.valid_items, "test": self.test_items}
        if stage not in stores:
            raise DataError(f"there is no stage {stage!r}{nearest(stage, stores)}")
        store = stores[stage]
        if store is None:
            raise DataError(f"there is no {stage} part")
        return store

    def describe(self, stage: str, index: int) -> str:
        """The file of an item, or `item 17`."""
        return self.items(stage).describe(index)

    # --- batches -------------------------------------------------------------------------------

    def loader(self, items: Any) -> ItemLoader:
        """Batches of inputs without targets, in order, as in validation: for prediction.

        Args:
            items: raw inputs (paths, arrays, rows of a tensor); tuples of them where a
                model has several inputs.
        """
        things = items if hasattr(items, "__len__") else list(items)
        if not len(things):
            raise DataError("there are no items to predict")
        inputs = self.recipe.inputs
        getters = [_itself] if inputs == 1 else [itemgetter(number) for number in range(inputs)]
        loader = self._loader(Items(things, getters), "predict")
        assert isinstance(loader, ItemLoader)
        return loader

    def one_batch(self, stage: str = "train") -> tuple[Tensor, ...]:
        """The first batch of a stage, after the batch transforms, on the CPU.

        It is read in this process, and leaves the loader where it is.
        """
        self.items(stage)  # an error for a stage that is none
        loader: Any = getattr(self, stage)
        batch: tuple[Tensor, ...] = apply_batch_transforms(loader.first(), loader)
        return batch

    def part(self, stage: str, indices: Sequence[int]) -> AnyLoader:
        """Batches of these items of a stage, in this order, as in validation."""
        store = self.items(stage)
        if isinstance(store, Items):
            chosen = [_Indexed(store, index) for index in indices]
            getters = [partial(_part, number) for number in range(len(store.getters))]
            return self._loader(Items(chosen, getters, store.root), "predict")
        picked = torch.as_tensor(indices)
        parts = [part[picked.to(part.device)] for part in store.parts]
        return self._loader(Tensors(parts), "predict")

    def class_counts(self, stage: str = "train") -> dict[Any, int]:
        """How many items have each label; of masks, how many pixels (those in files are read)."""
        counts = class_counts(self.items(stage), self.target)
        words = (self.vocab or [])[: len(counts)]
        return {word: int(count) for word, count in zip(words, counts, strict=True)}

    def all_for_training(self) -> Self:
        """The same data without a validation part: its items are trained on, too.

        For the last run, when there is nothing left to choose. The test part stays what it is.
        """
        if self.valid_items is None:
            return self
        both: Any = self.train_items
        return self._again(train=both.joined(self.valid_items), valid=None)

    def with_batch_size(self, batch_size: int) -> Self:
        """The same items and recipe in batches of another size."""
        return self._again(batch_size=batch_size)

    def _again(self, **changed: Any) -> Self:
        """The same data, with some arguments changed."""
        given: dict[str, Any] = {
            "train": self.train_items,
            "valid": self.valid_items,
            "test": self.test_items,
            "batch_size": None if self.batch_size_by_rule else self.batch_size,
            "batch_transforms": self.batch_transforms,
            "num_workers": self._num_workers,
            "seed": self._seed,
            "drop_last": self._drop_last,
            "sampling": self._sampling,
            "name": self.name,
        }
        return type(self)(self.recipe, **{**given, **changed})

    def summary(self) -> str:
        """What happens to one sample of training, step by step, as text."""
        stores = {"train": self.train_items, "valid": self.valid_items, "test": self.test_items}
        counts = "" if self.survey is None else f"\n{self.target.kind} {self.survey}"
        return summary_of(self.recipe, stores, self.train) + counts

    def unreadable(self) -> list[str]:
        """Read every file of all stages, in threads, and name what cannot be read."""
        found = []
        for stage in ("train", "valid", "test"):
            store = getattr(self, f"{stage}_items")
            if isinstance(store, Items):
                problems = unreadable_in(store, self.recipe, stage)
                found += [problem for _, problem in problems]
        return found

    def __repr__(self) -> str:
        stores = {"train": self.train_items, "valid": self.valid_items, "test": self.test_items}
        sizes = [f"{stage} {len(store)}" for stage, store in stores.items() if store is not None]
        said = f"{', '.join(sizes)}, batch_size={self.batch_size}, {self.recipe!r}"
        return f"{type(self).__name__}({said})"


class _Indexed(NamedTuple):
    """An item of a stage."""

    items: Items
    place: int


def _part(number: int, item: _Indexed) -> Any:
    return item.items.raw(item.place, number)


def _itself(thing: Any) -> Any:
    return thing
