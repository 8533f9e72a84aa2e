"""Reading all files once, to find those that cannot be read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from trainbus_data.errors import message
from trainbus_data.items import Items, where
from trainbus_data.recipe import Recipe


def threads() -> int:
    """How many threads read files: decoding leaves Python's lock."""
    return min(8, os.cpu_count() or 1)


def unreadable_in(items: Items, recipe: Recipe, stage: str) -> list[tuple[int, str]]:
    """The index of each item with a file that cannot be read, and what is wrong with it."""
    numbers = [n for n, block in enumerate(recipe.blocks) if block.is_file]

    def problem(index: int) -> tuple[int, str] | None:
        try:
            raws = items[index]
            for number in numbers:
                recipe.blocks[number].encode(raws[number])
        except Exception as error:
            return index, f"{where(items, index, stage)}: {message(error)}"
        return None

    with ThreadPoolExecutor(threads()) as pool:
        return [found for found in pool.map(problem, range(len(items))) if found is not None]
