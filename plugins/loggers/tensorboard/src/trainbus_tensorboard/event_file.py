"""An event file that consists of whole flushes, so that what is written again is never doubled."""

from __future__ import annotations

import os
import platform
import time as clock
from collections.abc import Iterable
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from trainbus.storage.files import sync_directory

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary


#: What an event file is called; in the middle is the name of a host.
FORM = r"events\.out\.tfevents\.\d+\.[\w.-]*\.\d+\.\d+"
#: Of this process: two loggers of a run may begin in the same second.
_FILES = count()


class EventFile:
    """Gathers events in memory and appends them to a file, all or none.

    TensorBoard's own writer has a thread of its own, which writes when it likes and fails out of
    sight. A logger has a thread already, and must know what is on the disk.

    Args:
        directory: where the file will be; it is made with the first event.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        # The form of the name is TensorBoard's, which reads a directory's files in its order.
        moment, host = int(clock.time()), platform.node()
        name = f"events.out.tfevents.{moment:010d}.{host}.{os.getpid()}.{next(_FILES)}"
        self.path = directory / name
        #: Bytes that are safe.
        self.size = self.path.stat().st_size if self.path.exists() else 0
        self._first = Event(wall_time=clock.time(), file_version="brain.Event:2")
        self._waiting: list[Event] = []

    def add(self, values: Iterable[Summary.Value], step: int, time: float) -> None:
        """Take the values of one event, of one step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(value=values)
        self._waiting.append(Event(summary=summary, step=step, wall_time=time))

    def restart(self, step: int) -> None:
        """Begin again at a step: readers drop what they have of it and of later ones."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = SessionLog(status=SessionLog.START)
        self._waiting.append(Event(session_log=start, step=step, wall_time=clock.time()))

    def flush(self) -> None:
        """Put what was added on the disk. What fails is forgotten, and leaves the file as it was.

        Raises:
            OSError: it cannot be written.
        """
        from tensorboard.summary.writer.record_writer import RecordWriter

        events, self._waiting = self._waiting, []
        if not events:
            return
        buffer = BytesIO()
        writer = RecordWriter(buffer)
        for event in events if self.size else [self._first, *events]:
            writer.write(event.SerializeToString())
        with self.path.open("ab") as file:
            cut(self.path, self.size)
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        if not self.size:
            sync_directory(self.path.parent)
        self.size += len(buffer.getbuffer())


def cut(path: Path, size: int) -> None:
    """Drop what follows the first `size` bytes of a file: a flush that was not completed."""
    if path.exists() and path.stat().st_size > size:
        os.truncate(path, size)
