"""Keep what a run logs in its journal, and have it delivered to the loggers."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time as clock
import weakref
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_number, check_whole
from trainbus.errors import JournalError, PluginError, together
from trainbus.events.markers import hookimpl
from trainbus.records import artifacts, database, delivery, overdue
from trainbus.records.journal import FILE_NAME, EntryTuple, JournalFile, RecordKind
from trainbus.records.measuring import kept
from trainbus.records.writer import Writer
from trainbus.secrets import hide, hide_secrets_of
from trainbus.storage.lock import borrowed
from trainbus.version import __version__

if TYPE_CHECKING:
    from trainbus.engine.run import Run
    from trainbus.records.artifacts import Artifact

logger = logging.getLogger("trainbus")


class Journal:
    """Write each record of a fit to `journal.db` in the run's directory, and on to the loggers.

    The training thread puts records into a queue; one thread writes them, in batches, and one for
    each logger carries them from there. A test, a validation or a prediction of its own is
    journaled where there is a logger to deliver to.

    Args:
        seconds: what is logged is on the disk after so long, or at the end of the batch at hand.
        records: and after so many records, if that is sooner.
        finish_seconds: how long loggers may take to finish when the run ends, and how long files
            that were logged may take to be read.
        patience: seconds for which a logger may fail before it is set aside.
        start_seconds: how long the run waits for a logger to start.
    """

    def __init__(
        self,
        seconds: float = 1.0,
        records: int = 1000,
        finish_seconds: float = 60.0,
        patience: float = 120.0,
        start_seconds: float = 60.0,
    ) -> None:
        check_number(above=0, seconds=seconds)
        check_whole(1, records=records)
        check_number(
            0, finish_seconds=finish_seconds, patience=patience, start_seconds=start_seconds
        )
        self.seconds = seconds
        self.records = records
        self.finish_seconds = finish_seconds
        self.patience = patience
        self.start_seconds = start_seconds
        self._writer: Writer | None = None
        self._wanted = False
        #: What the journal could not take is kept beside it.
        self._has_overdue = False
        self._deliveries: list[delivery.Delivery] = []
        #: The run at work, by identity: what another one logs is not this one's.
        self._run: weakref.ref[Run] | None = None
        #: Parameters and tags of a run that has logged nothing else yet.
        self._held: list[EntryTuple] = []

    # --- the run -------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def on_run_start(self, run: Run) -> None:
        """Open the journal and the loggers, so that what they lack is known before step 0."""
        self._writer, self._deliveries, self._held = None, [], []
        self._run = weakref.ref(run)
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

        def report(message: str, errors: list[str] = run.errors) -> None:
            _tell(errors, message)

        file, started = _opened(
            path, report,
            id=run.dir.name, name=run.name, stage=run.stage, started=clock.time(),
            host=platform.node(), pid=os.getpid(), command=hide_secrets_of(sys.argv),
            version=__version__, header=hide(run.header),
        )  # fmt: skip

        hooks = run.bus.loggers
        for name in self._loggers(run):
            info = delivery.RunInfo(
                run.name, run.dir.name, run.dir.absolute(), started, hide(run.header),
                rank=run.rank,
            )  # fmt: skip
            self._deliveries.append(
                delivery.Delivery(
                    name, run.bus.who(name), hooks[name], info, file, report, self.patience
                )
            )
        _take_in_overdue(file, report)
        self._writer = Writer(
            file, self._deliveries, report, self.seconds / 2, self.records // 2, lambda: run.dir
        )
        failures: list[BaseException] = []
        for each in self._deliveries:
            each.start()
        for each in self._deliveries:
            try:
                each.wait_until_open(self.start_seconds, lambda: run.interruption is not None)
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
            try:
                self._writer.file.tell(header=hide(run.header))
            except JournalError as error:  # the run does not need it
                _tell(run.errors, f"the header is left out: {error}")

    @hookimpl(wrapper=True)
    def save_checkpoint(self, run: Run) -> Generator[None, bool, bool]:
        """Write what was logged up to here: a run that goes on from here does not log it again."""
        run.flush()
        if self._writer is not None:
            if self._writer.flush():
                self._forget_overdue(self._writer)
            else:
                self._keep_overdue(run, self._writer)
        return (yield)

    def _forget_overdue(self, writer: Writer) -> None:
        if self._has_overdue:  # of this process, and not one that could not be taken in
            self._has_overdue = False
            overdue.forget(writer.file.path)

    def _keep_overdue(self, run: Run, writer: Writer) -> None:
        path = writer.file.path
        late = (
            f"a state is saved at step {run.global_step}, and what was logged before it is not "
            f"all in {path}"
        )
        self._has_overdue = True
        try:
            kept = overdue.keep(writer.file, writer.overdue())
        except (JournalError, OSError) as error:
            _tell(run.errors, f"{late}: a kill would lose it ({error})")
        else:
            _tell(run.errors, f"{late}: the rest is kept in {kept.name}")

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
        self._run, self._wanted = None, False
        if writer is None:
            return
        before = run.interruption

        def interrupted() -> bool:
            return run.interruption is not before

        try:
            end = {"event": "end", "status": status, "reason": hide(run.stop_reason)}
            writer.put(("event", clock.time(), run.global_step, end))
            if writer.stop(self.finish_seconds, interrupted):
                self._forget_overdue(writer)
            delivery.finish(deliveries, status, self.finish_seconds, interrupted)
        finally:
            writer.file.close()
        try:
            database.check_closed(writer.file.path)
        except (JournalError, OSError) as error:  # somebody wrote into it
            _tell(run.errors, f"what was logged cannot be read any more: {error}")

    # --- records -------------------------------------------------------------------------------

    @hookimpl
    def on_metrics(self, run: Run, step: int, metrics: Mapping[str, float], time: float) -> None:
        """Put them into the queue."""
        if self._writer is not None and self._run is not None and self._run() is run:
            self._writer.put(("metrics", time, step, metrics))  # in each step
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
            _tell(run.errors, f"{artifact.kind} {artifact.name!r} is left out: {error}")
            return
        self._put(run, "artifact", artifact.time, artifact.step, body)

    def _event(self, run: Run, event: str, **more: Any) -> None:
        if self._writer is not None:
            body = {"event": event, **hide(more)}
            self._writer.put(("event", clock.time(), run.global_step, body))

    def _put(
        self, run: Run, kind: RecordKind, time: float, step: int, body: Mapping[str, Any]
    ) -> None:
        entry = (kind, time, step, body)
        if self._run is None or self._run() is not run:
            self._keep_late(run, entry)
        elif self._writer is not None:
            (self._writer.put_artifact if kind == "artifact" else self._writer.put)(entry)
        elif self._wanted and kind in ("params", "tags"):
            self._held.append(entry)  # alone they are no reason to make a directory
        elif self._wanted:
            writer = self._open(run)
            for held in self._held:
                writer.put(held)
            (writer.put_artifact if kind == "artifact" else writer.put)(entry)

    def _keep_late(self, run: Run, entry: EntryTuple) -> None:
        """Keep what a run logs when it is over; its loggers have ended."""
        path = run.dir / FILE_NAME if run.has_dir else None
        if path is None or not path.exists():
            return
        late = f"{entry[0]} logged when the run was over"
        try:
            with borrowed(path.parent), JournalFile.create(path) as file:
                file.append([kept(entry, path.parent, lambda m: _tell(run.errors, m))])
        except BlockingIOError:
            _tell(run.errors, f"{late} is left out: another process has its directory")
            return
        except (JournalError, OSError) as error:
            _tell(run.errors, f"{late} is left out: {error}")
            return
        logger.warning(
            "logged when the run was over: kept in %s, and sent to a logger by `trainbus replay`. "
            "Log in `on_fit_end` or `on_run_end` at the latest", path,
        )  # fmt: skip


def _opened(path: Path, report: Callable[[str], None], **about: Any) -> tuple[JournalFile, float]:
    """The journal to write to, told of the run, and when that began.

    One that is of no use, or that another program holds, is set aside.

    The states of the run are whole without it, and so the training goes on.

    Raises:
        JournalError: it has a newer format, or none can be made.
    """
    try:
        with database.or_closed(JournalFile.create(path)) as file:
            return file, _told(file, about)
    except database.UnknownFormat:
        raise
    except Exception as error:  # of any kind, since it may hold anything
        if not (path.exists() or path.is_symlink()):
            raise
        try:
            kept = database.set_aside(path)
        except OSError:
            raise error from None
        report(f"{error}; it is set aside as {kept.name}, and a new journal is begun")
    file = JournalFile.create(path)
    return file, _told(file, about)


def _told(file: JournalFile, about: dict[str, Any]) -> float:
    """Tell a journal of the run; returns when that began, as it stands there."""
    started: float = file.about().get("started", about["started"])
    file.tell(**about | {"started": started})
    return started


def _take_in_overdue(file: JournalFile, report: Callable[[str], None]) -> None:
    """Write what the journal lacked when the state was saved that the run goes on from."""
    path = overdue.place(file.path)
    try:
        overdue.take_in(file)
    except (JournalError, OSError) as error:
        try:
            where = f"it is set aside as {database.set_aside(path).name}"
        except OSError as failed:
            where = f"and it cannot be set aside: {failed}"
        report(f"{error}; what {path.name} holds is not in the journal; {where}")


def _tell(errors: list[str], message: str) -> None:
    errors.append(message)
    logger.warning("%s", message)


def _of_rank(rank: int) -> str:
    path = Path(FILE_NAME)
    return f"{path.stem}-rank{rank}{path.suffix}"
