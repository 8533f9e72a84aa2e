"""What a journal is: its tables, and the shape of what stands in them.

A journal is read that somebody may have damaged, or made. So its tables are compared with those
that are made here, and each value with what it has to be; queries are given a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from trainbus.errors import JournalError, RecordRejected
from trainbus.storage.untrusted import (
    Shape,
    Unfit,
    choice,
    either,
    fields,
    inside,
    listed,
    mapping,
    maybe,
    one_of,
    parsed,
    shown,
    text,
    whole,
    within,
)

VERSION = 1
TABLES = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE records (
    record INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, step INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE names (name INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE metrics (
    name INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, repeat INTEGER NOT NULL,
    records BLOB NOT NULL, steps BLOB NOT NULL, times BLOB NOT NULL, numbers BLOB NOT NULL
);
CREATE INDEX metrics_by_name ON metrics (name, first);
CREATE INDEX metrics_by_record ON metrics (last);
CREATE TABLE loggers (
    name TEXT PRIMARY KEY, position INTEGER NOT NULL, state TEXT NOT NULL, ended INTEGER NOT NULL
);
PRAGMA user_version = {VERSION};
"""
_MADE = {" ".join(each.split()) for each in TABLES.split(";")}
_OURS = ("about", "records", "names", "metrics", "loggers")
#: Seconds that one query may take.
QUERY_SECONDS = 30.0
#: Instructions of SQLite's between two looks at the clock.
_LOOK = 100_000

#: Seconds since the epoch, up to the year 9999.
LAST = 2.5e11
MOMENT = within(0.0, LAST)
_TEXT = one_of(str)
#: What stands in the columns of each table, as they are asked for.
BLOB = one_of(bytes)
NAME = text(100_000)
ROW_OF_RECORD = (whole(), MOMENT, _TEXT, whole(-(2**63)), _TEXT)
_ABOUT = fields(
    {},
    {
        # It becomes a part of paths.
        "id": text(255, r"(?!\.{1,2}$)[^/\\\x00]+"),
        "name": text(),
        "stage": text(100),
        "started": MOMENT,
        "host": text(),
        "pid": whole(),
        "command": either(listed(text(1_000_000)), text(1_000_000)),
        "version": text(100),
        "header": mapping(text(100_000)),
    },
)
_BODIES: dict[str, Shape] = {
    "params": mapping(),
    "tags": mapping(),
    "event": fields(
        {"event": text(100)},
        {"status": text(100), "path": text(), "reason": maybe(text(100_000))},
    ),
    "artifact": fields(
        {
            "name": NAME,
            "kind": choice("file", "figure", "image", "text", "table", "model"),
            "path": text(),
            "bytes": whole(),
            "sha256": text(64, "([0-9a-f]{64})?"),
        }
    ),
}


def is_a_journal(connection: sqlite3.Connection) -> bool:
    """Whether a database has the tables that journals of all formats have."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return {"about", "records"} <= names


def check_tables(connection: sqlite3.Connection) -> None:
    """Refuse a database with views, triggers or other tables where a journal has its own.

    Raises:
        Unfit: it is no journal.
    """
    rows = connection.execute("SELECT type, tbl_name, sql FROM sqlite_master").fetchall()
    made = {" ".join(str(sql).split()) for _, _, sql in rows}
    for kind, table, sql in rows:
        foreign = table in _OURS and sql is not None and " ".join(str(sql).split()) not in _MADE
        if kind in ("view", "trigger") or foreign:
            raise Unfit(f"it has a {kind} of {shown(table)} that no journal has")
    if missing := [table for table in _OURS if not any(f" {table} (" in each for each in made)]:
        raise Unfit(f"it has no table {missing[0]!r}")


class Patience:
    """Ends a query that takes too long; what is written takes as long as it takes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._deadline = float("inf")
        connection.set_progress_handler(lambda: monotonic() > self._deadline, _LOOK)

    def __enter__(self) -> None:
        self._deadline = monotonic() + QUERY_SECONDS

    def __exit__(self, *_error: object) -> None:
        self._deadline = float("inf")


def check_row(row: tuple[Any, ...], shapes: tuple[Shape, ...], where: str) -> None:
    """Compare the columns of a row with what they have to be. Raises `Unfit`."""
    for index, (value, shape) in enumerate(zip(row, shapes, strict=True)):
        shape(value, f"{where}, column {index}")


def body_of(content: str, kind: str) -> dict[str, Any]:
    """The body of a record. Raises `Unfit`."""
    body: dict[str, Any] = parsed(content, "the body of a record")
    shape = _BODIES.get(kind)
    if shape is None:  # metrics have a table of their own
        raise Unfit(f"a record of the kind {shown(kind)}: one of {', '.join(_BODIES)}")
    shape(body, f"a record of the kind {shown(kind)}")
    return body


def about_of(rows: list[tuple[str, str]]) -> dict[str, Any]:
    """What is told of the run. Raises `Unfit`."""
    about = {key: parsed(value, key) for key, value in rows}
    _ABOUT(about, "what it tells of the run")
    return about


def numbered(known: Mapping[str, int], names: Iterable[str]) -> dict[str, int]:
    """Names with their numbers, and further ones behind them. Raises `Unfit`."""
    numbers = dict(known)
    for name in names:
        if name not in numbers:
            NAME(name, "the name of a number")
            numbers[name] = len(numbers) + 1
    return numbers


def cut_to_fit(about: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a run with texts that are no longer than a reader takes."""
    most = {"name": 10_000, "stage": 100, "host": 10_000, "version": 100}
    fitting: dict[str, Any] = {
        key: value[: most[key]] if key in most and isinstance(value, str) else value
        for key, value in about.items()
    }
    if "header" in fitting:
        topics = fitting["header"].items()
        fitting["header"] = {str(topic)[:1000]: str(line)[:100_000] for topic, line in topics}
    return fitting


def state_of(content: str) -> dict[str, Any]:
    """What a logger keeps. Raises `Unfit`."""
    state: dict[str, Any] = parsed(content, "the state of a logger")
    mapping()(state, "the state of a logger")
    return state


def check_beside(path: Path) -> None:
    """Refuse a journal by which SQLite would write, remove or wait elsewhere. Raises `Unfit`.

    Links lead elsewhere; pipes have no end; and a rollback journal names further files, which
    SQLite removes. A journal of trainbus has none.
    """
    for suffix in ("", "-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.is_symlink():
            raise Unfit(f"{beside.name} is a link")
        if beside.exists() and not beside.is_file():
            raise Unfit(f"{beside.name} is no file")
    rollback = path.with_name(f"{path.name}-journal")
    if rollback.is_symlink() or rollback.exists():
        raise Unfit(f"{rollback.name} lies beside it, which trainbus does not write")


@contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """What SQLite says, with the file that it says it of."""
    try:
        yield
    except (
        sqlite3.Error,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
    ) as error:
        raise JournalError(f"{what} {path}: {error}") from error


@contextmanager
def refused() -> Iterator[None]:
    """Tell a record that no file can hold from a file that cannot be written."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, sqlite3.InterfaceError) as error:
        raise RecordRejected(f"{type(error).__name__}: {error}") from error


def artifact_path(body: Mapping[str, Any], directory: Path) -> Path:
    """Where the file of an artifact is: what the run wrote itself is in its directory.

    A file or a model stays where it was when it was logged, which may be anywhere; that it is the
    same still is told by its checksum.

    Raises:
        RecordRejected: the journal names another place.
    """
    path = Path(body["path"])
    try:
        if body["kind"] not in ("file", "model"):
            return inside(directory, "artifacts", *path.relative_to("artifacts").parts)
        if not path.is_absolute() and ".." in path.parts:
            raise Unfit(f"{shown(str(path))} leads out of the run's directory")
    except ValueError as error:
        raise RecordRejected(f"{body['kind']} {shown(body['name'])}: {error}") from None
    return directory / path
