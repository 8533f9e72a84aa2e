"""A table of whatever holds one: a path, a frame of any library, a dict, a list of dicts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainbus.errors import nearest
from trainbus_data.errors import DataError
from trainbus_data.tables.columns import Column, Reading, Table
from trainbus_data.tables.delimited import read_delimited
from trainbus_data.tables.frames import columns_of
from trainbus_data.tables.values import column_of

logger = logging.getLogger("trainbus")
_ENDINGS = (".csv", ".tsv", ".tab", ".txt", ".data", ".test", ".dat")
#: Libraries that read Parquet, the fastest first.
_READERS = ("polars", "pyarrow", "pandas")


def read_table(source: Any, *, like: Mapping[str, Reading] | None = None) -> Table:
    """The table that a source holds; the same from each, to the bit.

    Args:
        source: the path of a CSV file (also packed by gzip) or of a Parquet file; a frame of
            pandas, polars, Arrow or what else narwhals knows; a dict of columns, or of one row; a
            list of dicts; a `Table`.
        like: how texts are read, by column, as in a table read before; the others as they look.

    Raises:
        DataError: it is none of these, or cannot be read; with the line, row or column.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, (str, Path)):
        table = _read_file(Path(source), like or {})
        for note in table.notes:
            logger.warning("%s", note)
        return _without_index(table)
    if isinstance(source, Mapping):
        return _of_mapping(source, like or {})
    if isinstance(source, Sequence):
        return _of_rows(source, like or {})
    return _without_index(Table(columns_of(source, like=like)))


def _read_file(path: Path, like: Mapping[str, Reading]) -> Table:
    if not path.is_file():
        inside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        what = "is a folder, not a table" if path.is_dir() else "there is no table"
        raise DataError(
            f"{path} {what}" if path.is_dir() else f"{what} {path}{nearest(path.name, inside)}"
        )
    if _starts_with(path, b"PAR1"):
        return Table(columns_of(_parquet(path), path.name, like), path.name)
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(_ENDINGS):
        raise DataError(
            f"{path}: a table is a CSV file (.csv, .tsv, .txt, also with .gz) or a Parquet file; "
            "or read it and give the frame"
        )
    return read_delimited(path, like)


def _starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _parquet(path: Path) -> Any:
    """A frame of the first library that is there."""
    for library in _READERS:
        try:
            if library == "polars":
                import polars

                return polars.read_parquet(path)
            if library == "pyarrow":
                from pyarrow import parquet

                return parquet.read_table(path)
            import pandas

            return pandas.read_parquet(path)
        except ImportError:
            continue
        except Exception as error:
            raise DataError(f"{path} cannot be read by {library}: {error}") from error
    raise DataError(f"{path}: polars, pyarrow or pandas reads Parquet, and none is installed")


def _of_mapping(source: Mapping[Any, Any], like: Mapping[str, Reading]) -> Table:
    """Of columns, or of one row where all values are single ones."""
    values = list(source.values())
    names = [str(name) for name in source]
    if values and not any(map(_is_column, values)):
        return Table(
            {n: column_of([v], n, like.get(n)) for n, v in zip(names, values, strict=True)}
        )
    for name, value in zip(names, values, strict=True):
        if not _is_column(value):
            raise DataError(
                f"the column {name!r} is the single value {value!r:.60}; give as many as there are "
                "rows"
            )
    columns = {}
    for name, value in zip(names, values, strict=True):
        if isinstance(value, Column):
            columns[name] = value
        elif hasattr(value, "to_list") and hasattr(value, "dtype"):  # a series of pandas or polars
            columns[name] = _of_series(value, name, like)
        else:
            columns[name] = column_of(value, name, like.get(name))
    return Table(columns)


def _is_column(value: Any) -> bool:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        return hasattr(value, "__iter__") and not isinstance(value, (str, bytes))
    return getattr(value, "ndim", 1) > 0


def _of_series(series: Any, name: str, like: Mapping[str, Reading]) -> Column:
    frame = series.to_frame(name)
    return columns_of(frame, f"the column {name!r}", like)[name]


def _of_rows(rows: Sequence[Any], like: Mapping[str, Reading]) -> Table:
    """Of dicts; a name that a row lacks is missing there."""
    names: dict[str, None] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number} is a {type(row).__name__}; a list of rows is one of dicts"
            )
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        columns[str(name)] = column_of(values, name, like.get(str(name)))
    return Table(columns)


def _without_index(table: Table) -> Table:
    """Without a first column that has no name and counts the rows, as pandas writes its index."""
    first = next(iter(table), None)
    if first is None or first not in ("", "Unnamed: 0"):
        return _named(table)
    values = table[first].values
    if table[first].kind != "number" or not np.array_equal(values, np.arange(len(values))):
        return _named(table)
    logger.warning(
        "%s: the first column has no name and counts the rows: it is left out as an index",
        table.name,
    )
    kept = {name: column for name, column in table.items() if name != first}
    return _named(Table(kept, table.name, table.notes))


def _named(table: Table) -> Table:
    """Each column with a name; one that a delimiter at the end of lines made is left out."""
    columns = {
        name or f"column {number}": column
        for number, (name, column) in enumerate(table.items())
        if name != "\0"
    }
    return Table(columns, table.name, table.notes)
