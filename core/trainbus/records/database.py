"""The database of a journal: made, opened to write or to read, copied, and set aside."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

from trainbus.errors import JournalError
from trainbus.records import journal_schema as schema
from trainbus.records.journal_schema import explained
from trainbus.storage import files
from trainbus.storage.files import replacing, sync_directory
from trainbus.storage.lock import FILE_NAME as LOCK, lock


class _Closes(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closes)

#: Files that SQLite keeps beside a database that is open, or was when its process was killed.
_BESIDE = ("-wal", "-shm", "-journal")
#: Seconds to wait for another program that holds the database.
_PATIENCE = 10


class UnknownFormat(JournalError):
    """A journal of a newer format, which is whole, and which this trainbus cannot read."""


def to_write(path: Path) -> sqlite3.Connection:
    """Open a journal that is whole to write to it, or make one where none is.

    Raises:
        JournalError: it cannot be written, is damaged, or another program's.
    """
    with explained(path, "cannot write"):
        schema.check_beside(path)
        path.touch(0o600)  # what a run logs is its owner's to show
    with explained(path, "cannot write"), or_closed(_connect(str(path))) as connection:
        if not connection.execute("SELECT name FROM sqlite_master").fetchall():
            _execute(connection, "PRAGMA journal_mode = MEMORY")  # nothing beside it
            connection.executescript(f"BEGIN IMMEDIATE; {schema.TABLES} COMMIT;")
        _check_format(path, connection)
        # Readers do not wait for the writer. A killed process loses nothing of what was
        # committed; a power cut may lose the last seconds, and the file still opens.
        _execute(connection, "PRAGMA journal_mode = WAL")
        _execute(connection, "PRAGMA synchronous = NORMAL")
        if (found := _execute(connection, "PRAGMA quick_check(1)")) != "ok":
            raise JournalError(f"{path} is damaged: {found}")
        return connection


def to_read(path: Path) -> sqlite3.Connection:
    """Open a journal to read it. Raises `JournalError`."""
    if not path.is_file():
        raise JournalError(f"{path.parent} has no {path.name}: no run logged there")
    with explained(path, "cannot read"):
        schema.check_beside(path)
        # A reader that could write would take itself for the last user, where the writer's locks
        # were lost, and remove the log under it. `immutable` is for a medium that takes no
        # writing: of a log there, nothing is read.
        for options in ("mode=ro", "mode=ro&immutable=1"):
            connection = _connect(f"{path.absolute().as_uri()}?{options}")
            try:
                with or_closed(connection):
                    _execute(connection, "PRAGMA query_only = ON")
                    _check_format(path, connection)
                    return connection
            except sqlite3.OperationalError as error:
                failure = error
        raise failure


def check_closed(path: Path) -> None:
    """Look whether a journal that nobody has open is one. Raises `JournalError`."""
    with explained(path, "cannot read"):
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"  # makes nothing beside it
        with closing(_connect(address)) as connection:
            _check_format(path, connection)


def has_log(path: Path) -> bool:
    """Whether a journal is open to be written, or was when its process was killed."""
    return path.with_name(f"{path.name}-wal").exists()


def tidy(path: Path) -> None:
    """Remove what a reader made beside a journal that was closed; not under a run at work."""
    directory = path.parent
    held = None
    try:
        if (directory / LOCK).exists() and (held := lock(directory)) is None:
            return
        if has_log(path) and not path.with_name(f"{path.name}-wal").stat().st_size:
            for suffix in _BESIDE:
                files.remove(path.with_name(path.name + suffix))
    except OSError:  # another user's
        pass
    finally:
        if held is not None:
            held.release()


def copy(connection: sqlite3.Connection, path: Path, close: bool = False) -> None:
    """Copy all that was committed to another file, whole, also while others write.

    Args:
        connection: of the database.
        path: where the copy goes; what is there gives way.
        close: close the connection before the copy takes its place: it removes a log at its path.

    Raises:
        sqlite3.Error, OSError: it cannot be read, or written.
    """
    with replacing(path) as beside:
        with closing(sqlite3.connect(beside)) as target:
            connection.backup(target)
        if close:
            connection.close()
        for suffix in _BESIDE:  # of another database than this one
            files.remove(path.with_name(path.name + suffix))


def set_aside(path: Path) -> Path:
    """Give a journal that is of no use another name, with what belongs to it. Raises `OSError`."""
    number = 1
    while (kept := path.with_stem(f"{path.stem}-damaged-{number}")).exists():
        number += 1
    for suffix in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    sync_directory(path.parent)
    return kept


def remove(path: Path) -> None:
    """Remove a database and what belongs to it, if it is there and can be removed."""
    for suffix in ("", *_BESIDE):
        with suppress(OSError):
            path.with_name(path.name + suffix).unlink()


def _connect(where: str) -> sqlite3.Connection:
    return sqlite3.connect(
        where, timeout=_PATIENCE, check_same_thread=False, isolation_level=None,
        uri=where.startswith("file:"),
    )  # fmt: skip


@contextmanager
def or_closed(connection: C) -> Iterator[C]:
    """Close a connection where what follows fails: later it would remove a log at its path."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _execute(connection: sqlite3.Connection, query: str) -> object:
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    version = _execute(connection, "PRAGMA user_version")
    if version and version != schema.VERSION and schema.is_a_journal(connection):
        raise UnknownFormat(
            f"{path} is a journal of format {version}, this trainbus reads format {schema.VERSION}"
        )
    schema.check_tables(connection)
