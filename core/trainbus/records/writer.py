"""The thread that writes a run's journal."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from trainbus.errors import JournalError, RecordRejected, UsageError
from trainbus.records.delivery import Delivery
from trainbus.records.journal import EntryTuple, JournalFile
from trainbus.records.measuring import Measuring, kept

#: What may be over soon: no space, an error of the disk, one that is read-only for now.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
#: Entries that wait in memory at most, when the journal cannot be written (the disk is full).
_MAX_WAITING = 100_000
#: Seconds that a flush waits for files to be measured: small ones are, large ones need not be.
_MEASURED = 0.2


class _Mark(threading.Event):
    """Is set when what was put into the queue before it was looked at."""

    #: And is on the disk.
    written = False


class Writer:
    """The thread that writes the journal: what waits in its queue, once in `seconds`.

    Args:
        file: the journal.
        deliveries: told when there are new records.
        report: told what goes wrong, in one line.
        seconds: between two writes.
        records: values that wait at most, unless they cannot be written.
        make_place: makes the run's directory anew, where it was removed or moved away.
    """

    def __init__(
        self,
        file: JournalFile,
        deliveries: Sequence[Delivery],
        report: Callable[[str], None],
        seconds: float,
        records: int,
        make_place: Callable[[], object],
    ) -> None:
        self.file = file
        self._deliveries = deliveries
        self._report = report
        self._seconds = seconds
        self._records = max(1, records)
        self._make_place = make_place
        self._measuring = Measuring(file.path.parent, self.put, report)
        self._queue: SimpleQueue[EntryTuple | _Mark] = SimpleQueue()
        #: Taken from the queue, and not written yet.
        self._waiting: list[EntryTuple] = []
        #: Values put into the queue since it was emptied.
        self._values = 0
        self._wake = threading.Event()
        self._stopped = False
        self._failing = False
        #: The run is over: what cannot be written now never is.
        self._is_last = False
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

    def put_artifact(self, entry: EntryTuple) -> None:
        """Have an artifact written soon; one that is a file when it is measured."""
        is_file = isinstance(entry[3]["artifact"].value, Path)
        (self._measuring.add if is_file else self.put)(entry)

    def flush(self, seconds: float = 10.0) -> bool:
        """Have all that was put written now; returns whether it was, within so many seconds.

        A file that is being measured is waited for a moment only.
        """
        self._measuring.wait(_MEASURED)
        if self._thread is None:
            return True
        mark = _Mark()
        self._queue.put(mark)
        self._wake.set()
        return mark.wait(seconds) and mark.written

    def overdue(self) -> list[EntryTuple]:
        """What was put and is not written, as it would stand in the journal."""
        held: list[EntryTuple | _Mark] = []
        with suppress(Empty):
            while True:  # what the thread did not come to, while it writes
                held.append(self._queue.get_nowait())
        put = [each for each in held if not isinstance(each, _Mark)]
        found = [each for entry in [*self._waiting, *put] if (each := self._kept(entry))]
        for again in held:
            self._queue.put(again)
        return found

    def stop(self, seconds: float = 0.0, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Write all that waits, and end the thread; returns whether nothing was lost.

        Args:
            seconds: how long to wait for files that are being measured; others are left out.
            interrupted: whether to stop waiting for them.
        """
        if left := self._measuring.wait(seconds, interrupted):
            self._report(
                f"{', '.join(map(repr, left))}: not read to the end when the run was over, after "
                f"{seconds:.3g} s more; left out"
            )
        self._measuring.end()
        self._stopped = True
        if self._thread is not None:
            self._queue.put(_Mark())
            self._wake.set()
            self._thread.join()
        if lost := len(self._waiting) + self._dropped:
            self._report(f"{lost:,} records could not be written to {self.file.path}")
        return not lost

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
            waiting += [each for each in taken if not isinstance(each, _Mark)]
            self._write()
            for each in taken:
                if isinstance(each, _Mark):
                    each.written = not waiting
                    each.set()
            if (more := len(waiting) - _MAX_WAITING) > 0:
                self._dropped += more
                del waiting[-more:]
        if waiting:
            self._is_last = True
            self._write()

    def _write(self) -> None:
        try:
            if not self.file.is_in_place:
                self._begin_anew()
            while self._waiting:
                count = self._next()
                entries = self._waiting[:count]
                self._append([each for entry in entries if (each := self._kept(entry))])
                kind, _, _, body = entries[-1]
                if kind == "event" and body["event"] == "resume":
                    self.file.go_back()
                del self._waiting[:count]
                self._failing = False
        except (JournalError, UsageError, OSError) as error:
            if not self._failing:
                self._failing = True
                self._report(f"{error}; what is logged waits in memory until it can be written")
        except Exception as error:  # a fault of ours: the thread lives, and says it
            self._report(f"{self.file.path}: {type(error).__name__}: {error}")
            del self._waiting[: self._next()]
        for delivery in self._deliveries:
            delivery.notify()

    def _begin_anew(self) -> None:
        self._make_place()
        whole = self.file.begin_anew()
        self._report(
            f"{self.file.path} was removed or moved away while the run was at work; it is begun "
            f"anew with {'all' if whole else 'the newest'} records"
        )

    def _append(self, entries: Sequence[EntryTuple]) -> None:
        """Write them, but for those that cannot be written, which are set aside and named."""
        try:
            self.file.append(entries)
        except RecordRejected as error:
            if len(entries) == 1:
                kind, _, step, _ = entries[0]
                self._report(f"{kind} of step {step} cannot be written, and are left out: {error}")
                return
            for each in entries:  # whichever it is, the others are written
                self._append([each])

    def _next(self) -> int:
        """How many entries are written next: up to an artifact, which takes long, or a return."""
        for count, (kind, _, _, body) in enumerate(self._waiting):
            if kind == "artifact":
                return max(1, count)
            if kind == "event" and body["event"] == "resume":
                return count + 1
        return len(self._waiting)

    def _kept(self, entry: EntryTuple) -> EntryTuple | None:
        try:
            return kept(entry, self.file.path.parent, self._report)
        except OSError as error:
            artifact = entry[3]["artifact"]
            # A file of the user may be gone; one of ours is wanted, while the disk is full.
            is_ours = not isinstance(artifact.value, Path)
            if is_ours and error.errno in _PASSING and not self._is_last:
                raise
            self._report(f"{artifact.kind} {artifact.name!r} is left out: {error}")
            return None
