"""DataBlock: how a source becomes Data, said once and used for any source."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.errors import nearest
from trainbus_data import splits
from trainbus_data.balance import Balance
from trainbus_data.blocks import Block
from trainbus_data.cleaning import cleaned
from trainbus_data.container import BatchTransform, Store
from trainbus_data.errors import DataError, message
from trainbus_data.items import Items, where
from trainbus_data.memory import in_memory
from trainbus_data.reading import unreadable_in
from trainbus_data.recipe import Recipe
from trainbus_data.sources import parent_folder
from trainbus_data.words import names_checked

if TYPE_CHECKING:
    from trainbus_data.data import Data

logger = logging.getLogger("trainbus")
Getter = Callable[[Any], Any]
_UNREADABLE = ("refuse", "skip", "list")
_STAGES = ("train", "valid", "test")


class DataBlock:
    """What items are, where they come from, how they are split and labelled.

    Args:
        blocks: what the parts of an item are, inputs first: `(Number(8), Category())`.
        items: a function of the source that gives the items; by default the source is a sequence
            of them.
        split: see `trainbus_data.splits`; `splits.random()` by default.
        input: a function of an item that gives the raw input, or several; by default the item.
        label: a function of an item that gives the raw target, or several; by default the name
            of the folder that a file is in.
        item_transforms: see `Recipe`.
        batch_transforms: see `Data`.
        inputs: how many of the blocks are inputs.
    """

    @names_checked()
    def __init__(
        self,
        blocks: Sequence[Block],
        items: Callable[[Any], Sequence[Any]] | None = None,
        split: splits.Split | None = None,
        input: Getter | Sequence[Getter] | None = None,
        label: Getter | Sequence[Getter] | None = None,
        item_transforms: Sequence[Any] = (),
        batch_transforms: Sequence[BatchTransform] = (),
        inputs: int = 1,
    ) -> None:
        self.recipe = Recipe(blocks, inputs, item_transforms)
        self.items = items
        self.split = splits.checked(split) or splits.random()
        targets = len(self.recipe.blocks) - inputs
        self.getters = (
            *_getters("input", input or _itself, inputs),
            *_getters("label", label or parent_folder, targets),
        )
        self.batch_transforms = tuple(batch_transforms)

    @names_checked()
    def data(
        self,
        source: Any,
        *,
        batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        drop_last: bool | None = None,
        memory: bool = False,
        unreadable: str = "refuse",
        name: str | None = None,
        sampling: Balance | None = None,
        clean: Any = None,
    ) -> Data:
        """Find, split and check the items of a source, and set up the blocks.

        Args:
            source: a folder, a table, a list: what `items` takes.
            batch_size: samples in a batch; by default 64, or fewer for few items; see `Data`.
            num_workers: see `Data`.
            seed: of the order of training.
            drop_last: see `Data`.
            memory: read every item once, now, and keep it as a tensor.
            unreadable: what is done with files that cannot be read. "refuse": an error when one
                is reached. "skip": all are read once, now, and those left out that cannot be,
                with a warning. "list": all are read once, now, and an error lists those.
            name: of the data, in the names of runs; by default that of a folder or file.
            sampling: see `Data`.
            clean: a table of files to drop or to relabel: see `trainbus_data.cleaning.cleaned`.
        """
        if unreadable not in _UNREADABLE:
            raise DataError(
                f"unreadable={unreadable!r} is none of {', '.join(_UNREADABLE)}"
                f"{nearest(str(unreadable), _UNREADABLE)}"
            )
        from trainbus_data.data import Data  # it is made of blocks like this one

        recipe = copy.copy(self.recipe)
        recipe.blocks = copy.deepcopy(self.recipe.blocks)
        parts = self.find(source)
        if clean is not None:
            parts = cleaned(parts, clean)
        if unreadable != "refuse":
            parts = _readable(parts, recipe, skip=unreadable == "skip")
        parts = {stage: items.portable() for stage, items in parts.items()}
        set_up(recipe, parts)
        stores: dict[str, Store] = dict(parts)
        if memory:
            stores = {stage: in_memory(items, recipe, stage) for stage, items in parts.items()}
        return Data(
            recipe,
            stores["train"],
            stores.get("valid"),
            stores.get("test"),
            batch_size=batch_size,
            batch_transforms=self.batch_transforms,
            num_workers=num_workers,
            seed=seed,
            drop_last=drop_last,
            name=name if name is not None else _name(source),
            sampling=sampling,
        )

    def find(self, source: Any) -> dict[str, Items]:
        """The items of each stage."""
        things = source if self.items is None else self.items(source)
        if not hasattr(things, "__getitem__") or not hasattr(things, "__len__"):
            things = list(things)
        if not len(things):
            raise DataError(f"there are no items in {source!r:.200}")
        parts = self.split(things, self._label)
        root = Path(source) if isinstance(source, (str, Path)) else None
        found = {}
        for stage, indices in zip(_STAGES, parts, strict=False):
            if not indices and stage == "valid":
                splits.say_all_are_trained_on(self.split, len(things))
                continue
            if not indices and stage == "train":
                raise DataError(
                    f"the {stage} part is empty: the split puts none of the {len(things)} items "
                    "into it"
                )
            found[stage] = Items([things[index] for index in indices], self.getters, root)
        _check_apart(found, self.recipe)
        return found

    def _label(self, thing: Any) -> Any:
        """The label of an item, for splits that go by it; an error names the item."""
        try:
            return self.getters[-1](thing)
        except Exception as error:
            raise DataError(f"{thing!s:.200}: getting the label: {message(error)}") from error

    def summary(self, source: Any) -> str:
        """What happens to a source and to one sample of it, as text; up to an error, if any."""
        lines = []
        try:
            things = source if self.items is None else self.items(source)
            lines.append(f"source: {len(things)} items, the first is {things[0]!r:.100}")
            return "\n".join([*lines, self.data(source, num_workers=0).summary()])
        except DataError as error:
            return "\n".join([*lines, f"FAILED: {error}"])


def _readable(parts: dict[str, Items], recipe: Recipe, skip: bool) -> dict[str, Items]:
    found = {stage: unreadable_in(items, recipe, stage) for stage, items in parts.items()}
    problems = [problem for those in found.values() for _, problem in those]
    if not problems:
        return parts
    listing = "\n".join(f"- {problem}" for problem in problems)
    if not skip:
        raise DataError(f"{len(problems)} items cannot be read:\n{listing}")
    logger.warning("%d items cannot be read and are left out:\n%s", len(problems), listing)
    kept = {}
    for stage, items in parts.items():
        kept[stage] = items.without({index for index, _ in found[stage]})
    return kept


def set_up(recipe: Recipe, parts: dict[str, Items]) -> None:
    """Let the blocks learn from the training part, and check what can be without reading files.

    Raises:
        DataError: with the first item that has a problem, and how many have.
    """
    for number, block in enumerate(recipe.blocks):
        raws = _Raws(parts["train"], number)
        try:
            block.setup(raws)
        except Exception as error:
            raise DataError(
                f"setting up {type(block).__name__}: {raws.place}{message(error)}"
            ) from error
    for stage, items in parts.items():
        for number, block in enumerate(recipe.blocks):
            check(block, items, number, stage)


def check(block: Block, items: Items, number: int, stage: str) -> None:
    """Refuse items with a problem in one of their parts."""
    if type(block).problem is Block.problem:
        return
    first, count = "", 0
    for index, raw in enumerate(items.part(number)):
        problem = block.problem(raw)
        if problem is not None:
            first = first or f"{where(items, index, stage)}: {problem}"
            count += 1
    if count > 1:
        first += f" ({count} of the {len(items)} items of {stage} have such a problem)"
    if count:
        raise DataError(first)


def _check_apart(parts: dict[str, Items], recipe: Recipe) -> None:
    """Say it once if a file is in training and in another part, where it measures nothing."""
    if not recipe.input.is_file:
        return
    trained = {raw for raw in parts["train"].part(0) if isinstance(raw, (str, Path))}
    for stage, items in parts.items():
        if stage == "train" or not trained:
            continue
        both = [raw for raw in items.part(0) if isinstance(raw, (str, Path)) and raw in trained]
        if both:
            logger.warning(
                "%d files are in training and in %s, %s for example: what is measured there is "
                "known from training (splits.by_group keeps items of one file together)",
                len(set(both)), stage, both[0],
            )  # fmt: skip


class _Raws:
    """One part of all items, and which of them is being looked at."""

    def __init__(self, items: Items, number: int) -> None:
        self.items = items
        self.number = number
        #: `item 17 of train (17.png): `, or nothing when none is.
        self.place = ""

    def __iter__(self) -> Iterator[Any]:
        for index, raw in enumerate(self.items.part(self.number)):
            self.place = f"{where(self.items, index, 'train')}: "
            yield raw
        self.place = ""


def _getters(option: str, given: Getter | Sequence[Getter], count: int) -> tuple[Getter, ...]:
    getters = tuple(given) if isinstance(given, Sequence) else (given,)
    if len(getters) != count:
        raise DataError(f"{option}: {len(getters)} functions for {count} blocks; give one for each")
    return getters


def _name(source: Any) -> str:
    return Path(source).resolve().stem if isinstance(source, (str, Path)) else ""


def _itself(item: Any) -> Any:
    return item
