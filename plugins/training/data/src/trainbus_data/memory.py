"""Items that are read once and kept as tensors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from trainbus_data.errors import DataError
from trainbus_data.item_loader import encode_item
from trainbus_data.items import Items, Tensors, where
from trainbus_data.reading import threads
from trainbus_data.recipe import Recipe
from trainbus_data.transforms import ItemTransform


def in_memory(items: Items, recipe: Recipe, stage: str) -> Tensors:
    """Read all items once, in threads, and keep them as tensors.

    Raises:
        DataError: an item cannot be read, the shapes differ, or a transform is random.
    """
    for transform in recipe.transforms:
        if isinstance(transform, ItemTransform) and not transform.fits_memory:
            raise DataError(
                f"memory=True keeps each item as it was read once, but {transform!r} is random; "
                "leave it out, and augment whole batches on the device"
            )
    encode = [(items, index, recipe, False, stage) for index in range(len(items))]
    with ThreadPoolExecutor(threads()) as pool:
        encoded = list(pool.map(lambda args: encode_item(*args), encode))
    return Tensors(recipe.collate(encoded, lambda index: where(items, index, stage)), items)
