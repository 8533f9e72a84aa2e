"""What a journal could not take when a state was saved, in a journal of its own beside it.

A run that goes on from that state does not log it again, so it is kept until the journal has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trainbus.errors import JournalError, RecordRejected
from trainbus.records import database
from trainbus.records.journal import EntryTuple, JournalFile, LoggerState

#: Who reads what is kept: its position is that of the newest record the journal had.
_READER = "journal"


def place(journal: Path) -> Path:
    """Where it is, for a journal at this path."""
    return journal.with_stem(f"{journal.stem}-overdue")


def keep(journal: JournalFile, entries: Sequence[EntryTuple]) -> Path:
    """Keep entries beside a journal, in place of those that were; returns where.

    Raises:
        JournalError: they cannot be written.
    """
    path = place(journal.path)
    forget(journal.path)
    with JournalFile.create(path) as file:
        file.set_logger(_READER, LoggerState(journal.last, {}, ended=False))
        try:
            file.append(entries)
        except RecordRejected:  # the writer names it when it comes to it
            for each in entries:
                with suppress(RecordRejected):
                    file.append([each])
    return path


def take_in(file: JournalFile) -> int:
    """Append what is kept beside a journal and not in it; returns how many records those were.

    Raises:
        JournalError: it cannot be read, or not be written.
    """
    path = place(file.path)
    if not (path.exists() or path.is_symlink()):
        return 0
    with JournalFile.open(path) as overdue:
        since = overdue.logger(_READER).position
        # What was written after all, before the process was killed.
        known = {each[1:4] for each in file.after(since, file.last)}
        found = [
            each[1:] for each in overdue.after(0, overdue.last)
            # An event of the run, such as a return, is that of the process that wrote it.
            if each.kind != "event" and each[1:4] not in known
        ]  # fmt: skip
    try:
        file.append(found)
    except RecordRejected as error:
        raise JournalError(f"{path} holds what no journal takes: {error}") from error
    forget(file.path)
    return len(found)


def forget(journal: Path) -> None:
    """Remove what is kept, for the journal has it."""
    database.remove(place(journal))
