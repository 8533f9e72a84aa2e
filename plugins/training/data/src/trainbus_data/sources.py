"""Where items come from: files in folders, and tables."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainbus.errors import nearest
from trainbus_data.cells import is_missing, typed
from trainbus_data.errors import DataError

logger = logging.getLogger("trainbus")


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
    wanted = _lower(endings)
    found, others = [], 0
    for path in _walked(root, recurse):
        if _ends(path, wanted):
            found.append(path)
        else:
            others += 1
    if not found:
        if wanted is None:
            raise DataError(f"{root}: there are no files")
        what = f"{others} files, none of which ends" if others else "no file that ends"
        raise DataError(f"{root}: {what} with one of {', '.join(wanted)}")
    return sorted(found)


def holds_files(folder: Path, endings: Iterable[str] | None = None) -> bool:
    """Whether there is such a file in a folder, or in its folders."""
    wanted = _lower(endings)
    return any(_ends(path, wanted) for path in _walked(folder, True))


def _lower(endings: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if endings is None else tuple(ending.lower() for ending in endings)


def _ends(path: Path, wanted: tuple[str, ...] | None) -> bool:
    return wanted is None or path.name.lower().endswith(wanted)


def _walked(root: Path, recurse: bool) -> Iterator[Path]:
    """The files of a folder, each once: links are followed, but not to what is in the folder."""
    inside, seen, again = os.path.realpath(root), set(), []
    for directory, folders, files in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(directory))
        kept = []
        for name in sorted([*folders, *files]):
            path = Path(directory, name)
            if name.startswith("."):
                continue
            if path.is_symlink() and _is_known(os.path.realpath(path), inside, seen):
                again.append(path)
            elif name in folders:
                kept.append(name)
            else:
                yield path
        folders[:] = kept if recurse else []
    if again:
        logger.warning(
            "%s: links to what is in the folder anyway are left out: %s%s",
            root, again[0], f" and {len(again) - 1} others" if len(again) > 1 else "",
        )  # fmt: skip


def _is_known(target: str, inside: str, seen: set[str]) -> bool:
    """Whether a link leads into the folder, to one above it, or where another one led."""
    below = f"{target.rstrip(os.sep)}{os.sep}"
    return f"{target}{os.sep}".startswith(f"{inside}{os.sep}") or any(
        f"{each}{os.sep}".startswith(below) for each in (inside, *seen)
    )


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

    The cells of a CSV file are taken as they stand: a column is numbers where all of its cells are
    written as numbers, without zeros in front; "NA" is a word, and empty is missing.

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
    if ending != ".parquet":
        return _read_csv(path, "," if ending == ".csv" else "\t")
    try:
        import pandas  # type: ignore[import-untyped]

        return pandas.read_parquet(path)
    except ImportError:
        pass
    try:
        import polars
    except ImportError:
        raise DataError(
            f"{path}: pandas or polars is needed to read it: pip install 'trainbus-data[tables]'"
        ) from None
    return polars.read_parquet(path)


def _read_csv(path: Path, separator: str) -> dict[str, list[Any]]:
    """The columns of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head, *lines = [line for line in csv.reader(file, delimiter=separator) if line] or [[]]
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8: {error}; read it and give that") from None
    for other in (";", "\t", ",", "|"):
        if len(head) == 1 and other in head[0]:
            raise DataError(
                f"{path}: the head has one column, {head[0]!r}; in {path.suffix} they are "
                f"separated by {separator!r} and not by {other!r}: read it and give that"
            )
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice!r}")
    for number, line in enumerate(lines):
        if len(line) != len(head):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells, but the head {len(head)}: "
                f"{line!r:.80}"
            )
    columns = zip(*lines, strict=True) if lines else [()] * len(head)
    return {name: typed(cells) for name, cells in zip(head, columns, strict=True)}


def named_columns(
    rows: Sequence[Mapping[str, Any]],
    input: str | Sequence[str] | None,
    label: str | Sequence[str] | None,
) -> tuple[str | Sequence[str], str | Sequence[str]]:
    """The columns of the input and of the label: those named, or the first and the second one.

    Raises:
        DataError: there are fewer than two to choose from.
    """
    if input is not None and label is not None:
        return input, label
    names = _without_index(rows)
    if len(names) < 2:
        raise DataError(f"the table has {len(names)} columns; give input= and label=")
    return names[0] if input is None else input, names[1] if label is None else label


def _without_index(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table, but a first one without a name that counts its rows.

    pandas writes its index so, and reads it as "Unnamed: 0".
    """
    names = list(rows[0]) if rows else []
    if names[:1] not in ([""], ["Unnamed: 0"]):
        return names
    if [row[names[0]] for row in rows] != list(range(len(rows))):
        return names
    logger.warning(
        "the first column of the table has no name and counts its rows: it is left out as an "
        "index (input= and label= name the columns to take)"
    )
    return names[1:]


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
        if is_missing(value):
            return None
        return Path(self.folder or "", f"{value}{self.suffix}")
