"""What the column of a label holds: classes, or numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trainbus_data.blocks import Block
from trainbus_data.cells import is_missing, label_of, text_of
from trainbus_data.errors import DataError
from trainbus_data.labels import Categories, Category, Number

logger = logging.getLogger("trainbus")
#: More whole numbers than these may be ages or counts as well as classes.
_FEW = 20


def usual_target(rows: Sequence[Mapping[str, Any]], label: str | Sequence[str]) -> Block:
    """A category, or a number where the column holds numbers with fractions, which is said once.

    Args:
        rows: of a table.
        label: the column; several are as many numbers, or a label each where all hold 0 and 1.

    Raises:
        DataError: there are so many whole numbers that they may be either.
    """
    if not isinstance(label, str):
        return _of_several(rows, list(label))
    values = [label_of(row[label]) for row in rows if not is_missing(row.get(label))]
    numbers = {value for value in values if type(value) in (int, float)}
    if len(numbers) <= 1 or not all(type(value) in (int, float) for value in values):
        return Category()
    if any(type(value) is float for value in numbers):
        logger.warning(
            "the column %r holds numbers with fractions, and is learned as a number; "
            "blocks=(..., Category()) says otherwise, with texts", label,
        )  # fmt: skip
        return Number()
    if len(numbers) > _FEW and numbers != set(range(len(numbers))):
        raise DataError(
            f"the column {label!r} holds {len(numbers)} whole numbers, from {min(numbers)} to "
            f"{max(numbers)}: a class each, or a number? Say it: blocks=(..., Category()) or "
            "blocks=(..., Number())"
        )
    return Category()


def _of_several(rows: Sequence[Mapping[str, Any]], names: list[str]) -> Block:
    """Numbers; or a label for each column where all hold 0 and 1, which is said once."""
    flags = [[_flag(row.get(name)) for name in names] for row in rows]
    if not all(flag is not None for row in flags for flag in row):
        return Number(len(names))
    one = all(sum(map(bool, row)) == 1 for row in flags)
    logger.warning(
        "the columns %s hold 0 and 1: they are labels, of which a row has %s; blocks=(..., %s) "
        "says otherwise", ", ".join(names[:6]), "one" if one else "any number",
        f"Number({len(names)})" + (" or Categories()" if one else ""),
    )  # fmt: skip
    return Category(names) if one else Categories(names)


def _flag(raw: Any) -> bool | None:
    """Whether a cell says yes or no; None for anything else."""
    if is_missing(raw):
        return None
    return {"1": True, "true": True, "0": False, "false": False}.get(text_of(raw).strip().lower())


class Flags:
    """A getter of the labels of a row that has a column of 0 and 1 for each.

    Args:
        names: the columns, which are the labels.
        several: whether a row has any number of them, given as a list; or one.
    """

    def __init__(self, names: Sequence[str], several: bool) -> None:
        self.names = list(names)
        self.several = several

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The labels, or the one label; None where it has none or several.

        Raises:
            DataError: a cell holds something else.
        """
        for name in self.names:
            if _flag(row[name]) is None:
                raise DataError(f"the column {name!r} holds {row[name]!r:.40}, and not 0 or 1")
        found = [name for name in self.names if _flag(row[name])]
        if self.several:
            return found
        return found[0] if len(found) == 1 else None
