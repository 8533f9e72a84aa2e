"""What the column of a label holds: classes, or numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trainbus_data.blocks import Block
from trainbus_data.cells import is_missing, label_of
from trainbus_data.errors import DataError
from trainbus_data.labels import Category, Number

logger = logging.getLogger("trainbus")
#: More whole numbers than these may be ages or counts as well as classes.
_FEW = 20


def usual_target(rows: Sequence[Mapping[str, Any]], label: str | Sequence[str]) -> Block:
    """A category, or a number where the column holds numbers with fractions, which is said once.

    Args:
        rows: of a table.
        label: the column; several are as many numbers.

    Raises:
        DataError: there are so many whole numbers that they may be either.
    """
    if not isinstance(label, str):
        return Number(len(label))
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
