"""CSV files and their like: one reader for all, so that the result is the same everywhere.

Cells become codes of words while the file is read, a few thousand lines at a time: what is kept of
a file is much smaller than its text.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from trainbus_data.errors import DataError
from trainbus_data.tables.columns import Column, Reading, Table
from trainbus_data.tables.fast_delimited import fast_codes, is_packed
from trainbus_data.tables.values import Coder
from trainbus_data.tables.wording import understood, wording_of

_SIGNS = (",", ";", "\t", "|")
_LINES = 2_000
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_delimited(path: Path, like: Mapping[str, Reading] | None = None) -> Table:
    """The table of a text file with a delimiter, also packed by gzip.

    Args:
        path: the file.
        like: how columns are read, by name; the others as they look.

    Raises:
        DataError: a line has another number of cells, there are two heads, or a name twice.
    """
    notes: list[str] = []
    encoding = _encoding(path, notes)
    with _opened(path, encoding) as file:
        head, sign, before, first = _head(file, path, notes)
        coded = fast_codes(path, encoding, sign, len(head), before)
        if coded is None:
            coded = _codes(file, sign, len(head), first, path)
    columns: dict[str, Column] = {}
    for name, (codes, words) in zip(head, coded, strict=True):
        columns[name] = understood(codes, words, (like or {}).get(name))
    _refuse_second_head(columns, [words for _, words in coded], path)
    return Table(columns, path.name, notes)


def _opened(path: Path, encoding: str) -> TextIO:
    if is_packed(path):
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding, newline="")
    return path.open(encoding=encoding, newline="")


def _encoding(path: Path, notes: list[str]) -> str:
    """UTF-8, what a mark in front says, or else Windows-1252, which is said with an example."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = 0
    try:
        with gzip.open(path, "rb") if is_packed(path) else path.open("rb") as file:
            start = file.read(4)
            for mark, name in _BOMS:
                if start.startswith(mark):
                    return name
            block = start
            while block:
                try:
                    decoder.decode(block)
                except UnicodeDecodeError as error:
                    return _other_encoding(path, seen, block, error, notes)
                seen += len(block)
                block = file.read(1 << 20)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return "utf-8"


def _other_encoding(
    path: Path, seen: int, block: bytes, error: UnicodeDecodeError, notes: list[str]
) -> str:
    at = error.start
    if 0 in block:
        raise DataError(f"{path} is no text: there is a zero byte in it")
    near = block[max(0, at - 12) : at + 12].decode("cp1252", "replace").strip()
    notes.append(
        f"{path.name} is not UTF-8 at byte {seen + at:,} (0x{block[at]:02x}): read as Windows-1252, "
        f"{near!r} for example; if that is wrong, read it yourself and give the frame"
    )
    return "cp1252"


def _head(file: TextIO, path: Path, notes: list[str]) -> tuple[list[str], str, int, list[str]]:
    """The names, the delimiter, how many lines they take, and lines that were read behind them."""
    lines = [line for line in islice(file, 50)]
    sign = _delimiter("".join(lines), path)
    rows = [row for row in csv.reader(lines, delimiter=sign, skipinitialspace=True) if any(row)]
    while len(rows) > 2 and len(rows[0]) == 1 < len(rows[1]) == len(rows[2]):
        notes.append(f"{path.name}: the first line is left out: {rows.pop(0)[0]!r:.60}")
    if not rows:
        raise DataError(f"{path.name} is empty")
    if sign != ("\t" if path.name.removesuffix(".gz").lower().endswith((".tsv", ".tab")) else ","):
        notes.append(f"{path.name}: columns are separated by {sign!r}")
    head = [name.strip() for name in rows[0]]
    if rows[1:] and not head[-1] and all(not row[-1].strip() for row in rows if len(row) == len(head)):
        head[-1] = "\0"  # each line ends with a delimiter
    named = [name for name in head if name != "\0"]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise DataError(f"{path.name}: two columns are called {twice!r}{_no_names(head)}")
    reader = csv.reader(lines, delimiter=sign, skipinitialspace=True)
    next(row for row in reader if row == rows[0])
    return head, sign, reader.line_num, lines[reader.line_num :]


def _no_names(head: Sequence[str]) -> str:
    """What to say where a head is a row of values."""
    if not looks_like_values(head):
        return ""
    some = ", ".join(head[:4])
    return f"; the first line looks like values ({some}, ...): put a line with names in front"


def looks_like_values(names: Sequence[str]) -> bool:
    """Whether names are numbers, as where a file has no line with names."""
    return any(wording_of([name]) is not None for name in names if name)


def _delimiter(text: str, path: Path) -> str:
    """The sign that gives the first lines the same number of cells, and most of them."""
    best, most = ",", (0.0, 1)
    for sign in _SIGNS:
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sign) if any(row)]
        lengths = [len(row) for row in rows]
        if not lengths:
            continue
        usual = max(set(lengths), key=lengths.count)
        found = round(lengths.count(usual) / len(lengths), 1), usual
        if usual > 1 and found > most:
            best, most = sign, found
    return best


def _codes(
    file: TextIO, sign: str, width: int, first: Sequence[str], path: Path
) -> list[tuple[np.ndarray[Any, Any], list[str]]]:
    """Codes and words of each column."""
    coders = [Coder() for _ in range(width)]
    kept: list[list[np.ndarray[Any, Any]]] = [[] for _ in range(width)]
    try:
        for lines in _chunks(file, sign, width, first, path):
            for coder, those, cells in zip(coders, kept, zip(*lines, strict=True), strict=True):
                those.append(coder.codes(cells))
    except csv.Error as error:
        raise DataError(f"{path.name}: {error}; a quote that is not closed?") from None
    nothing = np.zeros(0, dtype=np.int64)
    return [
        (np.concatenate([nothing, *those]), list(coder))
        for coder, those in zip(coders, kept, strict=True)
    ]


def _chunks(
    file: TextIO, sign: str, width: int, first: Sequence[str], path: Path
) -> Iterator[list[list[str]]]:
    """Rows of cells, some at a time; lines without anything are left out."""
    reader = csv.reader(chain(first, file), delimiter=sign, skipinitialspace=True)
    row = 0
    while lines := list(islice(reader, _LINES)):
        if set(map(len, lines)) != {width}:
            lines = [line for line in lines if line]
            for number, line in enumerate(lines, row):
                if len(line) != width:
                    raise DataError(
                        f"{path.name}: row {number} has {len(line)} cells, but the head {width}: "
                        f"{sign.join(line)!r:.80}"
                    )
        row += len(lines)
        if lines:
            yield lines


def _is_above_numbers(column: Column, words: Sequence[str]) -> bool:
    """Whether the first word of a column is none, and all others are numbers or dates."""
    first, others = words[0].strip(), [word.strip() for word in words[1:] if word.strip()]
    if not first or any(map(str.isdigit, first)) or first == "?":
        return False
    if column.kind != "text":
        return first in column.wording.missing
    return wording_of(others[:_LINES]) is not None


def _refuse_second_head(
    columns: dict[str, Column], coded: Sequence[Sequence[str]], path: Path
) -> None:
    """Refuse a first row of words above columns of numbers."""
    strange = [
        words[0].strip() for column, words in zip(columns.values(), coded, strict=True)
        if len(column) > 2 and len(words) > 2 and _is_above_numbers(column, words)
    ]  # fmt: skip
    if len(strange) > 1:
        raise DataError(
            f"{path.name}: the second line looks like a second head ({', '.join(strange[:4])}) above "
            "columns of numbers: leave one of the two out"
        )
