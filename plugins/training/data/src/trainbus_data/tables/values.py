"""Columns of lists and arrays of Python's and NumPy's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from trainbus_data.cells import unboxed
from trainbus_data.errors import DataError
from trainbus_data.tables.columns import NO_DATE, NO_TEXT, Column, Reading
from trainbus_data.tables.wording import ALWAYS_MISSING, understood

_NUMBERS = {int, float}
_NOTHING = type(None)


class Coder(dict[str, int]):
    """Gives each new word the next code."""

    def __missing__(self, word: str) -> int:
        code = self[word] = len(self)
        return code

    def codes(self, words: Iterable[str]) -> np.ndarray[Any, Any]:
        """The code of each."""
        return np.array(list(map(self.__getitem__, words)), dtype=np.int64)


def column_of(values: Any, name: Any = "", like: Reading | None = None) -> Column:
    """The column of a list, an array or a tensor; texts are read as `like` says.

    Raises:
        DataError: it has several dimensions, or holds what is no cell.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if type(values) is list and len(values) == 1:
        column = _single(values[0], like)
        if column is not None:
            return column
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise DataError(f"the column {name!r} has the shape {values.shape}; give one for each")
        if values.dtype.kind in "biuf":
            return numbers(values)
        if values.dtype.kind == "M":
            return dates(values)
        values = values.tolist()
    return _of_list(list(values), name, like)


def _single(value: Any, like: Reading | None) -> Column | None:
    """What `_of_list` gives for a number, or a word where one is wanted: one row is quick."""
    kind = type(value)
    if kind is float or (kind is int and abs(value) <= 2**53):
        return Column("number", np.array([value], dtype=np.float64))
    if kind is not str or like is None or like.kind != "text":
        return None
    word = value.strip()
    if word.lower() in ALWAYS_MISSING:
        return Column("number", np.full(1, np.nan), wording=like.wording)
    return Column("text", np.zeros(1, dtype=np.int64), (word,), like.wording)


def numbers(values: np.ndarray[Any, Any]) -> Column:
    """Of an array of numbers or booleans; whole ones that a float does not keep are texts."""
    if values.dtype.kind == "b":
        return Column("boolean", values.astype(np.float64))
    wide = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and len(values)
    if wide and max(abs(int(values.max())), abs(int(values.min()))) > 2**53:
        return texts(list(map(str, values.tolist())))
    return Column("number", np.ascontiguousarray(values, dtype=np.float64))


def dates(values: np.ndarray[Any, Any], zone: bool = False) -> Column:
    """Of an array of datetime64."""
    stamps = values.astype("datetime64[us]").astype(np.int64)
    return Column("date", stamps, zone=zone)


def texts(values: Sequence[str | None], like: Reading | None = None) -> Column:
    """Of texts, which may say numbers or dates."""
    coder = Coder()
    if None in values:
        codes = np.array([NO_TEXT if v is None else coder[v] for v in values], dtype=np.int64)
    else:
        codes = coder.codes(values)  # type: ignore[arg-type]
    return understood(codes, list(coder), like)


def _of_list(values: list[Any], name: Any, like: Reading | None) -> Column:
    kinds = set(map(type, values))
    if not kinds <= {bool, int, float, str, _NOTHING}:
        values = [_plain(value, name, row) for row, value in enumerate(values)]
        kinds = set(map(type, values))
    kinds.discard(_NOTHING)
    if kinds <= _NUMBERS | {bool} and kinds != {bool}:
        made = np.array(values, dtype=np.float64)
        large = int in kinds and len(made) and np.nanmax(np.abs(made), initial=0) >= 2**53
        if large and any(type(v) is int and abs(v) > 2**53 for v in values):
            return texts([None if v is None or v != v else str(v) for v in values], like)
        return Column("number", made)
    if kinds == {bool}:
        return Column("boolean", np.array(values, dtype=np.float64))
    if kinds == {str}:
        return texts(values, like)
    if kinds <= {str, float} and all(v != v for v in values if type(v) is float):
        return texts([v if type(v) is str else None for v in values], like)
    if kinds <= {datetime, float} and all(v != v for v in values if type(v) is float):
        return _moments(values)
    return texts([None if v is None or v != v else _written(v) for v in values], like)


def _written(value: Any) -> str:
    """As a file has it: whole numbers without a fraction, dates as ISO 8601."""
    return str(int(value)) if type(value) is float and value.is_integer() else str(value)


def _plain(value: Any, name: Any, row: int) -> Any:
    """A cell as a value of Python."""
    if isinstance(value, (str, bool, int, float, _NOTHING)):
        for kind in (str, bool, int, float):  # np.str_, np.float64: subclasses
            if isinstance(value, kind):
                return value if type(value) is kind else kind(value)
        return None
    if isinstance(value, datetime):
        return None if value != value else datetime.fromisoformat(value.isoformat())
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else value.astype("datetime64[us]").item()
    if isinstance(value, Decimal):
        return float(value)
    bare = unboxed(value)
    if isinstance(bare, (str, bool, int, float)):
        return bare
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    raise DataError(
        f"the column {name!r} has a {type(value).__name__} in row {row} ({value!r:.60}); a cell is "
        "a number, a text, a date, yes or no, or None"
    )


def _moments(values: Sequence[Any]) -> Column:
    """Of datetimes, all with or all without a zone."""
    written = [value.isoformat() if isinstance(value, datetime) else None for value in values]
    column = texts(written)
    if column.kind == "date":
        return Column("date", column.values, zone=column.zone, problem=column.problem)
    return Column("date", np.full(len(values), NO_DATE, dtype=np.int64))
