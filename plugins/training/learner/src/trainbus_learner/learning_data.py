"""What a learner trains on: a `Data` of trainbus_data, or a pair of loaders, seen as one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from trainbus import UsageError
from trainbus_learner.plain import PlainInput, PlainTarget

Loss = Callable[[Any, Any], torch.Tensor]


class Source:
    """The loaders and the blocks of a learner's data.

    Args:
        data: a `Data`, or a training loader, or (training loader, validation loader or None).
        loss: the loss given to the learner, or None.

    Raises:
        UsageError: it is neither, or a pair without a loss.
    """

    def __init__(self, data: Any, loss: Loss | str | None) -> None:
        #: The `Data`, or None.
        self.data = data if hasattr(data, "recipe") else None
        if self.data is not None:
            recipe = self.data.recipe
            self.train, self.valid = data.train, data.valid
            self.test = getattr(data, "test", None)
            self.recipe: Any = recipe
            self.inputs: int | None = recipe.inputs
            self.kinds: tuple[str, ...] = tuple(recipe.kinds)
            self.input_blocks: list[Any] = list(recipe.blocks[: recipe.inputs])
            self.target: Any = recipe.target
            #: Makes one target of several that belong together.
            self._pack: Callable[[Sequence[Any]], Any] | None = getattr(self.target, "pack", None)
            self.batch_transforms: Sequence[Any] = tuple(getattr(data, "batch_transforms", ()))
            return
        pair = data if isinstance(data, (tuple, list)) and _are_loaders(data) else (data, None)
        if not _is_loader(pair[0]):
            raise UsageError(
                f"Learner(data={data!r:.80}): give a Data of trainbus_data, or a pair (training "
                "loader, validation loader) with loss="
            )
        if loss is None:
            raise UsageError(
                "Learner: loaders alone do not say what is to be learned: give loss=, "
                "torch.nn.functional.cross_entropy for example, or a Data of trainbus_data, which "
                "knows"
            )
        self.train, self.valid = pair
        self.test = None
        self.recipe = None
        self.inputs = None
        self.kinds = tuple(getattr(self.train, "kinds", ("tensor",)))
        self.input_blocks = [PlainInput()]
        self.target = PlainTarget.of_loss(loss)
        self.batch_transforms = ()
        self._pack = None

    @property
    def input_kinds(self) -> tuple[str, ...]:
        """The kinds of the inputs."""
        return self.kinds[: self.inputs or 1]

    def split(self, batch: Any) -> tuple[tuple[Any, ...], Any]:
        """The inputs and the target of a batch; several targets as a tuple.

        Raises:
            UsageError: it has no target.
        """
        if type(batch) in (tuple, list) and len(batch) == 2 and self.inputs in (None, 1):
            return (batch[0],), batch[1]
        count = self.inputs or (len(batch) - 1 if isinstance(batch, (tuple, list)) else 0)
        if not isinstance(batch, (tuple, list)) or not 0 < count < len(batch):
            parts = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else "no parts"
            raise UsageError(
                f"a batch is a {type(batch).__name__} with {parts}; a learner takes tuples "
                "(input, target), or (input, input, ..., target)"
            )
        targets = batch[count:]
        if self._pack is not None:
            return tuple(batch[:count]), self._pack(targets)
        return tuple(batch[:count]), targets[0] if len(targets) == 1 else tuple(targets)

    def encode(self, item: Any) -> tuple[torch.Tensor, ...]:
        """The inputs of one item, without its target; with plain loaders a tensor is taken as is.

        Raises:
            UsageError: with plain loaders, for what is no tensor.
        """
        if self.recipe is not None:
            encoded = self.recipe.encode_input(item)
            return encoded if isinstance(encoded, tuple) else (encoded,)
        parts = item if isinstance(item, tuple) else (item,)
        try:
            return tuple(torch.as_tensor(part) for part in parts)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UsageError(
                "without a recipe an item is a tensor, one input of the model without the dimension"
                f" of the batch, and not a {type(item).__name__}; a Data of trainbus_data knows "
                "how files are read"
            ) from error

    def describe(self, stage: str, index: int) -> str:
        """Which item that is: its file, or its number."""
        describe = getattr(self.data, "describe", None)
        return f"item {index}" if describe is None else str(describe(stage, index))


def _is_loader(thing: Any) -> bool:
    return isinstance(thing, Iterable) and not isinstance(thing, (str, bytes, torch.Tensor, dict))


def _are_loaders(pair: Sequence[Any]) -> bool:
    """Whether these are (train, valid), and not a list of batches."""
    if len(pair) != 2 or not _is_loader(pair[0]):
        return False
    first = pair[0]
    is_batch = isinstance(first, (tuple, list)) and first and isinstance(first[0], torch.Tensor)
    return not is_batch and (pair[1] is None or _is_loader(pair[1]))
