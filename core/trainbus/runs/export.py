"""`trainbus runs export`: metrics as CSV or Parquet, one value in a row."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any

from trainbus import terminal
from trainbus.errors import UsageError
from trainbus.records.series import Series
from trainbus.runs.stored_run import StoredRun, all_names, chosen, explained, labels
from trainbus.storage.files import replacing
from trainbus.texts import shown

COLUMNS = ("run", "name", "step", "time", "value")


def write(runs: Sequence[StoredRun], output: Path, patterns: Sequence[str]) -> None:
    """Write the metrics of runs.

    Args:
        runs: whose.
        output: a `.csv` or `.parquet` file, or `-` for CSV to the standard output.
        patterns: names or patterns of metrics; all without any.

    Raises:
        UsageError: there is no such metric, or nothing can write such a file.
    """
    names = chosen(patterns, all_names(runs))
    if str(output) == "-":
        _write_csv(sys.stdout, _series(runs, names))
        return
    writers = {".csv": _csv_file, ".parquet": _parquet_file}
    if (writer := writers.get(output.suffix.lower())) is None:
        raise UsageError(f"-o {output}: give a file that ends in .csv or .parquet, or -")
    try:
        with replacing(output) as beside:
            count = writer(beside, _series(runs, names))
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error}") from error
    terminal.say(f"{count:,} values of {len(names)} metrics: {output}")


def _series(runs: Sequence[StoredRun], names: Sequence[str]) -> Iterator[tuple[str, str, Series]]:
    for label, run in zip(labels(runs), runs, strict=True):
        known = set(run.names)
        for name in names:
            if name in known:
                with explained(run.dir):
                    series = run.journal.series(name)
                yield label, name, series


def _csv_file(path: Path, series: Iterator[tuple[str, str, Series]]) -> int:
    with path.open("w", encoding="utf-8", newline="") as file:
        return _write_csv(file, series)


def _write_csv(file: Any, series: Iterator[tuple[str, str, Series]]) -> int:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    count = 0
    for run, name, points in series:
        # A spreadsheet takes a text that begins like this for a formula.
        texts = [f"'{text}" if text[:1] in "=+-@\t\r" else text for text in (run, name)]
        if file.isatty():  # a file gets them as they are
            texts = [shown(text, lines=False) for text in texts]
        writer.writerows(zip(*map(repeat, texts), *points, strict=False))
        count += len(points.steps)
    return count


def _parquet_file(path: Path, series: Iterator[tuple[str, str, Series]]) -> int:
    try:
        pa: Any = import_module("pyarrow")
        pq: Any = import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(f"Parquet needs pyarrow: pip install pyarrow ({error})") from None
    text = pa.dictionary(pa.int32(), pa.string())
    kinds = (text, text, pa.int64(), pa.float64(), pa.float64())
    schema = pa.schema(list(zip(COLUMNS, kinds, strict=True)))
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for run, name, points in series:
            length = len(points.steps)
            texts = [
                pa.DictionaryArray.from_arrays(pa.array([0] * length, pa.int32()), [value])
                for value in (run, name)
            ]
            numbers = [
                pa.Array.from_buffers(kind, length, [None, pa.py_buffer(column)])
                for kind, column in zip(kinds[2:], points, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays([*texts, *numbers], schema=schema))
            count += length
    return count
