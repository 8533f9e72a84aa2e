"""Data that are tensors already, or that are read once and kept as tensors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data import splits
from trainbus_data.blocks import Block
from trainbus_data.data import Data
from trainbus_data.errors import DataError
from trainbus_data.images import Image
from trainbus_data.labels import Category
from trainbus_data.loaders import Items, Tensors, encode_item, where
from trainbus_data.reading import threads
from trainbus_data.recipe import Recipe
from trainbus_data.transforms import ItemTransform, Resize


def from_tensors(
    train: Sequence[Any],
    valid: Sequence[Any] | None,
    test: Sequence[Any] | None,
    blocks: Sequence[Block] | None,
    inputs: int,
    split: splits.Split | None,
    item_transforms: Sequence[Any],
    **options: Any,
) -> Data:
    """See `Data.from_tensors`."""
    parts = {"train": _checked(train, "train")}
    for stage, given in (("valid", valid), ("test", test)):
        if given is not None:
            parts[stage] = _checked(given, stage)
    if blocks is None:
        blocks = (Image(_channels(parts["train"][0])), Category())
    recipe = Recipe(copy.deepcopy(tuple(blocks)), inputs, item_transforms)
    for stage, those in parts.items():
        if len(those) != len(recipe.blocks):
            raise DataError(
                f"{stage} has {len(those)} parts, but there are {len(recipe.blocks)} blocks: "
                f"{', '.join(map(repr, recipe.blocks))}"
            )
    if valid is None:
        labels = parts["train"][-1]
        chosen = (split or splits.random())(range(len(labels)), labels.__getitem__)
        whole = parts["train"]
        for stage, indices in zip(("train", "valid", "test"), chosen, strict=False):
            parts[stage] = [_take(part, indices) for part in whole]
    for block, part in zip(recipe.blocks, parts["train"], strict=True):
        block.setup(_uniques(part))
    stores = {stage: Tensors(_encoded(recipe, those, stage)) for stage, those in parts.items()}
    return Data(recipe, stores["train"], stores["valid"], stores.get("test"), **options)


def _checked(parts: Sequence[Any], stage: str) -> list[Any]:
    if not isinstance(parts, (tuple, list)) or len(parts) < 2:
        raise DataError(f"{stage}={type(parts).__name__}; give (inputs, targets)")
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise DataError(f"the parts of {stage} have {' and '.join(map(str, lengths))} items")
    if not lengths[0]:
        raise DataError(f"the {stage} part is empty")
    return list(parts)


def _channels(images: Any) -> int:
    shape = tuple(getattr(images, "shape", ()))
    return 3 if len(shape) == 4 and 3 in (shape[1], shape[3]) else 1


def _take(part: Any, indices: Sequence[int]) -> Any:
    if isinstance(part, (Tensor, np.ndarray)):
        return part[torch.as_tensor(indices) if isinstance(part, Tensor) else np.array(indices)]
    return [part[index] for index in indices]


def _uniques(part: Any) -> Any:
    """What a block learns from: of integers, each value once, without a loop over all."""
    if getattr(part, "ndim", 0) != 1:
        return part
    values = part.cpu().numpy() if isinstance(part, Tensor) else part
    return np.unique(values) if values.dtype.kind in "iub" else values


def _encoded(recipe: Recipe, parts: Sequence[Any], stage: str) -> list[Tensor]:
    encoded = []
    for block, part in zip(recipe.blocks, parts, strict=True):
        try:
            value = block.encode_all(part)
        except DataError as error:
            raise DataError(f"{stage}, {block.kind}: {error}") from error
        # What was computed on the way is put where it came from.
        encoded.append(value.to(part.device) if isinstance(part, Tensor) else value)
    return encoded


def in_memory(items: Items, recipe: Recipe, stage: str) -> Tensors:
    """Read all items once, in threads, and keep them as tensors.

    Raises:
        DataError: an item cannot be read, the shapes differ, or a transform is random.
    """
    for transform in recipe.transforms:
        random = isinstance(transform, ItemTransform) and transform.is_random
        if random and not isinstance(transform, Resize):
            raise DataError(
                f"memory=True keeps each item as it was read once, but {transform!r} is random; "
                "leave it out, and augment whole batches on the device"
            )
    encode = [(items, index, recipe, False, stage) for index in range(len(items))]
    with ThreadPoolExecutor(threads()) as pool:
        encoded = list(pool.map(lambda args: encode_item(*args), encode))
    return Tensors(recipe.collate(encoded, lambda index: where(items, index, stage)), items)
