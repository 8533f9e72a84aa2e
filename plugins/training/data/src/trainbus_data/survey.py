"""What of the targets does not count: looked for in some items when the data are made, and said."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from trainbus_data.blocks import Block
from trainbus_data.errors import DataError
from trainbus_data.items import Items, Tensors, where
from trainbus_data.recipe import Recipe
from trainbus_data.transforms import Parts

logger = logging.getLogger("trainbus")
#: So many items are read, from all over the training part.
_SOME = 16


@dataclass
class Survey:
    """What was found in some items of the training part.

    Attributes:
        items: how many were looked at.
        found: by reason, how many (points, pixels) there are.
        example: an item with something that does not count, and was not meant so.
    """

    items: int = 0
    found: Counter[str] = field(default_factory=Counter)
    example: str = ""

    def __str__(self) -> str:
        total = sum(self.found.values())
        why = ", ".join(f"{count} {name}" for name, count in self.found.items() if count)
        return f"of {total} in {self.items} items of training: {why}"


def surveyed(recipe: Recipe, store: Items | Tensors) -> Survey | None:
    """Look at some items of the training part; None where everything counts by its nature.

    A warning says what does not count by accident: outside of the image, cut off by a transform,
    or all of it ignored.
    """
    block = recipe.target
    if type(block).tally is Block.tally:
        return None
    survey = Survey()
    count = min(_SOME, len(store))
    for index in range(0, len(store), max(1, len(store) // count)):
        try:
            steps = _steps(recipe, store, index)
        except DataError:  # who reaches the item is told
            continue
        first = block.tally(steps[0][-1], steps[0], recipe.kinds)
        last = block.tally(steps[-1][-1], steps[-1], recipe.kinds)
        if "missing" in first:
            first["cut off"] = max(0, first["counted"] - last["counted"])
            first["counted"] -= first["cut off"]
        survey.items += 1
        survey.found.update(first)
        wrong = {name: n for name, n in first.items() if name not in ("counted", "missing") and n}
        if wrong and not survey.example:
            survey.example = where(store, index, "train")
    _say(block, survey)
    return survey


def _steps(recipe: Recipe, store: Items | Tensors, index: int) -> list[Parts]:
    """The parts of an item as it was read, and as it is after the transforms."""
    item = store[index]
    return [item] if isinstance(store, Tensors) else [parts for _, parts in recipe.steps(item)]


def _say(block: Block, survey: Survey) -> None:
    found = survey.found
    by_accident = found["outside of their image"] + found["cut off"]
    if survey.items and (by_accident or not found["counted"]):
        logger.warning(
            "%s %s; %s for example. What is not counted is in no loss and in no metric",
            block.kind, survey, survey.example or "all items",
        )  # fmt: skip
