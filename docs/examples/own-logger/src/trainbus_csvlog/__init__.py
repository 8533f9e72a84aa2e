"""Write the metrics of a trainbus run to a CSV file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainbus import PluginError, hookimpl

if TYPE_CHECKING:
    from trainbus import RunInfo


class CsvLog:
    """Write `step, name, value, time` for each metric.

    Args:
        file: the file's name, in the directory of the run.
    """

    observer = True

    def __init__(self, file: str = "metrics.csv") -> None:
        self.file = file
        self._rows: list[tuple[int, str, float, float]] = []

    @hookimpl
    def on_log_start(self, run: RunInfo) -> None:
        """Open the file; rows that an earlier process wrote and did not flush are cut off."""
        self._rows = []
        self._path = Path(run.dir) / self.file
        self._state = run.state
        try:
            with self._path.open("ab") as file:
                file.truncate(self._state.setdefault("bytes", 0))
        except OSError as error:
            raise PluginError(f"plugin 'csvlog' cannot write {self._path}: {error}") from error
        run.header["csvlog"] = str(self._path)

    @hookimpl
    def on_metrics(self, step: int, metrics: Mapping[str, float], time: float) -> None:
        """Gather rows."""
        self._rows += [(step, name, value, time) for name, value in metrics.items()]

    @hookimpl
    def on_log_flush(self) -> None:
        """Append what was gathered, and wait for the disk."""
        rows, self._rows = self._rows, []  # after an error they are delivered again
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        with self._path.open("r+b") as file:
            file.truncate(self._state["bytes"])
            file.seek(self._state["bytes"])
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
            self._state["bytes"] = file.tell()
