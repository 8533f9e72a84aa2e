"""A column as it arrives for a prediction, brought to what it was in training."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from trainbus_data import DataError
from trainbus_data.leaks import some
from trainbus_data.steps import Codes, Step
from trainbus_data.tables.columns import NO_DATE, NO_TEXT, Column, Reading

logger = logging.getLogger("trainbus")


def fitting(name: str, column: Column, reading: Reading, step: Step) -> Column:
    """The column, of the kind that it had in training.

    Raises:
        DataError: it cannot be one of that kind.
    """
    if column.strange and len(column) > 1:
        rows = sorted(column.strange)
        logger.warning(
            "%r was a %s in training; %d of %s values are not: %s (row %s): treated as missing",
            name, reading.kind, len(rows), f"{len(column):,}", repr(column.strange[rows[0]]), some(rows),
        )  # fmt: skip
    if column.kind == reading.kind:
        if reading.kind == "date" and column.problem:
            raise DataError(f"the column {name!r} {column.problem}: give all in one zone")
        return column
    if column.missing.all():
        return _nothing(len(column), reading)
    if {column.kind, reading.kind} <= {"number", "boolean"}:
        return replace(column, kind=reading.kind)
    if reading.kind == "text" and column.kind in ("number", "boolean"):
        return _as_words(name, column, step)
    row = int(np.argmin(column.missing))
    raise DataError(
        f"the column {name!r} held {reading.kind}s in training, and now {column.kind}s: "
        f"{column.shown(row)!r:.40} in row {row}"
    )


def _nothing(rows: int, reading: Reading) -> Column:
    """A column of the kind without any value."""
    if reading.kind == "text":
        return Column("text", np.full(rows, NO_TEXT, dtype=np.int64))
    if reading.kind == "date":
        return Column("date", np.full(rows, NO_DATE, dtype=np.int64))
    return Column(reading.kind, np.full(rows, np.nan))


def _as_words(name: str, column: Column, step: Step) -> Column:
    """Numbers where training had words: those words, unless they had zeros in front.

    Raises:
        DataError: a zero in front would be lost.
    """
    known = [*step.words, *step.rare] if isinstance(step, Codes) else []
    zeros = [word for word in known if word and word[:1] == "0" and word[1:].isdigit()]
    if zeros:
        row = int(np.argmin(column.missing))
        raise DataError(
            f"{name!r} was text in training ({zeros[0]!r} for example); the number "
            f"{column.shown(row)} would lose the leading zero: read it as text"
        )
    texts = column.texts()
    places: dict[str, int] = {}
    codes = [NO_TEXT if text is None else places.setdefault(text, len(places)) for text in texts]
    return Column("text", np.array(codes, dtype=np.int64), tuple(places))
