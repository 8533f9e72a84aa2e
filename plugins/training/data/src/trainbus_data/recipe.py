"""Recipe: all that turns raw things into tensors and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor

from trainbus.errors import TrainbusError, nearest
from trainbus.plugins.options import Given, types_of, validated
from trainbus_data.blocks import Block
from trainbus_data.errors import DataError, message
from trainbus_data.labels import Categories, Category, Labels, Number
from trainbus_data.transforms import (
    ItemTransform,
    Parts,
    Transform,
    for_validation,
    transform_name,
    transform_state,
)

#: Where installed distributions list the classes of blocks and transforms that a state may name.
GROUP = "trainbus.recipes"
#: Makes of a predicted value what a person is shown.
Restore = Callable[[Tensor], Any]
_OWN = {each.__name__: each for each in (Categories, Category, Labels, Number)}


class Recipe:
    """Blocks, how many of them are inputs, and the transforms of items.

    Args:
        blocks: what the parts of an item are, inputs first.
        inputs: how many of them a model is given.
        transforms: of whole items, in order: `t(parts, kinds) -> parts`.
    """

    def __init__(
        self, blocks: Sequence[Block], inputs: int = 1, transforms: Sequence[Transform] = ()
    ) -> None:
        given: tuple[Any, ...] = tuple(blocks)
        for block in given:
            if not isinstance(block, Block):
                hint = f"; write {block.__name__}()" if isinstance(block, type) else ""
                raise DataError(f"{block!r} is not a block{hint}")
        if not 1 <= inputs < len(given):
            raise DataError(
                f"inputs={inputs} of {len(given)} blocks; give one input or more, then one "
                "target or more, as (Image(), Category())"
            )
        self.blocks: tuple[Block, ...] = given
        self.inputs = inputs
        self.transforms = tuple(
            each.for_blocks(given) if isinstance(each, ItemTransform) else each
            for each in transforms
        )
        self.validation_transforms = tuple(
            kept for each in self.transforms if (kept := for_validation(each)) is not None
        )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each part."""
        return tuple(block.kind for block in self.blocks)

    @property
    def input(self) -> Block:
        """The first block."""
        return self.blocks[0]

    @property
    def target(self) -> Block:
        """The last block; or what the targets are together."""
        first, *others = self.blocks[self.inputs :]
        return first.together(others)

    def prepare(self) -> None:
        """Import what reading needs, once, before worker processes would do so each."""
        for block in self.blocks:
            block.prepare()

    # --- one item ------------------------------------------------------------------------------

    def steps(self, raws: Parts, training: bool = False) -> Iterator[tuple[Any, Parts]]:
        """Follow one item: each step ("read", or a transform), and the parts after it.

        Args:
            raws: a raw value for each block, or for each input alone.
            training: with the random transforms, or as in validation.

        Raises:
            DataError: a step failed; the message names it.
        """
        blocks = self.blocks[: len(raws)]
        encoded = []
        for block, raw in zip(blocks, raws, strict=True):
            try:
                encoded.append(block.encode(raw))
            except Exception as error:
                raise DataError(f"reading the {block.kind}: {message(error)}") from error
        parts = tuple(encoded)
        kinds = tuple(block.kind for block in blocks)
        self.check(parts)
        yield "read", parts
        for transform in self.transforms if training else self.validation_transforms:
            try:
                parts = tuple(transform(parts, kinds))
            except Exception as error:
                raise DataError(f"{transform_name(transform)}: {message(error)}") from error
            yield transform, parts

    def check(self, parts: Parts) -> None:
        """Refuse encoded parts of an item, or of a batch, that do not fit each other.

        Raises:
            DataError: with what one of the blocks says.
        """
        kinds = self.kinds[: len(parts)]
        for block, part in zip(self.blocks, parts, strict=False):
            if misfit := block.misfit(part, parts, kinds):
                raise DataError(f"the {block.kind}: {misfit}")

    def encode(self, raws: Parts, training: bool = False) -> Parts:
        """One item as tensors, through all steps."""
        return deque(self.steps(raws, training), maxlen=1)[0][1]

    def encode_input(self, raw: Any) -> Any:
        """One item without its target, as in validation: a tensor, or a tuple of several inputs."""
        parts = self.encode(self.input_parts(raw))
        return parts[0] if self.inputs == 1 else parts

    def encode_placed(self, raw: Any) -> tuple[Parts, Restore]:
        """The inputs of one item, and what brings a prediction for it back to its own places.

        A target that lies in the picture of the input is predicted in pixels of what the model
        sees. The corners of the input go through the transforms as a part of the kind "corners".
        """
        steps = [parts for _, parts in self.steps(self.input_parts(raw))]
        before, parts, decode = steps[0], steps[-1], self.target.decode
        corners = self.input.corners(before[0]) if self.target.in_picture else None
        if corners is None:
            return parts, decode
        moved: Parts = (*before, corners)
        kinds = (*self.kinds[: self.inputs], "corners")
        try:
            for transform in self.validation_transforms:
                moved = tuple(transform(moved, kinds))
        except Exception:  # one that was not made for a further part
            return parts, decode
        seen = moved[self.inputs] if len(moved) == len(kinds) else corners
        if seen is corners and parts[0].shape != before[0].shape:
            return parts, decode  # one that does not know how it moves places
        width, height = corners[1].tolist()
        return parts, partial(self.target.restored, corners=seen, size=(width, height))

    def input_parts(self, raw: Any) -> Parts:
        """A raw input as a tuple: as it is where there are several inputs."""
        if self.inputs == 1:
            return (raw,)
        if not isinstance(raw, (tuple, list)) or len(raw) != self.inputs:
            raise DataError(f"an item has {self.inputs} inputs; give them as a tuple, not {raw!r}")
        return tuple(raw)

    # --- batches -------------------------------------------------------------------------------

    def collate(
        self, items: Sequence[Parts], name: Callable[[int], str] = "item {} of the batch".format
    ) -> tuple[Tensor, ...]:
        """A batch of encoded items: a tensor for each part.

        Raises:
            DataError: a part has not the same shape or type in all; the message names two items.
        """
        batch = []
        for number, block in enumerate(self.blocks[: len(items[0])]):
            values = [item[number] for item in items]
            if not block.same_shape(values):
                raise DataError(_differ(block, values, name))
            odd = next((n for n, each in enumerate(values) if each.dtype != values[0].dtype), None)
            if odd is not None:  # torch would make one type of both, and of bytes wrong floats
                raise DataError(
                    f"the {block.kind} is of the type {type_text(values[0])} in {name(0)}, but "
                    f"{type_text(values[odd])} in {name(odd)}; give all in one"
                )
            batch.append(block.batch(values))
        return tuple(batch)

    # --- to keep -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON values from which `from_state` makes what predictions need.

        Raises:
            DataError: a transform is a function, which cannot be kept.
        """
        return {
            "inputs": self.inputs,
            "blocks": [block.state() for block in self.blocks],
            "transforms": [transform_state(each) for each in self.validation_transforms],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], known: Sequence[type] = ()) -> Recipe:
        """The recipe that `state` described.

        Args:
            state: what `Recipe.state` gave.
            known: your own classes, blocks and transforms, that it names.
        """
        return cls(
            [block_from_state(each, known) for each in state["blocks"]],
            state["inputs"],
            [_made("transform", each, known) for each in state["transforms"]],
        )

    def __repr__(self) -> str:
        inputs, targets = self.blocks[: self.inputs], self.blocks[self.inputs :]
        steps = ", ".join(map(transform_name, self.transforms))
        return f"Recipe({inputs} -> {targets}" + (f", {steps})" if steps else ")")


def block_from_state(state: Mapping[str, Any], known: Sequence[type] = ()) -> Block:
    """The block that `Block.state` described; your own classes are given as `known`.

    Raises:
        DataError: its class is neither offered by an installed distribution nor known.
    """
    made: Block = _made("block", state, known)
    return made


def _made(what: str, state: Mapping[str, Any], known: Sequence[type]) -> Any:
    """An object of the class that a state names, which is never imported by that name alone."""
    options = dict(state)
    name = str(options.pop(what, None))
    classes: dict[str, type] = {**_OWN, **{each.__name__: each for each in known}}
    if name in classes:
        return _of_options(classes[name], options)
    offered = entry_points(group=GROUP)
    if name in offered.names:
        return _of_options(offered[name].load(), options)
    raise DataError(
        f"a {what} of the class {name!r} is not known{nearest(name, {*classes, *offered.names})} "
        "Give your own classes as known=[...]"
    )


def _of_options(kind: Any, options: Mapping[str, Any]) -> Any:
    """An object of the options that a file gives, each of which is of its type."""
    types, name = types_of(kind), kind.__name__
    for key, value in options.items():
        validated(f"{name}({key}=...)", Given(value, "a state"), types.get(key, Any), DataError)
    try:
        return kind(**options)
    except TrainbusError:
        raise
    except Exception as error:  # an option that it does not have, or that it cannot be made of
        raise DataError(f"{name} cannot be made of {dict(options)!r:.200}: {error}") from error


def _differ(block: Block, values: Sequence[Tensor], name: Callable[[int], str]) -> str:
    first = values[0].shape
    other = next(number for number, value in enumerate(values) if value.shape != first)
    hint = f"; {block.shape_hint}" if block.shape_hint else ""
    return (
        f"the {block.kind} is {shape_text(values[0])} in {name(0)}, but "
        f"{shape_text(values[other])} in {name(other)}, and they are in one batch{hint}"
    )


def type_text(value: Tensor) -> str:
    """`uint8`."""
    return str(value.dtype).removeprefix("torch.")


def shape_text(value: Tensor) -> str:
    """`3 x 160 x 213`."""
    return " x ".join(map(str, value.shape)) or "a single value"
