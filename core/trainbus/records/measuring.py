"""The thread that reads files which a run logged, so that nothing else waits for a large one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

from trainbus.records import artifacts
from trainbus.records.journal import EntryTuple


class Measuring:
    """Makes records of artifacts that are files: it reads them, for their size and checksum.

    Args:
        directory: that of the run.
        put: takes what is to be written.
        report: told what goes wrong, in one line.
    """

    def __init__(
        self, directory: Path, put: Callable[[EntryTuple], None], report: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._put = put
        self._report = report
        #: Entries, and None behind the last.
        self._queue: SimpleQueue[EntryTuple | None] = SimpleQueue()
        self._ended = False
        #: The names of those that are not measured yet.
        self._left: list[str] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, entry: EntryTuple) -> None:
        """Have a file measured, and written then."""
        with self._changed:
            self._left.append(entry[3]["artifact"].name)
        self._queue.put(entry)
        if self._thread is None:
            # A daemon: a disk that does not answer keeps no interpreter.
            self._thread = threading.Thread(target=self._work, name="trainbus-files", daemon=True)
            self._thread.start()

    def wait(self, seconds: float, interrupted: Callable[[], bool] = lambda: False) -> list[str]:
        """Wait until all are measured, no longer than so many seconds; returns the names left."""
        end = monotonic() + seconds
        with self._changed:
            while self._left and (time := end - monotonic()) > 0 and not interrupted():
                self._changed.wait(min(time, 0.1))
            return list(self._left)

    def end(self) -> None:
        """Take no more; what is still being read is left out."""
        self._ended = True
        self._put = _left_out  # who took them is held no longer
        self._queue.put(None)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None and not self._ended:
            try:
                record = kept(entry, self._directory, self._report)
                self._put(record)
            except Exception as error:
                artifact = entry[3]["artifact"]
                self._report(f"{artifact.kind} {artifact.name!r} is left out: {error}")
            with self._changed:
                del self._left[0]
                self._changed.notify_all()


def _left_out(entry: EntryTuple) -> None:
    """Takes what came after the end."""


def kept(entry: EntryTuple, directory: Path, report: Callable[[str], None]) -> EntryTuple:
    """The entry as the journal has it: an artifact is written to a file, or measured.

    Raises:
        OSError: the file cannot be written, or read.
    """
    kind, time, step, body = entry
    if kind != "artifact" or "artifact" not in body:  # it was measured already
        return entry
    artifact = body["artifact"]
    kept_body, left_out = artifacts.keep(artifact, directory)
    if left_out:
        report(
            f"{artifact.kind} {artifact.name!r}: only regular files are kept of it, and not "
            f"{', '.join(left_out)}"
        )
    return kind, time, step, kept_body
