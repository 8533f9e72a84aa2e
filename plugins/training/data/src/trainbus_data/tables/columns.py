"""Columns of one kind each, and a table of them: what every source becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from trainbus.errors import nearest
from trainbus_data.errors import DataError

Kind = Literal["number", "boolean", "date", "text"]

#: The date of a row that has none, in microseconds.
NO_DATE = np.iinfo(np.int64).min
#: The code of a row that has no text.
NO_TEXT = -1


@dataclass(frozen=True)
class Wording:
    """How the texts of a column say numbers or dates. JSON values, but for tuples.

    Attributes:
        decimal: the sign in front of the fraction.
        thousands: the sign between thousands; empty for none.
        percent: whether a percent sign follows; 50% is 0.5.
        currency: a sign of money in front or behind.
        missing: words that stand for nothing: "?", "n/a".
        date: the order of a date that is not written as ISO 8601: "d.m.y", "m/d/y".
        guessed: what could be read in another way, for whoever says it.
    """

    decimal: str = "."
    thousands: str = ""
    percent: bool = False
    currency: str = ""
    missing: tuple[str, ...] = ()
    date: str = ""
    guessed: str = ""

    def said(self) -> str:
        """What is unusual of it, as text; empty where nothing is."""
        parts = []
        if self.decimal != ".":
            parts.append(f"decimal {self.decimal!r}")
        if self.thousands:
            parts.append(f"thousands {self.thousands!r}")
        if self.percent:
            parts.append("percent")
        if self.currency:
            parts.append(f"money in {self.currency}")
        if self.date:
            parts.append(f"dates as {self.date}")
        if self.missing:
            parts.append(f"{', '.join(map(repr, self.missing))} is missing")
        return "; ".join(parts) + (f" ({self.guessed})" if self.guessed else "")


class Reading(NamedTuple):
    """How a column was read, so that others are read in the same way."""

    kind: Kind
    wording: Wording = Wording()

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {"kind": self.kind, **asdict(self.wording), "missing": list(self.wording.missing)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reading:
        """The reading that `state` described."""
        given = dict(state)
        kind = given.pop("kind")
        return cls(kind, Wording(**{**given, "missing": tuple(given.get("missing", ()))}))


@dataclass(frozen=True, eq=False)
class Column:
    """The values of a column, of one kind.

    Attributes:
        kind: what they are.
        values: N; numbers and booleans float64, NaN where missing; dates int64, microseconds since
            1970 (in UTC where they have a zone), `NO_DATE` where missing; texts int64, the index of
            a word, `NO_TEXT` where missing.
        words: of texts, each once, in the order in which they appear.
        wording: how texts said what the values are.
        zone: of dates: whether they have a zone.
        problem: why they cannot be used, for whoever wants to use them.
        strange: texts that do not say what they were to say, by row; they are missing.
    """

    kind: Kind
    values: np.ndarray[Any, Any]
    words: tuple[str, ...] = ()
    wording: Wording = Wording()
    zone: bool = False
    problem: str = ""
    strange: Mapping[int, str] = field(default_factory=dict)

    @property
    def reading(self) -> Reading:
        """How it was read."""
        return Reading(self.kind, self.wording)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> np.ndarray[Any, Any]:
        """N booleans: which values are not there."""
        if self.kind == "text":
            return self.values < 0  # type: ignore[no-any-return]
        if self.kind == "date":
            return self.values == NO_DATE  # type: ignore[no-any-return]
        return np.isnan(self.values)

    def take(self, rows: Any) -> Column:
        """The column of these rows; words that none of them has stay in `words`."""
        return replace(self, values=self.values[rows])

    def shown(self, row: int) -> Any:
        """The value of a row, as a person reads it; None where it is missing."""
        value = self.values[row]
        if self.kind == "text":
            return None if value < 0 else self.words[value]
        if self.kind == "date":
            return None if value == NO_DATE else str(np.datetime64(int(value), "us"))
        if np.isnan(value):
            return None
        if self.kind == "boolean":
            return bool(value)
        return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)

    def texts(self) -> list[str | None]:
        """All values as texts, whatever they are; whole numbers without a fraction."""
        shown = [self.shown(row) for row in range(len(self))] if self.kind != "text" else []
        if self.kind == "text":
            words: Sequence[str | None] = (*self.words, None)
            return [words[code] for code in self.values.tolist()]
        return [None if each is None else str(each) for each in shown]


class Table(Mapping[str, Column]):
    """Columns by name, all of one length.

    Args:
        columns: by name.
        name: what messages call it: the name of its file.
        notes: what was guessed when it was read.
    """

    def __init__(
        self, columns: Mapping[str, Column], name: str = "the table", notes: Sequence[str] = ()
    ) -> None:
        self.columns = dict(columns)
        self.name = name
        self.notes = tuple(notes)
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"the columns of {self.name} have different lengths: {lengths}")
        self.rows = next(iter(lengths.values()), 0)

    def __getitem__(self, name: str) -> Column:
        if name not in self.columns:
            raise DataError(
                f"no column {name!r} in {self.name}; columns are {_some(self.columns)}"
                f"{nearest(str(name), map(str, self.columns))}"
            )
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, rows: Any) -> Table:
        """The table of these rows."""
        taken = {name: column.take(rows) for name, column in self.columns.items()}
        return Table(taken, self.name, self.notes)

    def row(self, index: int) -> dict[str, Any]:
        """One row, as a person reads it."""
        return {name: column.shown(index) for name, column in self.columns.items()}


def same(a: Column, b: Column) -> bool:
    """Whether two columns are the same to the bit, words and kinds too."""
    return (
        a.kind == b.kind
        and a.words == b.words
        and a.zone == b.zone
        and a.values.dtype == b.values.dtype
        and a.values.tobytes() == b.values.tobytes()
    )


def _some(names: Iterable[Any], most: int = 12) -> str:
    listed = [str(name) for name in names]
    if len(listed) <= most:
        return ", ".join(listed)
    return f"{', '.join(listed[: most - 2])}, ..., {listed[-1]} ({len(listed)} in all)"
