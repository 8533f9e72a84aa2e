"""Where items come from: files in folders, and tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainbus.errors import nearest
from trainbus_data.errors import DataError


def find_files(
    folder: str | Path, endings: Iterable[str] | None = None, recurse: bool = True
) -> list[Path]:
    """The files in a folder, sorted by their path; hidden files and folders are left out.

    Args:
        folder: where to look.
        endings: how their names end, in capitals too; None for all files.
        recurse: in its folders too.

    Raises:
        DataError: there is no such folder, or no such file in it.
    """
    root = check_folder(folder)
    wanted = None if endings is None else tuple(ending.lower() for ending in endings)
    found, others = [], 0
    for directory, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and recurse)
        for name in files:
            if name.startswith("."):
                continue
            if wanted is None or name.lower().endswith(wanted):
                found.append(Path(directory, name))
            else:
                others += 1
    if not found:
        if wanted is None:
            raise DataError(f"{root}: there are no files")
        what = f"{others} files, none of which ends" if others else "no file that ends"
        raise DataError(f"{root}: {what} with one of {', '.join(wanted)}")
    return sorted(found)


def check_folder(folder: str | Path) -> Path:
    """The path, if it is a folder."""
    root = Path(folder)
    if root.is_dir():
        return root
    if root.exists():
        raise DataError(f"{root} is a file, not a folder")
    parent = root.parent
    inside = [each.name for each in parent.iterdir() if each.is_dir()] if parent.is_dir() else []
    raise DataError(
        f"there is no folder {root}"
        + ("" if root.is_absolute() else f" in {Path.cwd()}")
        + (nearest(root.name, inside) if parent.is_dir() else f", and no {parent} either")
    )


def parent_folder(path: str | Path) -> str:
    """The name of the folder that a file is in: its label in many data sets."""
    return Path(path).parent.name


def read_rows(table: Any) -> list[dict[str, Any]]:
    """The rows of a table: a DataFrame of pandas or polars, a mapping of columns, rows already,
    or the path of a CSV (.csv, .tsv) or Parquet (.parquet) file.

    Raises:
        DataError: it is none of these, or the library that reads it is not there.
    """
    if isinstance(table, (str, Path)):
        table = _read_table(Path(table))
    if isinstance(table, Mapping):
        names = list(table)
        columns = [list(table[name]) for name in names]
    elif hasattr(table, "columns") and hasattr(table, "__getitem__"):
        names = [str(name) for name in table.columns]
        # Lists of plain values: pandas and polars both give them.
        columns = [_values(table[name]) for name in table.columns]
    elif isinstance(table, Sequence) and table and isinstance(table[0], Mapping):
        return [dict(row) for row in table]
    else:
        raise DataError(
            f"a table of the type {type(table).__name__}; give a DataFrame of pandas or polars, a "
            "mapping of columns, a list of mappings, or the path of a CSV or Parquet file"
        )
    if len({len(column) for column in columns}) > 1:
        lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
        raise DataError(f"the columns of the table have different lengths: {lengths}")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    to_list = getattr(column, "to_list", None)
    return list(to_list() if to_list is not None else column)


def _read_table(path: Path) -> Any:
    if not path.is_file():
        inside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"there is no table {path}{nearest(path.name, inside)}")
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".txt", ".parquet"):
        raise DataError(f"{path}: a table is .csv, .tsv or .parquet; or read it and give that")
    separator = "," if ending == ".csv" else "\t"
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError:
        pass
    else:
        is_parquet = ending == ".parquet"
        return pandas.read_parquet(path) if is_parquet else pandas.read_csv(path, sep=separator)
    try:
        import polars
    except ImportError:
        raise DataError(
            f"{path}: pandas or polars is needed to read it: pip install 'trainbus-data[tables]'"
        ) from None
    if ending == ".parquet":
        return polars.read_parquet(path)
    return polars.read_csv(path, separator=separator)


def check_columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> None:
    """Refuse names that are no columns.

    Raises:
        DataError: with the nearest name.
    """
    if not rows:
        raise DataError("the table has no rows")
    for name in names:
        if name not in rows[0]:
            columns = [str(each) for each in rows[0]]
            raise DataError(
                f"the table has no column {name!r}{nearest(str(name), columns)} "
                f"(columns: {', '.join(columns)})"
            )


class Column:
    """A getter of one column of a row, or of several as a list.

    Args:
        name: the column, or several.
        folder: put in front of what it holds, for the names of files.
        suffix: put behind it.
    """

    def __init__(
        self, name: str | Sequence[str], folder: str | Path | None = None, suffix: str = ""
    ) -> None:
        self.name = name
        self.folder = folder
        self.suffix = suffix

    def __call__(self, row: Mapping[str, Any]) -> Any:
        """The value."""
        if not isinstance(self.name, str):
            return [row[name] for name in self.name]
        value = row[self.name]
        if self.folder is None and not self.suffix:
            return value
        if value is None or value != value:
            return None
        return Path(self.folder or "", f"{value}{self.suffix}")
