"""Delivery: one thread for each logger carries a run's records from the journal to it."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from sys import stderr
from time import monotonic
from typing import Any

from trainbus.errors import JournalError, PluginError, RecordRejected
from trainbus.records import artifacts
from trainbus.records.journal import JournalFile, LoggerState, Record
from trainbus.storage.untrusted import Shape, Unfit, inside

logger = logging.getLogger("trainbus")

#: Records that are read at once.
_BATCH = 1000
#: Seconds after which a logger's position is written down, also inside a batch.
_COMMIT_SECONDS = 1.0
#: Seconds between two flushes of a logger that keeps up.
_PACE = 0.5
#: Seconds between attempts: the first, and the longest.
_BACK_OFF = (0.25, 15.0)
#: When the run is over, nobody waits longer than so many seconds for a logger that only fails.
_LAST_PATIENCE = 15.0


@dataclass
class RunInfo:
    """A run as its loggers see it, while it trains or when it is replayed later."""

    #: The name of the task.
    name: str
    #: What no other run of this project has: the name of its directory.
    id: str
    #: The run's directory.
    dir: Path
    #: When it started, in seconds since the epoch.
    started: float
    #: What the run has to tell at its start, by topic; a logger adds the link to its run.
    header: dict[str, str]
    #: What the logger keeps from one start to the next, the remote run's id for example: values
    #: that JSON can hold. It is empty when this run comes to this logger for the first time.
    state: dict[str, Any] = field(default_factory=dict)
    #: The number of the record at hand. It is the same when a record is delivered again. At the
    #: start it is the last one that the logger has; set it back to get later ones once more.
    record: int = 0
    #: The run is over, and is sent from its journal.
    replay: bool = False
    #: This process among those of the run.
    rank: int = 0

    def check_state(self, fits: Shape, who: str) -> None:
        """Refuse a state that a logger did not keep; the journal may be somebody else's.

        Args:
            fits: the shape of what it keeps, of `trainbus.storage.untrusted`.
            who: the logger in words.

        Raises:
            PluginError: with the field; a replay with `--again` does without the state.
        """
        try:
            fits(self.state, "the state")
        except Unfit as error:
            raise PluginError(
                f"{who} did not write what the journal in {self.dir} keeps for it: {error}; "
                "`trainbus replay --again` sends the run as a new one"
            ) from None

    def place(self, name: str, who: str) -> Path:
        """A directory of its own in the run's. Raises `PluginError` where a link stands for it."""
        try:
            return inside(self.dir, name)
        except Unfit as error:
            raise PluginError(f"{who}: {error}") from None

    def first_time(self, key: str) -> bool:
        """True for the first call with this key (`@hookimpl(once=True)`)."""
        if key in self._done_once:
            return False
        self._done_once.add(key)
        return True

    def __post_init__(self) -> None:
        self._done_once: set[str] = set()


class Delivery:
    """Carries the records of one run to one logger, in order, on a thread of its own.

    A record that was handed over is flushed before the logger's position moves behind it, so each
    is delivered at least once. What fails is tried again, ever later; a logger that fails for
    `patience` seconds is set aside, and gets one more chance when the run ends.

    Args:
        name: the logger's name, under which its position is kept.
        who: the logger in words, for messages.
        hooks: its record hooks by name, as functions of the hooks' arguments.
        info: the run, as this logger sees it.
        journal: where the records are.
        report: told of each failure, in one line; called on the thread.
        patience: seconds of failing attempts, after which the logger is set aside.
    """

    def __init__(
        self,
        name: str,
        who: str,
        hooks: Mapping[str, Callable[..., Any]],
        info: RunInfo,
        journal: JournalFile,
        report: Callable[[str], None],
        patience: float = 120.0,
    ) -> None:
        self.name = name
        self.who = who
        self.info = info
        self.patience = patience
        before = journal.logger(name)
        info.state, info.record = before.state, before.position
        #: The number of the last record that the logger has for sure.
        self.position = before.position
        #: Why it gave up, for now.
        self.failure: str | None = None
        #: What went wrong in `on_log_start`.
        self.refusal: BaseException | None = None
        #: What the newest attempt failed with, for messages.
        self._trouble = ""
        self._hooks = hooks
        self._journal = journal
        self._report = report
        self._status: str | None = None
        self._abandoned = False
        #: Nobody waits for its start any more.
        self._late = False
        self._rejected: set[str] = set()
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._done = threading.Event()
        # A daemon: a client that hangs does not keep the interpreter.
        self._thread = threading.Thread(target=self._work, name=f"trainbus-{name}", daemon=True)

    # --- told by others ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; the logger's `on_log_start` is called first."""
        self._thread.start()

    def wait_until_open(self, seconds: float, interrupted: Callable[[], bool]) -> None:
        """Wait for `on_log_start`, and raise what it raised.

        One that takes longer is not waited for: what is logged is kept, and sent when it is ready.
        """
        deadline = monotonic() + seconds
        while not self._opened.wait(0.1) and not interrupted():
            if monotonic() >= deadline:
                self._late = True
                logger.warning(
                    "%s has not started in %.0f s: the run goes on, and its records are kept until "
                    "it has", self.who, seconds,
                )  # fmt: skip
                return
        if self.refusal is not None:
            raise self.refusal

    def notify(self) -> None:
        """There are new records."""
        self._wake.set()

    def end(self, status: str) -> None:
        """No record will follow: deliver what is left, then call `on_log_end`."""
        self._status = status
        self._wake.set()

    def wait(self, seconds: float) -> bool:
        """Wait until all is delivered and the logger was told of the end; False when it is not."""
        return self._done.wait(seconds)

    def abandon(self) -> None:
        """Waiting is over: deliver nothing more, as soon as the logger comes back."""
        self._abandoned = True
        self._wake.set()

    def give_up(self, seconds: float) -> None:
        """Report what was not delivered after so many seconds of waiting."""
        if self.failure is None and not self.left:
            self._fail(f"{self.who} has all records, and was not done after {seconds:.3g} s")
        elif self.failure is None:
            self._fail(
                f"{self.who} was given {seconds:.3g} s to finish and {self.left:,} records are "
                f"left{self._trouble}. Nothing is lost: `{self.mend}` sends them"
            )

    @property
    def left(self) -> int:
        """Records that the logger does not have yet."""
        return self._journal.last - self.position

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            if self._open():
                self._deliver()
            elif self._late and self.refusal is not None:
                self._fail(
                    f"{self.who}: {type(self.refusal).__name__}: {self.refusal}; its records are "
                    f"kept: `{self.mend}` sends them"
                )
        except JournalError as error:
            if not self._abandoned:  # else the journal was closed under it
                self._fail(f"{self.who}: {error}")
        except BaseException as error:  # of our own: nobody else would hear of it
            self._fail(f"{self.who}: {type(error).__name__}: {error}")
        finally:
            self._opened.set()
            self._done.set()

    def _open(self) -> bool:
        try:
            self._call("on_log_start")
            self.position = min(self.position, self.info.record)
            self._keep()
        except BaseException as error:
            error.add_note(f"raised by {self.who}, on_log_start")
            self.refusal = error
            return False
        self._opened.set()
        return True

    def _deliver(self) -> None:
        next_flush = 0.0
        while not self._abandoned:
            self._wake.clear()
            ending = self._status is not None
            if self.failure is None or ending:
                records = self._journal.after(self.position, _BATCH)
                if records:
                    early = next_flush - monotonic()
                    if early > 0 and len(records) < _BATCH and not ending:
                        self._pause(early)
                        continue
                    self._attempt(partial(self._send, records), ending)
                    next_flush = monotonic() + _PACE
                    continue
                if ending:
                    self._attempt(self._end, ending)
                    return
            self._wake.wait()

    def _attempt(self, act: Callable[[], None], ending: bool) -> None:
        """Do it, again and again if it fails; sets the logger aside when that lasts too long."""
        started, tries, pause, patience = monotonic(), 0, _BACK_OFF[0], self.patience
        while not self._abandoned:
            if self._status is not None and not ending:  # the run is over: no time to lose
                started, pause, ending = monotonic(), _BACK_OFF[0], True
            if ending and not self.info.replay:
                patience = min(self.patience, _LAST_PATIENCE)
            tries += 1
            try:
                act()
            except JournalError:
                raise
            except BaseException as error:  # an SDK's cancellation or exit is a failure, too
                logger.debug("%s", self.who, exc_info=error)
                self._trouble = f" ({type(error).__name__}: {error})"
                seconds = monotonic() - started
                if seconds + pause > patience or (ending and self.failure is not None):
                    self._set_aside(error, tries, seconds)
                    return
                self._pause(pause)
                pause = min(2 * pause, _BACK_OFF[1])
            else:
                self.failure, self._trouble = None, ""
                return

    def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the run ends or waiting for this logger is over."""
        deadline, ending = monotonic() + seconds, self._status is not None
        while (left := deadline - monotonic()) > 0 and not self._abandoned:
            if not ending and self._status is not None:
                return
            self._wake.wait(left)
            self._wake.clear()

    def _set_aside(self, error: BaseException, tries: int, seconds: float) -> None:
        again = self.failure is not None
        self.failure = f"{type(error).__name__}: {error}"
        if self._status is not None:
            self._abandoned = True
        if not again:
            self._fail(
                f"{self.who}: {self.failure}; set aside after {tries} attempts in {seconds:.0f} s. "
                f"Its records are kept: `{self.mend}` sends what is missing"
            )

    def _fail(self, message: str) -> None:
        self.failure = self.failure or message
        self._report(message)

    @property
    def mend(self) -> str:
        """The command that delivers what is left."""
        return shlex.join(["trainbus", "replay", str(self.info.dir), "--to", self.name])

    # --- one record after the other ------------------------------------------------------------

    def _send(self, records: list[Record]) -> None:
        started = monotonic()
        done = self.position
        try:
            for record in records:
                if self._abandoned:
                    break
                if record.number <= self.position:  # flushed by an attempt that failed later
                    continue
                self._hand_over(record)
                done = record.number
                if monotonic() - started > _COMMIT_SECONDS:
                    break
        finally:
            if done != self.position and not self._abandoned:
                self._guarded("", self._call, "on_log_flush")
                self.position = done
                self._keep()

    def _hand_over(self, record: Record) -> None:
        info, body, hooks = self.info, record.body, self._hooks
        info.record = record.number
        if record.kind == "metrics":
            if hook := hooks.get("on_metrics"):
                # A copy each time: a logger may change what it gets, and it may be sent again.
                self._guarded("metrics", hook, info, record.step, dict(body), record.time)
        elif record.kind == "artifact":
            if hook := hooks.get("on_artifact"):
                self._guarded(str(body["name"]), self._hand_over_artifact, hook, record)
        elif record.kind == "event" and body.get("event") == "return":
            self._call("on_log_return", record.step)
        elif record.kind in ("params", "tags"):
            self._guarded(record.kind, self._call, f"on_{record.kind}", deepcopy(body))

    def _hand_over_artifact(self, hook: Callable[..., Any], record: Record) -> None:
        artifact = artifacts.restore(record.body, record.step, record.time, self.info.dir)
        hook(self.info, artifact)

    def _guarded(self, what: str, act: Callable[..., Any], *arguments: Any) -> None:
        """Call; a record that the logger rejects is told of once for each `what`, or message."""
        try:
            act(*arguments)
        except RecordRejected as error:
            key = what or str(error)
            if key not in self._rejected:
                self._rejected.add(key)
                self._report(f"{self.who} leaves something out: {error}")

    def _end(self) -> None:
        assert self._status is not None
        self._call("on_log_end", self._status)
        self._keep(ended=True)

    def _call(self, hook: str, *arguments: Any) -> None:
        if call := self._hooks.get(hook):
            call(self.info, *arguments)

    def _keep(self, ended: bool = False) -> None:
        self._journal.set_logger(self.name, LoggerState(self.position, self.info.state, ended))


def finish(
    deliveries: Sequence[Delivery],
    status: str,
    seconds: float,
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Tell loggers of a run's end and wait until they are done; a line tells how far they are.

    Args:
        deliveries: those to wait for.
        status: how the run ended.
        seconds: how long to wait for all of them together; what is left then is reported.
        interrupted: whether to stop waiting.
    """
    started = monotonic()
    line = _Line(seconds)
    try:
        for each in deliveries:
            each.end(status)
        waiting = list(deliveries)
        while waiting and monotonic() - started < seconds and not interrupted():
            waiting = [each for each in waiting if not each.wait(0.1)]
            line.show(waiting, monotonic() - started)
    finally:
        line.clear()
        for each in deliveries:
            if not each.wait(0):
                each.abandon()
                each.give_up(monotonic() - started)


class _Line:
    """What the loggers still have to do: a line that is rewritten, or one message in a log."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._shown = False

    def show(self, waiting: Sequence[Delivery], elapsed: float) -> None:
        if elapsed < 1 or not waiting:
            return
        left = ", ".join(f"{each.name} ({each.left:,} records left)" for each in waiting)
        if stderr.isatty():
            stderr.write(f"\r\x1b[Kwaiting for {left}: {elapsed:.0f} of {self._seconds:.0f} s")
            stderr.flush()
        elif not self._shown:
            logger.warning("waiting up to %.0f s for %s", self._seconds, left)
        self._shown = True

    def clear(self) -> None:
        if self._shown and stderr.isatty():
            stderr.write("\r\x1b[K")
            stderr.flush()
