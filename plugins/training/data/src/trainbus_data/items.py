"""Where the items of a stage are: in files by index, or as tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data.errors import DataError, message
from trainbus_data.transforms import Parts
from trainbus_data.workers import is_portable

#: An array of more numbers is no label: it is not kept.
_FEW = 1000


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


def where(items: Items | Tensors, index: int, stage: str) -> str:
    """`item 17 of train (ants/17.jpg)`."""
    name = items.describe(index)
    more = "" if name == f"item {index}" else f" ({name})"
    return f"item {index} of {stage}{more}"
