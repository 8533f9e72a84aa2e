"""Fitted steps: what is learned from the training part, to encode any part.

A step learns from a column of the training part alone (`fit`), makes numbers or codes of any column
of that name (`encode`), and reads them back (`decode`). What it learned is JSON (`state`) and
tensors (`tensors`), from which `step_from_state` makes the same step. `step_kit` tests one.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from trainbus.errors import nearest
from trainbus_data.errors import DataError
from trainbus_data.tables.columns import Column

if TYPE_CHECKING:
    from torch import Tensor

Array = np.ndarray[Any, Any]
_DAY = 86_400_000_000


class Step:
    """What is learned of one column, and done with it.

    A step of numbers gives float64, N x the number of `names`, NaN where nothing is known; one of
    categories int64, N, 0 where the value is missing or unknown.
    """

    #: Whether `encode` gives codes.
    gives_codes: ClassVar[bool] = False
    _kinds: ClassVar[dict[str, type[Step]]] = {}

    def __init_subclass__(cls) -> None:
        Step._kinds[cls.__name__] = cls

    def fit(self, column: Column) -> Self:
        """Learn from the column of the training part."""
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def encode(self, column: Column) -> Array:
        """Numbers or codes of any column of this kind; of one row as of many."""
        raise NotImplementedError(f"{type(self).__name__} has no encode")

    def decode(self, values: Array) -> list[Any]:
        """What the values say, as far as `encode` kept it; None for nothing."""
        raise NotImplementedError(f"{type(self).__name__} has no decode")

    def names(self, name: str) -> tuple[str, ...]:
        """What its outputs are called."""
        return (name,)

    def odd(self, column: Column) -> dict[int, str]:
        """What is unusual about values, by row."""
        return {}

    def options(self) -> dict[str, Any]:
        """JSON values of what it learned: the arguments of its constructor that are no tensors."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """What it learned that is numbers: the other arguments of its constructor."""
        return {}

    def state(self) -> dict[str, Any]:
        """JSON values from which, with `tensors`, `step_from_state` makes the same step."""
        return {"step": type(self).__name__, **self.options()}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r:.40}" for name, value in self.options().items())
        return f"{type(self).__name__}({given})"


def step_from_state(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Step:
    """The step that `state` and `tensors` described.

    Raises:
        DataError: there is no such step, or it cannot be made of that.
    """
    options = dict(state)
    name = str(options.pop("step", None))
    kinds = Step._kinds
    if name not in kinds:
        raise DataError(f"there is no step {name!r}{nearest(name, kinds)}")
    try:
        return kinds[name](**options, **tensors)
    except TypeError as error:
        raise DataError(f"the step {name} cannot be made of {options!r:.200}: {error}") from error


class Codes(Step):
    """Codes of categories: 0 for missing and unknown words; those that are rare share one.

    Args:
        words: in the order of their codes, from 1; None for the rare ones.
        rare: those that share a code.
        rarest: a word that fewer rows of training have is rare, if there are two of those or more.
    """

    gives_codes = True

    def __init__(
        self, words: Sequence[str | None] = (), rare: Sequence[str] = (), rarest: int = 5
    ) -> None:
        self.words, self.rare, self.rarest = list(words), list(rare), rarest
        self._codes = {word: code for code, word in enumerate(self.words, 1)}
        self._codes |= dict.fromkeys(self.rare, self._codes.get(None, 0))

    @property
    def cardinality(self) -> int:
        """How many codes there are, 0 included."""
        return len(self.words) + 1

    def fit(self, column: Column) -> Self:
        """Take the words, sorted, and keep those apart that are rare."""
        words, codes = words_of(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(words)).tolist()
        known = sorted(word for word, count in zip(words, counts, strict=True) if count)
        often = dict(zip(words, counts, strict=True))
        rare = [word for word in known if often[word] < self.rarest]
        if len(rare) < 2 or len(rare) == len(known):
            rare = []
        kept: list[str | None] = [word for word in known if word not in set(rare)]
        self.__init__([None, *kept] if rare else kept, rare, self.rarest)  # type: ignore[misc]
        return self

    def encode(self, column: Column) -> Array:
        """N int64."""
        words, codes = words_of(column)
        table = np.zeros(len(words) + 1, dtype=np.int64)
        table[:-1] = [self._codes.get(word, 0) for word in words]
        return table[codes]  # type: ignore[no-any-return]

    def decode(self, values: Array) -> list[Any]:
        """Words; None for 0, "(rare)" for rare ones."""
        words = [None, *("(rare)" if word is None else word for word in self.words)]
        return [words[code] for code in np.asarray(values).tolist()]

    def odd(self, column: Column) -> dict[int, str]:
        """Words that training did not have."""
        return new_words(column, self._codes)

    def options(self) -> dict[str, Any]:
        """The words, and those that are rare."""
        return {"words": self.words, "rare": self.rare, "rarest": self.rarest}


def words_of(column: Column) -> tuple[Sequence[str], Array]:
    """A column as words and the code of each row, -1 for none, whatever it holds."""
    if column.kind == "text":
        return column.words, column.values
    missing = column.missing
    values, places = np.unique(column.values[~missing], return_inverse=True)
    codes = np.full(len(column), -1, dtype=np.int64)
    codes[~missing] = places
    shown = Column(column.kind, values)
    return [str(shown.shown(row)) for row in range(len(values))], codes


def new_words(column: Column, known: Container[str]) -> dict[int, str]:
    """The words of a column that are not known, by row."""
    words, codes = words_of(column)
    new = [n for n, word in enumerate(words) if word not in known]
    rows = np.flatnonzero(np.isin(codes, new)) if new else ()
    return {int(row): words[codes[row]] for row in rows}


class Frequency(Step):
    """How often training has a word: a number from 0, for one it has not, to 1; N x 1.

    Args:
        shares: of the rows of training that have a value, by word.
    """

    def __init__(self, shares: Mapping[str, float] | None = None) -> None:
        self.shares = dict(shares or {})

    @property
    def words(self) -> list[str]:
        """The words of training."""
        return list(self.shares)

    def fit(self, column: Column) -> Self:
        """Count the words."""
        words, codes = words_of(column)
        counts = np.bincount(codes[codes >= 0], minlength=len(words))
        known = max(1, int(counts.sum()))
        shares = {w: n / known for w, n in zip(words, counts.tolist(), strict=True) if n}
        self.shares = dict(sorted(shares.items()))
        return self

    def encode(self, column: Column) -> Array:
        """N x 1."""
        words, codes = words_of(column)
        return np.array([*(self.shares.get(word, 0.0) for word in words), np.nan])[codes][:, None]

    def decode(self, values: Array) -> list[Any]:
        """The shares: the words cannot be told of them."""
        return [None if value != value else value for value in values[:, 0].tolist()]

    def names(self, name: str) -> tuple[str, ...]:
        """One number."""
        return (f"{name} frequency",)

    def odd(self, column: Column) -> dict[int, str]:
        """Words that training did not have."""
        return new_words(column, self.shares)

    def options(self) -> dict[str, Any]:
        """The shares."""
        return {"shares": self.shares}


class Values(Step):
    """Numbers as they are; what is not finite is missing."""

    def __init__(self, lowest: float = 0.0, highest: float = 0.0) -> None:
        self.lowest, self.highest = lowest, highest

    def fit(self, column: Column) -> Self:
        """Learn the range."""
        known = column.values[np.isfinite(column.values)]
        if len(known):
            self.lowest, self.highest = float(known.min()), float(known.max())
        return self

    def encode(self, column: Column) -> Array:
        """N x 1."""
        values = column.values
        return np.where(np.isfinite(values), values, np.nan)[:, None]

    def decode(self, values: Array) -> list[Any]:
        """The numbers."""
        return [None if value != value else value for value in values[:, 0].tolist()]

    def odd(self, column: Column) -> dict[int, str]:
        """Values out of the range of training, by more than a tenth of it."""
        margin = 0.1 * (self.highest - self.lowest)
        with np.errstate(invalid="ignore"):
            out = (column.values < self.lowest - margin) | (column.values > self.highest + margin)
        return {int(row): f"{column.values[row]:.6g}" for row in np.flatnonzero(out)}

    def options(self) -> dict[str, Any]:
        """The range."""
        return {"lowest": self.lowest, "highest": self.highest}


#: What of a date is a part of its own, and how many there are of it; 0 for no circle.
PARTS = {"hour": 24, "weekday": 7, "day": 31, "month": 12, "day of year": 366, "minute": 60}


class DateParts(Step):
    """Parts of dates: those that differ, as points on a circle, and the days since the first date.

    Args:
        parts: the parts that differ in training.
        first: the first date of training, in microseconds since 1970.
        last: the last one.
    """

    def __init__(self, parts: Sequence[str] = (), first: int = 0, last: int = 0) -> None:
        self.parts, self.first, self.last = list(parts), first, last

    def fit(self, column: Column) -> Self:
        """Learn which parts differ, and when training begins."""
        known = column.values[~column.missing]
        if len(known):
            self.first, self.last = int(known.min()), int(known.max())
        self.parts = [
            part for part in PARTS
            if len(known) and len(np.unique(_part(known, part))) > 1
        ]  # fmt: skip
        return self

    def encode(self, column: Column) -> Array:
        """N x (1 + 2 for each part): days since the first date, then sine and cosine."""
        missing = column.missing
        stamps = np.where(missing, 0, column.values)
        columns = [(stamps - self.first) / _DAY]
        for part in self.parts:
            angle = 2 * np.pi * _part(stamps, part) / PARTS[part]
            columns += [np.sin(angle), np.cos(angle)]
        made = np.stack(columns, axis=1)
        made[missing] = np.nan
        return made

    def decode(self, values: Array) -> list[Any]:
        """The dates, to the microsecond."""
        days = values[:, 0]
        return [
            None if day != day else str(np.datetime64(round(day * _DAY) + self.first, "us"))
            for day in days.tolist()
        ]

    def names(self, name: str) -> tuple[str, ...]:
        """Elapsed days, then two for each part."""
        circles = [f"{name} {part} {f}" for part in self.parts for f in ("sine", "cosine")]
        return (f"{name} elapsed", *circles)

    def odd(self, column: Column) -> dict[int, str]:
        """Dates before the first one of training, or later than as long again after the last."""
        late = self.last + max(self.last - self.first, _DAY)
        out = ~column.missing & ((column.values < self.first) | (column.values > late))
        return {int(row): str(column.shown(row)) for row in np.flatnonzero(out)}

    def options(self) -> dict[str, Any]:
        """The parts, and the range."""
        return {"parts": self.parts, "first": self.first, "last": self.last}


def _part(stamps: Array, part: str) -> Array:
    """A part of dates in microseconds."""
    days = np.floor_divide(stamps, _DAY)
    if part in ("hour", "minute"):
        seconds = (stamps - days * _DAY) // 1_000_000
        return seconds // 3600 if part == "hour" else seconds // 60 % 60  # type: ignore[no-any-return]
    if part == "weekday":
        return (days + 3) % 7  # type: ignore[no-any-return]  # 1970 began on a Thursday
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if part == "month":
        return months.astype(np.int64) % 12  # type: ignore[no-any-return]
    begin = months if part == "day" else dates.astype("datetime64[Y]")
    return (dates - begin.astype("datetime64[D]")).astype(np.int64)  # type: ignore[no-any-return]


class Several(Step):
    """Cells with several values ("red|round"): a number of 0 or 1 for each that is not rare.

    Args:
        delimiter: between the values of a cell.
        values: those that are kept.
        most: how many at most.
    """

    def __init__(self, delimiter: str = "|", values: Sequence[str] = (), most: int = 50) -> None:
        self.delimiter, self.values, self.most = delimiter, list(values), most

    def fit(self, column: Column) -> Self:
        """Take the values that most rows have."""
        given = self._table(column, None)
        counts = sorted(given.items(), key=lambda each: (-int(each[1].sum()), each[0]))
        self.values = sorted(value for value, _ in counts[: self.most])
        return self

    def encode(self, column: Column) -> Array:
        """N x the values; NaN where the cell is missing."""
        table = self._table(column, self.values)
        made = np.stack([table[value] for value in self.values], axis=1).astype(np.float64)
        made[column.missing] = np.nan
        return made

    def _table(self, column: Column, wanted: Sequence[str] | None) -> dict[str, Array]:
        """For each value, which rows have it."""
        split = [self.split(word) for word in column.words]
        values = wanted if wanted is not None else sorted({v for cell in split for v in cell})
        has = {value: np.zeros(len(split) + 1, dtype=bool) for value in values}
        for number, cell in enumerate(split):
            for value in cell:
                if value in has:
                    has[value][number] = True
        return {value: of_word[column.values] for value, of_word in has.items()}

    def split(self, word: str) -> list[str]:
        """The values of a cell."""
        return [part.strip() for part in word.split(self.delimiter) if part.strip()]

    def decode(self, values: Array) -> list[Any]:
        """The values of each row, with the delimiter."""
        return [
            None if row[0] != row[0]
            else self.delimiter.join(v for v, on in zip(self.values, row, strict=True) if on)
            for row in values.tolist()
        ]  # fmt: skip

    def names(self, name: str) -> tuple[str, ...]:
        """One for each value."""
        return tuple(f"{name} {value}" for value in self.values)

    def options(self) -> dict[str, Any]:
        """The values."""
        return {"delimiter": self.delimiter, "values": self.values, "most": self.most}
