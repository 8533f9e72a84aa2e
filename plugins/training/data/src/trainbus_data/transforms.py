"""Transforms of whole items: what they can be, and how they are kept.

A transform is called with the parts of an item and their kinds, and returns the parts. Random ones
draw from the global generators, which `trainbus.Loader` seeds for each sample.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from trainbus_data.errors import DataError

Parts = tuple[Any, ...]
Kinds = tuple[str, ...]
Transform = Callable[[Parts, Kinds], Parts]


class ItemTransform:
    """What transforms of items can be: random in training, another in validation, and kept.

    `options` are the JSON values that the constructor takes.
    """

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """The parts, transformed."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(parts, kinds)")

    def for_validation(self) -> Transform | None:
        """What is done in its place outside of training; None for nothing."""
        return self

    def for_blocks(self, blocks: Sequence[Any]) -> Transform:
        """What is done to items of these blocks: itself, or one that knows more of them."""
        return self

    @property
    def is_random(self) -> bool:
        """Whether training sees something else than validation."""
        return self.for_validation() is not self

    @property
    def fits_memory(self) -> bool:
        """Whether items that are read once may go through it, as they do in validation."""
        return not self.is_random

    def options(self) -> dict[str, Any]:
        """JSON values that make an equal one of the constructor."""
        return {}

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self)).parameters
        given = (
            f"{name}={value!r}"
            for name, value in self.options().items()
            if name not in defaults or defaults[name].default not in (value, _tuple(value))
        )
        return f"{type(self).__name__}({', '.join(given)})"


def for_validation(transform: Transform) -> Transform | None:
    """What is done outside of training; a plain function is done everywhere."""
    return transform.for_validation() if isinstance(transform, ItemTransform) else transform


def transform_name(transform: Transform) -> str:
    """What a transform is called in messages."""
    if isinstance(transform, ItemTransform):
        return repr(transform)
    return getattr(transform, "__name__", type(transform).__name__)


def transform_state(transform: Transform) -> dict[str, Any]:
    """JSON values that describe a transform.

    Raises:
        DataError: it is a function.
    """
    if not isinstance(transform, ItemTransform):
        raise DataError(
            f"the item transform {transform_name(transform)} is a function, which cannot be kept "
            "with a model; make it a subclass of trainbus_data.ItemTransform"
        )
    return {"transform": type(transform).__name__, **transform.options()}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
