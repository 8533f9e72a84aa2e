"""Rows of files to predict and tables of predictions, in blocks: no file is in memory whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trainbus import TrainbusError, UsageError
from trainbus.storage.files import replacing

#: Rows that are read, predicted and written together.
BLOCK = 10_000
#: How the name of a file with rows ends, without ".gz".
ENDINGS = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
Row = Mapping[str, Any]


def is_table(path: str | Path) -> bool:
    """Whether it is the path of a file with rows, by its name."""
    return str(path).lower().removesuffix(".gz").endswith(ENDINGS)


def blocks(path: Path, size: int, done: Callable[[int], object]) -> Iterator[list[Row]]:
    """The rows of a file, so many at a time.

    Args:
        path: CSV, with any of the usual delimiters, or JSON lines, also packed by gzip; or Parquet.
        size: rows of a block.
        done: is told how many bytes of the file were read since the last time.

    Raises:
        UsageError: it is no such file, or cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path, size, done)
            return
        read = _json_lines if path.name.lower().removesuffix(".gz").endswith(".jsonl") else _csv
        with path.open("rb") as file:
            raw: Any = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
            text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
            block: list[Row] = []
            before = 0
            for row in read(text, path):
                block.append(row)
                if len(block) == size:
                    yield block
                    block = []
                    done(file.tell() - before)
                    before = file.tell()
            if block:
                yield block
            done(file.tell() - before)
    except (OSError, EOFError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _csv(text: io.TextIOWrapper, path: Path) -> Iterator[Row]:
    head = text.readline()
    if not head.strip():
        raise UsageError(f"{path}: the first line has the names of the columns, and is empty")
    delimiter = max(",;\t|", key=head.count)
    names = next(csv.reader([head], delimiter=delimiter))
    # Cells that a row lacks or has too many are kept: `predicted` says which row it is.
    yield from csv.DictReader(text, names, restkey=None, delimiter=delimiter)


def _json_lines(text: io.TextIOWrapper, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number}: {line[:60]!r} is no JSON object")
        yield row


def _parquet(path: Path, size: int, done: Callable[[int], object]) -> Iterator[list[Row]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError:
        raise UsageError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(size):
                yield batch.to_pylist()
                done(path.stat().st_size * batch.num_rows // total)
    except ArrowException as error:
        raise UsageError(f"{path} cannot be read as Parquet: {error}") from None


# --- predicting ----------------------------------------------------------------------------------


class Bad(list[str]):
    """Rows that could not be predicted, as lines of text."""


def predicted(predictor: Any, rows: Sequence[Row], first: int, bad: Bad) -> list[dict[str, Any]]:
    """What is predicted for each row, in their order; of a bad one the column `error` alone.

    Args:
        predictor: its `predictions` takes a list of rows and gives a table.
        rows: of a block.
        first: the number of the first one in the file, from 1.
        bad: gets a line for each row that could not be predicted.
    """
    broken = {place: why for place, row in enumerate(rows) if (why := _broken(row))}
    good = [row for place, row in enumerate(rows) if place not in broken]
    made = iter(_asked(predictor, good))
    found: list[dict[str, Any]] = []
    for place in range(len(rows)):
        line = {"error": broken[place]} if place in broken else next(made)
        if "error" in line:
            bad.append(f"row {first + place}: {line['error']}")
        found.append(line)
    return found


def _broken(row: Row) -> str:
    """Why a row of CSV is no row of its table."""
    if None in row:
        return "it has more cells than there are columns"
    if any(value is None for value in row.values()) and all(
        value is None or isinstance(value, str) for value in row.values()
    ):
        return "it has fewer cells than there are columns"
    return ""


def _asked(predictor: Any, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Halves of what fails are asked again, down to the row that is at fault."""
    if not rows:
        return []
    try:
        return list(predictor.predictions(rows).rows())
    except TrainbusError as error:
        if len(rows) == 1:
            return [{"error": str(error)}]
        middle = len(rows) // 2
        return _asked(predictor, rows[:middle]) + _asked(predictor, rows[middle:])


# --- writing -------------------------------------------------------------------------------------


class Writer:
    """Writes lines of one shape to a CSV, JSON lines or Parquet file, whole or not at all.

    Args:
        path: its ending says the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ending = path.suffix.lower()
        if self._ending not in (".csv", ".jsonl", ".parquet"):
            raise UsageError(f"--out {path}: give the name of a .csv, .jsonl or .parquet file")
        self._write: Callable[[list[dict[str, Any]]], object] | None = None

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._beside = self._stack.enter_context(replacing(self.path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._write is None and error is None:
            self._beside.touch()
        self._stack.__exit__(kind, error, where)

    def write(self, lines: list[dict[str, Any]]) -> None:
        """Write lines; the first ones say which columns there are."""
        if self._write is None:
            names = list(dict.fromkeys([*(name for line in lines for name in line), "error"]))
            open_ = {".csv": csv_to, ".jsonl": _json_to, ".parquet": _parquet_to}[self._ending]
            self._write = self._stack.enter_context(open_(self._beside, names))
        self._write([{name: _plain(value) for name, value in line.items()} for line in lines])


@contextmanager
def csv_to(target: Any, names: Sequence[str]) -> Iterator[Callable[[Any], object]]:
    """Writes to a path, or to a stream of text."""
    with ExitStack() as stack:
        file = target
        if isinstance(target, Path):
            file = stack.enter_context(target.open("w", encoding="utf-8", newline=""))
        table = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        yield table.writerows


@contextmanager
def _json_to(path: Path, names: Sequence[str]) -> Iterator[Callable[[Any], object]]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda lines: file.writelines(
            json.dumps(line, ensure_ascii=False) + "\n" for line in lines
        )


@contextmanager
def _parquet_to(path: Path, names: Sequence[str]) -> Iterator[Callable[[Any], object]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError("--out: Parquet needs pyarrow: pip install pyarrow") from None
    with ExitStack() as stack:
        opened: list[Any] = []

        def write(lines: list[dict[str, Any]]) -> None:
            columns = {name: [line.get(name) for line in lines] for name in names}
            if not opened:
                table = pyarrow.table(columns)
                # The errors may all be in later blocks.
                place = table.schema.get_field_index("error")
                schema = table.schema.set(place, pyarrow.field("error", pyarrow.string()))
                opened.append(stack.enter_context(parquet.ParquetWriter(path, schema)))
            opened[0].write_table(pyarrow.table(columns, schema=opened[0].schema))

        yield write


def _plain(value: Any) -> Any:
    """A value of NumPy as Python's."""
    return value.item() if hasattr(value, "item") else value
