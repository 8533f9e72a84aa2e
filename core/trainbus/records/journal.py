"""The journal: all that a run logged, in one SQLite file in its directory.

A record has a number; the numbers of a run's records rise by one, whatever their kind. Metrics
have a table of their own: what is written together is one row for each name, with columns of
little-endian 64-bit numbers. A row for each value costs ten times as much to write and to read.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from trainbus.records import database, journal_schema as schema, values
from trainbus.records.journal_schema import explained, refused
from trainbus.records.series import MetricColumns, Rewind, Series, gone_from
from trainbus.storage.files import same_file
from trainbus.storage.untrusted import Shape, maybe, one_of, whole

FILE_NAME = "journal.db"
#: What a record can be; an `event` is one of the run itself: start, checkpoint, exception, end.
RecordKind = Literal["params", "metrics", "tags", "artifact", "event"]
#: The newest records are kept in memory for loggers that keep up.
_TAIL = 5_000


class Entry(NamedTuple):
    """What is to become a record: its body is a mapping that JSON can hold."""

    kind: RecordKind
    time: float
    step: int
    body: Mapping[str, Any]


#: An entry, or a plain tuple that is made faster.
EntryTuple = tuple[RecordKind, float, int, Mapping[str, Any]]


class Record(NamedTuple):
    """A record: its number, its seconds since the epoch, its optimizer step, and its content."""

    number: int
    kind: RecordKind
    time: float
    step: int
    body: Mapping[str, Any]


class LoggerState(NamedTuple):
    """How far a logger is: the number of the last record it has, and what it keeps."""

    position: int
    state: dict[str, Any]
    #: It was told of the run's end.
    ended: bool


class JournalFile:
    """One run's journal, for all threads of one process; others may read it at the same time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._file = path.stat()
        #: A reader's, of a file that was closed: nothing is left beside it.
        self._tidy = False
        self._lock = threading.RLock()
        #: What was told of the run here.
        self._about: dict[str, Any] = {}
        self._patience = schema.Patience(connection)
        self._tail: deque[Record] = deque(maxlen=_TAIL)
        self._names: dict[str, int] = dict(
            self._rows("SELECT text, name FROM names", shapes=(schema.NAME, whole()))
        )
        self._told: dict[str, dict[str, Any]] = {"params": self.params(), "tags": self.tags()}
        #: The number of the newest record.
        self.last = newest[0] if (newest := self.newest()) else 0
        #: After a return to step `s`, the values of the steps behind it that are there already.
        #: What was logged behind the step that the run went back to, until it goes another way.
        self._repeatable: dict[str, dict[int, float]] | None = None

    # --- opening and closing -------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path) -> JournalFile:
        """Open a journal to write to, made if it is not there. Raises `JournalError`."""
        with database.or_closed(database.to_write(path)) as connection:
            return cls(path, connection)

    @classmethod
    def open(cls, path: str | Path) -> JournalFile:
        """Open a journal to read it. Raises `JournalError`."""
        path = Path(path)
        closed = not database.has_log(path)
        with database.or_closed(database.to_read(path)) as connection:
            file = cls(path, connection)
        file._tidy = closed
        return file

    @property
    def is_in_place(self) -> bool:
        """Whether what is written is the file at the path: it may be removed, or moved away."""
        return same_file(self.path, self._file)

    def begin_anew(self) -> bool:
        """Write a file at the path again, with all of the one that was removed or moved away.

        Returns:
            Whether all of it could still be read; else the newest records are in the new one.

        Raises:
            JournalError: it cannot be written.
        """
        with self._lock, explained(self.path, "cannot write"):
            try:
                database.copy(self._connection, self.path, close=True)
                whole = True
            except sqlite3.Error:
                self._connection.close()
                whole = False
            self._connection = database.to_write(self.path)
            self._patience = schema.Patience(self._connection)
            self._file = self.path.stat()
            if not whole:
                self._write_again()
            return whole

    def _write_again(self) -> None:
        """Write what is in memory: what was told of the run, and the newest records."""
        newest, self._tail = list(self._tail), deque(maxlen=_TAIL)
        told, self._told = self._told, {"params": {}, "tags": {}}
        self._names = {}
        self.last = newest[0].number - 1 if newest else self.last
        self.tell(**self._about)
        self.append([record[1:] for record in newest])
        self._told = told | self._told

    def backup(self, path: str | Path) -> None:
        """Copy it to another file, also while a run writes to it. Raises `JournalError`."""
        with self._lock, explained(self.path, "cannot copy"):
            database.copy(self._connection, Path(path))

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        with self._lock:
            self._connection.close()
            if self._tidy:
                self._tidy = False
                database.tidy(self.path)

    def __enter__(self) -> JournalFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # --- writing -------------------------------------------------------------------------------

    def append(self, entries: Sequence[EntryTuple]) -> None:
        """Write records in one transaction: all of them, or none.

        Raises:
            JournalError: the file cannot be written.
            RecordRejected: one of them can never be written.
        """
        with self._lock, explained(self.path, "cannot write"), refused():
            number, records = self.last, []
            rows: list[tuple[Any, ...]] = []
            metrics: dict[tuple[str, bool], MetricColumns] = {}
            told = dict(self._told)
            repeatable = self._repeatable
            for kind, time, step, body in entries:
                time = min(max(time, 0.0), schema.LAST)  # as a reader takes it, whatever the clock
                if kind == "metrics":
                    number += 1
                    repeats: set[str] = set()
                    if repeatable is not None:
                        repeats, differs = values.repeats(repeatable, step, body)
                        if differs:  # from here on nothing of the other way is left
                            repeats, repeatable = set(), None
                            text = json.dumps({"event": "return"})
                            rows.append((number, time, "event", step, text))
                            records.append(Record(number, "event", time, step, json.loads(text)))
                            number += 1
                    for name in body:
                        key = name, name in repeats
                        if (columns := metrics.get(key)) is None:
                            columns = metrics[key] = MetricColumns()
                        columns.records.append(number)
                        columns.steps.append(step)
                        columns.times.append(time)
                        columns.numbers.append(body[name])
                    if repeats:
                        body = {name: body[name] for name in body if name not in repeats}
                        if not body:
                            continue
                else:
                    text = values.text(body)
                    body = schema.body_of(text, kind)  # as every later reader has it, or refuses it
                    if kind in told:
                        known = told[kind]
                        body = {k: v for k, v in body.items() if k not in known or known[k] != v}
                        if not body:
                            continue
                        text = json.dumps(body)
                        told[kind] = known | body
                    number += 1
                    rows.append((number, time, kind, step, text))
                records.append(Record(number, kind, time, step, body))
            names = schema.numbered(self._names, [name for name, _ in metrics])
            fresh = [(key, name) for name, key in names.items() if name not in self._names]
            chunks = [
                (names[name], columns.records[0], columns.records[-1], repeat, *columns.blobs())
                for (name, repeat), columns in metrics.items()
            ]
            with self._transaction():
                insert = self._connection.executemany
                insert("INSERT INTO names VALUES (?, ?)", fresh)
                insert("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
                insert("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?, ?, ?)", chunks)
            self._names, self._told, self.last = names, told, number
            self._repeatable = repeatable
            self._tail.extend(records)

    def tell(self, **about: Any) -> None:
        """Keep facts about the run, texts as long as a reader takes. Raises `JournalError`."""
        about = schema.cut_to_fit(about)
        rows = [(key, json.dumps(value, default=str)) for key, value in about.items()]
        with self._lock, explained(self.path, "cannot write"), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)
        self._about |= about

    def set_logger(self, name: str, state: LoggerState) -> None:
        """Keep how far a logger is, and what it wants to remember. Raises `JournalError`."""
        row = (name, state.position, json.dumps(state.state), state.ended)
        with self._lock, explained(self.path, "cannot write"), self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO loggers VALUES (?, ?, ?, ?)", row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def go_back(self) -> None:
        """The run goes on from an earlier step, as the newest event says.

        What it logs again as it was is marked as a repeat: it stands in its series, and is not
        delivered a second time. With the first value that is another one it goes another way: an
        event `return` tells it, and all that follows is delivered.
        """
        returns = self._returns()
        turns = [e.number for e in self.records("event") if e.body["event"] == "return"]
        # What another way was gone from is not what loggers have, so that it cannot be a repeat.
        left = gone_from(returns, turns)

        def behind(name: str) -> dict[int, float]:
            points = self._columns(name).counting(left)
            return {
                at: value
                for record, at, value in zip(
                    points.records, points.steps, points.numbers, strict=True
                )
                if returns[-1].voids(record, at)
            }

        self._repeatable = values.Asked(behind)

    # --- reading -------------------------------------------------------------------------------

    def after(self, position: int, limit: int = 1000) -> list[Record]:
        """The records that follow a position, in order, about `limit` of them."""
        with self._lock:
            if position >= self.last:
                return []
            tail = self._tail
            if tail and tail[0].number <= position + 1:
                start = bisect_right(tail, position, key=lambda record: record.number)
                return [tail[i] for i in range(start, min(start + limit, len(tail)))]
            found: list[Record] = []
            while not found and position < self.last:  # all may be repeats
                position, first = min(position + limit, self.last), position
                found = self._read(first, position)
            return found

    def _read(self, first: int, last: int) -> list[Record]:
        """The records behind `first`, up to and with `last`."""
        found: dict[int, Record] = {}
        for number, time, kind, step, body in self._rows(
            "SELECT * FROM records WHERE record > ? AND record <= ?", first, last,
            shapes=schema.ROW_OF_RECORD,
        ):  # fmt: skip
            with explained(self.path, "cannot read"):
                found[number] = Record(number, kind, time, step, schema.body_of(body, kind))
        for name, *blobs in self._rows(
            "SELECT text, records, steps, times, numbers FROM metrics JOIN names USING (name) "
            "WHERE last > ? AND first <= ? AND NOT repeat ORDER BY name", first, last,
        ):  # fmt: skip
            points = self._points(blobs)
            begin, end = (bisect_right(points.records, number) for number in (first, last))
            for i in range(begin, end):
                number = points.records[i]
                if number not in found:
                    found[number] = Record(number, "metrics", points.times[i], points.steps[i], {})
                body = found[number].body
                assert isinstance(body, dict)
                body[name] = points.numbers[i]
        return [found[number] for number in sorted(found)]

    def about(self) -> dict[str, Any]:
        """What was told about the run."""
        with explained(self.path, "cannot read"):
            shapes = (schema.NAME, one_of(str))
            return schema.about_of(self._rows("SELECT * FROM about", shapes=shapes))

    def logger(self, name: str) -> LoggerState:
        """How far a logger is."""
        rows = self._rows(
            "SELECT position, state, ended FROM loggers WHERE name = ?", name,
            shapes=(whole(), one_of(str), whole()),
        )  # fmt: skip
        for position, state, ended in rows:
            with explained(self.path, "cannot read"):
                return LoggerState(position, schema.state_of(state), bool(ended))
        return LoggerState(0, {}, False)

    def loggers(self) -> dict[str, LoggerState]:
        """How far each logger is that this run ever had."""
        rows = self._rows("SELECT name FROM loggers", shapes=(schema.NAME,))
        return {name: self.logger(name) for (name,) in rows}

    def names(self) -> list[str]:
        """The names of the metrics, sorted."""
        rows = self._rows("SELECT text FROM names ORDER BY text", shapes=(schema.NAME,))
        return [name for (name,) in rows]

    def series(self, name: str) -> Series:
        """One metric in the order it was logged.

        Where the run went back to an earlier step, what it had logged behind that step is left out.
        """
        points, returns = self._columns(name), self._returns()
        return points.counting(returns).series

    def latest(self) -> dict[str, float]:
        """The value of each metric that was logged last; whole metrics are not read for it."""
        return {
            name: self._points(blobs).numbers[-1]
            for name, *blobs in self._rows(
                "SELECT text, records, steps, times, numbers FROM metrics JOIN names USING (name) "
                "WHERE (name, first) IN (SELECT name, max(first) FROM metrics GROUP BY name) "
                "ORDER BY text"
            )
        }

    def newest(self, before: int = 2**62) -> tuple[int, int, float] | None:
        """Number, step and time of the last record before a number, repeats included."""
        rows = self._rows(
            "SELECT max(record), step, time FROM records WHERE record < ?", before,
            shapes=(maybe(whole()), maybe(whole(-(2**63))), maybe(schema.MOMENT)),
        )  # fmt: skip
        for last, *blobs in self._rows(
            "SELECT last, records, steps, times, numbers FROM metrics WHERE last < ? "
            "ORDER BY last DESC LIMIT 1", before,
        ):  # fmt: skip
            points = self._points(blobs)
            with explained(self.path, "cannot read"):
                whole()(last, "the number of the newest record")
                schema.MOMENT(points.times[-1], "its time")
            rows.append((last, points.steps[-1], points.times[-1]))
        return max((row for row in rows if row[0] is not None), default=None)

    def _points(self, blobs: Sequence[bytes], points: MetricColumns | None = None) -> MetricColumns:
        """The points of one row, behind those of others. Raises `JournalError`."""
        with explained(self.path, "cannot read"):
            return (MetricColumns() if points is None else points).extend(blobs)

    def _columns(self, name: str) -> MetricColumns:
        points = MetricColumns()
        for blobs in self._rows(
            "SELECT records, steps, times, numbers FROM metrics JOIN names USING (name) "
            "WHERE text = ? ORDER BY first", name,
        ):  # fmt: skip
            self._points(blobs, points)
        return points

    def params(self) -> dict[str, Any]:
        """All parameters; the newest value of each."""
        return self._merged("params")

    def tags(self) -> dict[str, Any]:
        """All tags; the newest value of each."""
        return self._merged("tags")

    def _merged(self, kind: RecordKind) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for record in self.records(kind):
            merged |= record.body
        return merged

    def records(self, kind: RecordKind) -> list[Record]:
        """The records of a kind other than metrics, in order."""
        rows = self._rows(
            "SELECT record, time, kind, step, body FROM records WHERE kind = ? ORDER BY record",
            kind, shapes=schema.ROW_OF_RECORD,
        )  # fmt: skip
        with explained(self.path, "cannot read"):
            return [
                Record(number, kind, time, step, schema.body_of(body, kind))
                for number, time, _, step, body in rows
            ]

    def _returns(self) -> list[Rewind]:
        """Where the run went on from an earlier step."""
        returns: list[Rewind] = []
        saved: dict[tuple[str, ...], int] = {}
        for event in self.records("event"):
            what, path = event.body["event"], Path(str(event.body.get("path", ""))).parts[-2:]
            if what == "checkpoint":
                saved[path] = event.number
            elif what == "resume":
                returns.append(Rewind(event.number, event.step, saved.get(path)))
        return returns

    def _rows(self, query: str, *values: Any, shapes: tuple[Shape, ...] = ()) -> list[Any]:
        """What a query finds, whose columns are of these shapes."""
        with self._lock, explained(self.path, "cannot read"):
            with self._patience:
                rows = self._connection.execute(query, values).fetchall()
            for row in rows if shapes else ():
                schema.check_row(row, shapes, "a row")
            return rows
