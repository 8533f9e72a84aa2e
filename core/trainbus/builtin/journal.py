"""Keep what a run logs in its journal, and have it delivered to the loggers."""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import time as clock
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from trainbus import artifacts, delivery
from trainbus.errors import JournalError, PluginError, together
from trainbus.journal import FILE_NAME, EntryTuple, JournalFile, RecordKind
from trainbus.markers import hookimpl
from trainbus.options import hide_secrets_of
from trainbus.version import __version__

if TYPE_CHECKING:
    from trainbus.artifacts import Artifact
    from trainbus.run import Run

logger = logging.getLogger("trainbus")

#: Entries that wait in memory at most, when the journal cannot be written (the disk is full).
_MAX_WAITING = 100_000


class Journal:
    """Write each record of a fit to `journal.db` in the run's directory, and on to the loggers.

    The training thread puts records into a queue; one thread writes them, in batches, and one for
    each logger carries them from there. A test, a validation or a prediction of its own is
    journaled where there is a logger to deliver to.

    Args:
        seconds: what is logged is on the disk after so long, or at the end of the batch at hand.
        records: and after so many records, if that is sooner.
        finish_seconds: how long loggers may take to finish when the run ends.
        patience: seconds for which a logger may fail before it is set aside.
    """

    def __init__(
        self,
        seconds: float = 1.0,
        records: int = 1000,
        finish_seconds: float = 60.0,
        patience: float = 120.0,
    ) -> None:
        if seconds <= 0:
            raise PluginError(f"seconds={seconds}: give a number greater than 0")
        if records < 1:
            raise PluginError(f"records={records}: give a whole number of at least 1")
        for name, value in {"finish_seconds": finish_seconds, "patience": patience}.items():
            if value < 0:
                raise PluginError(f"{name}={value}: give a number of at least 0")
        self.seconds = seconds
        self.records = records
        self.finish_seconds = finish_seconds
        self.patience = patience
        self._writer: Writer | None = None
        self._wanted = False
        self._deliveries: list[delivery.Delivery] = []

    # --- the run -------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def on_run_start(self, run: Run) -> None:
        """Open the journal and the loggers, so that what they lack is known before step 0."""
        self._writer, self._deliveries = None, []
        loggers = self._loggers(run)
        # Half of what is allowed passes before numbers are fetched, half before they are written.
        run.fetch_within(self.seconds / 2, max(1, self.records // 2))
        self._wanted = not run.dry_run and bool(loggers or (run.stage == "train" and not run.rank))
        if self._wanted and run.stage != "predict":
            self._open(run)

    def _loggers(self, run: Run) -> list[str]:
        plugins = run.bus.plugins
        return [
            name
            for name in run.bus.loggers
            if run.rank == 0 or getattr(plugins[name], "all_ranks", False)
        ]

    def _open(self, run: Run) -> Writer:
        path = run.dir / (FILE_NAME if run.rank == 0 else _of_rank(run.rank))
        file = JournalFile.create(path)
        about = file.about()
        started = about.get("started", clock.time())
        file.tell(
            id=run.dir.name, name=run.name, stage=run.stage, started=started,
            host=platform.node(), pid=os.getpid(), command=hide_secrets_of(sys.argv),
            version=__version__, header=run.header,
        )  # fmt: skip

        def report(message: str, errors: list[str] = run.errors) -> None:
            errors.append(message)
            logger.warning("%s", message)

        hooks = run.bus.loggers
        for name in self._loggers(run):
            info = delivery.RunInfo(
                run.name, run.dir.name, run.dir.absolute(), started, dict(run.header),
                rank=run.rank,
            )  # fmt: skip
            self._deliveries.append(
                delivery.Delivery(
                    name, run.bus.who(name), hooks[name], info, file, report, self.patience
                )
            )
        self._writer = Writer(file, self._deliveries, report, self.seconds / 2, self.records // 2)
        failures: list[BaseException] = []
        for each in self._deliveries:
            each.start()
        for each in self._deliveries:
            try:
                each.wait_until_open()
            except BaseException as error:
                failures.append(error)
            run.header.update(each.info.header)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise together([PluginError(str(failure)) for failure in failures])
        self._event(run, "start")
        return self._writer

    @hookimpl(trylast=True)
    def on_fit_start(self, run: Run) -> None:
        """Keep the header, which is complete now."""
        if self._writer is not None:
            self._writer.file.tell(header=run.header)

    @hookimpl(wrapper=True)
    def save_checkpoint(self, run: Run) -> Generator[None, bool, bool]:
        """Write what was logged up to here: a run that goes on from here does not log it again."""
        run.flush()
        if self._writer is not None:
            self._writer.flush()
        return (yield)

    @hookimpl
    def on_checkpoint_loaded(self, run: Run, path: Path) -> None:
        """The run stands at an earlier step, perhaps."""
        self._event(run, "resume", path=str(path))

    @hookimpl
    def on_checkpoint_saved(self, run: Run, path: Path) -> None:
        """Note it."""
        self._event(run, "checkpoint", path=str(path))

    @hookimpl
    def on_exception(self, run: Run, error: BaseException) -> None:
        """Note it, and write what waits."""
        self._event(run, "exception", type=type(error).__name__, message=str(error))
        if self._writer is not None:
            self._writer.flush()

    @hookimpl(trylast=True)
    def on_run_end(self, run: Run, status: str) -> None:
        """Write what is left, and give the loggers time to finish."""
        run.flush()  # what other listeners of this event logged
        writer, self._writer = self._writer, None
        deliveries, self._deliveries = self._deliveries, []
        self._wanted = False
        if writer is None:
            return
        interruption = run.interruption
        try:
            end = {"event": "end", "status": status, "reason": run.stop_reason}
            writer.put(("event", clock.time(), run.global_step, end))
            writer.stop()
            delivery.finish(
                deliveries, status, self.finish_seconds,
                lambda: run.interruption is not interruption,
            )  # fmt: skip
        finally:
            writer.file.close()

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_metrics(self, run: Run, step: int, metrics: Mapping[str, float], time: float) -> None:
        """Put them into the queue."""
        if (writer := self._writer) is not None:
            writer.put(("metrics", time, step, metrics))
        else:
            self._put(run, "metrics", time, step, metrics)

    @hookimpl
    def on_params(self, run: Run, params: Mapping[str, Any]) -> None:
        """Put them into the queue."""
        self._put(run, "params", clock.time(), run.global_step, params)

    @hookimpl
    def on_tags(self, run: Run, tags: Mapping[str, str]) -> None:
        """Put them into the queue."""
        self._put(run, "tags", clock.time(), run.global_step, tags)

    @hookimpl
    def on_artifact(self, run: Run, artifact: Artifact) -> None:
        """Copy what may change, and put it into the queue."""
        try:
            body = {"artifact": artifacts.capture(artifact)}
        except Exception as error:  # its value is at fault: the run goes on, and so do the records
            report = f"{artifact.kind} {artifact.name!r} is left out: {error}"
            run.errors.append(report)
            logger.warning("%s", report)
            return
        self._put(run, "artifact", artifact.time, artifact.step, body)

    def _event(self, run: Run, event: str, **more: Any) -> None:
        if self._writer is not None:
            body = {"event": event, **more}
            self._writer.put(("event", clock.time(), run.global_step, body))

    def _put(
        self, run: Run, kind: RecordKind, time: float, step: int, body: Mapping[str, Any]
    ) -> None:
        writer = self._writer
        if writer is None:
            if not self._wanted:
                return
            writer = self._open(run)
        writer.put((kind, time, step, body))


class Writer:
    """The thread that writes the journal: what waits in its queue, once in `seconds`.

    Args:
        file: the journal.
        deliveries: told when there are new records.
        report: told what goes wrong, in one line.
        seconds: between two writes.
        records: values that wait at most, unless they cannot be written.
    """

    def __init__(
        self,
        file: JournalFile,
        deliveries: list[delivery.Delivery],
        report: Any,
        seconds: float,
        records: int,
    ) -> None:
        self.file = file
        self._deliveries = deliveries
        self._report = report
        self._seconds = seconds
        self._records = max(1, records)
        #: Entries, and events that are set once what was put before them is written.
        self._queue: SimpleQueue[EntryTuple | threading.Event] = SimpleQueue()
        #: Taken from the queue, and not written yet.
        self._waiting: list[EntryTuple] = []
        #: Values put into the queue since it was emptied.
        self._values = 0
        self._wake = threading.Event()
        self._stopped = False
        self._failing = False
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def put(self, entry: EntryTuple) -> None:
        """Have it written soon."""
        self._queue.put(entry)
        self._values += len(entry[3])
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="trainbus-journal", daemon=True)
            self._thread.start()
        elif self._values >= self._records:
            self._wake.set()

    def flush(self, seconds: float = 10.0) -> None:
        """Have all that was put written now, and wait for it; no longer than so many seconds."""
        if self._thread is not None:
            written = threading.Event()
            self._queue.put(written)
            self._wake.set()
            written.wait(seconds)

    def stop(self) -> None:
        """Write all that waits, and end the thread."""
        self._stopped = True
        if self._thread is not None:
            self._queue.put(threading.Event())
            self._wake.set()
            self._thread.join()
        if self._waiting or self._dropped:
            lost = len(self._waiting) + self._dropped
            self._report(f"{lost:,} records could not be written to {self.file.path}")

    def _work(self) -> None:
        queue, waiting = self._queue, self._waiting
        while not self._stopped or not queue.empty():
            taken = [queue.get()]
            if not self._stopped:
                self._wake.wait(self._seconds)
            self._wake.clear()
            self._values = 0
            with suppress(Empty):
                while True:
                    taken.append(queue.get_nowait())
            waiting += [each for each in taken if not isinstance(each, threading.Event)]
            self._write()
            for each in taken:
                if isinstance(each, threading.Event):
                    each.set()
            if (more := len(waiting) - _MAX_WAITING) > 0:
                self._dropped += more
                del waiting[-more:]

    def _write(self) -> None:
        try:
            while self._waiting:
                count = self._next()
                entries = self._waiting[:count]
                self.file.append([kept for entry in entries if (kept := self._kept(entry))])
                _, _, step, body = entries[-1]
                if body.get("event") == "resume":
                    self.file.go_back(step)
                del self._waiting[:count]
                self._failing = False
        except (JournalError, OSError) as error:
            if not self._failing:
                self._failing = True
                self._report(f"{error}; what is logged waits in memory until it can be written")
        for each in self._deliveries:
            each.notify()

    def _next(self) -> int:
        """How many entries are written next: up to an artifact, which takes long, or a return."""
        for count, (kind, _, _, body) in enumerate(self._waiting):
            if kind == "artifact":
                return max(1, count)
            if kind == "event" and body["event"] == "resume":
                return count + 1
        return len(self._waiting)

    def _kept(self, entry: EntryTuple) -> EntryTuple | None:
        kind, time, step, body = entry
        if kind != "artifact":
            return entry
        artifact = body["artifact"]
        try:
            return kind, time, step, artifacts.keep(artifact, self.file.path.parent)
        except OSError as error:
            if not isinstance(artifact.value, Path):  # ours to write
                raise
            self._report(f"{artifact.kind} {artifact.name!r} is left out: {error}")
            return None


def _of_rank(rank: int) -> str:
    path = Path(FILE_NAME)
    return f"{path.stem}-rank{rank}{path.suffix}"
