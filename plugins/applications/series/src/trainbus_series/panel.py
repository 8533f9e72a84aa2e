"""Panel: the series of a table, each on the steps of one frequency; nothing is guessed in silence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainbus_data import DataError
from trainbus_data.tables.columns import Column, Table
from trainbus_series.frequency import Frequency, found, named, shown, to_utc

logger = logging.getLogger("trainbus")
Array = np.ndarray[Any, Any]
DUPLICATES = ("mean", "sum", "first", "last")


@dataclass(frozen=True)
class Asked:
    """How times are read.

    Attributes:
        time: the column of times.
        targets: the columns that are forecast.
        series: the column that says which series a row is of, if there are several.
        freq: the frequency, where it is not to be found.
        fill: "gaps" to leave steps without a row empty.
        duplicates: what is made of several rows of one time: "mean", "sum", "first" or "last".
        zone: of clocks without one.
    """

    time: str
    targets: tuple[str, ...]
    series: str | None = None
    freq: Any = None
    fill: str | None = None
    duplicates: str | None = None
    zone: str | None = None


@dataclass(frozen=True, eq=False)
class Panel:
    """Series on steps of one frequency, one behind the other: T steps in all.

    Attributes:
        names: of the S series.
        firsts: the time of the first step of each.
        counts: how many steps each has.
        rows: T, the row of the table of each step; -1 of a gap.
        values: T float64, what is forecast; NaN where it is not known.
        frequency: of the times.
        whole: whether times are whole numbers, and no dates.
        zone: that times are shown in.
        table: the rows.
        notes: what was found and done.
    """

    names: tuple[str, ...]
    firsts: Array
    counts: Array
    rows: Array
    values: Array
    frequency: Frequency
    whole: bool
    zone: str
    table: Table
    notes: list[str] = field(default_factory=list)

    @property
    def starts(self) -> Array:
        """Where each series begins in the T steps."""
        return np.cumsum(self.counts) - self.counts  # type: ignore[no-any-return]

    def times(self, series: int, count: int, start: int = 0) -> Array:
        """The times of steps of a series; behind its end, too."""
        return self.frequency.times(int(self.firsts[series]), count, start)

    def shown(self, time: int) -> str | int:
        """A time as a person reads it."""
        return shown(int(time), self.whole, self.zone)

    def gathered(self, column: Column) -> Array:
        """The values of a column at all steps, as the column has them; at gaps those of row 0."""
        return column.values[np.maximum(self.rows, 0)]  # type: ignore[no-any-return]


def read_panel(table: Table, asked: Asked) -> Panel:
    """The series of a table.

    Raises:
        DataError: times are missing, twice, or between steps; it says where, and what would help.
    """
    notes: list[str] = []
    time = table[asked.time]
    whole = _check_times(time, asked)
    ids, names = _series_of(table, asked)
    times = time.values.astype(np.int64)
    if asked.zone is not None and not whole:
        times = times if time.zone else to_utc(times, asked.zone, ids)
    order = np.lexsort((np.arange(len(times)), times, ids))
    _say_unsorted(times, ids, names, notes, whole)
    zone = asked.zone or ("UTC" if time.zone else "")
    order, groups = _without_duplicates(order, times, ids, names, asked, whole, zone, notes)
    borders = np.flatnonzero(np.diff(ids[order], prepend=-1))
    parts = np.split(order, borders[1:])
    each = [times[part] for part in parts]
    if asked.freq is None:
        frequency = found(each, whole)
        notes.append(f"times go on by {frequency} (found)")
    else:
        frequency = named(asked.freq, whole)
    firsts = np.array([part[0] for part in each])
    counts, rows = _on_steps(parts, each, names, frequency, asked, whole, zone, notes)
    firsts, counts, rows, values, full = _of_targets(
        table, asked, groups, firsts, counts, rows, names
    )
    if asked.series is not None:
        span = f"{counts.min()} to {counts.max()}" if counts.min() != counts.max() else counts[0]
        notes.append(f"{len(names):,} series by {asked.series!r}, of {span} steps")
    for note in notes:
        logger.info("%s", note)
    return Panel(full, firsts, counts, rows, values, frequency, whole, zone, table, notes)


def _check_times(time: Column, asked: Asked) -> bool:
    """Refuse what are no times; whether they are whole numbers."""
    if time.problem:
        hint = "" if asked.zone else "; zone='UTC' says which it is"
        raise DataError(f"the column {asked.time!r}: {time.problem}{hint}")
    lacking = np.flatnonzero(time.missing)
    if len(lacking):
        some = ", ".join(map(str, lacking[:4])) + (", ..." if len(lacking) > 4 else "")
        raise DataError(f"{len(lacking):,} rows have no time in {asked.time!r} (rows {some})")
    if not len(time):
        raise DataError("the table has no rows")
    if time.kind == "date":
        return False
    if time.kind == "number" and bool((time.values % 1 == 0).all()):
        return True
    raise DataError(
        f"the column {asked.time!r} holds {time.kind}s, {time.shown(0)!r} for example, and no "
        "times: dates, or whole numbers"
    )


def _series_of(table: Table, asked: Asked) -> tuple[Array, list[str]]:
    """The number of the series of each row, in the order in which they appear, and their names."""
    if asked.series is None:
        return np.zeros(table.rows, np.int64), [asked.targets[0] if len(asked.targets) == 1 else ""]
    column = table[asked.series]
    if column.missing.any():
        row = int(np.flatnonzero(column.missing)[0])
        raise DataError(f"row {row} does not say its series: {asked.series!r} is empty")
    values, first, codes = np.unique(column.values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return place[codes], [str(column.shown(int(first[each]))) for each in order]


def _say_unsorted(
    times: Array, ids: Array, names: Sequence[str], notes: list[str], whole: bool
) -> None:
    order = np.argsort(ids, kind="stable")
    steps = np.diff(times[order])
    back = np.flatnonzero((steps < 0) & (np.diff(ids[order]) == 0))
    if len(back):
        row = int(order[back[0] + 1])
        where = f" of {names[ids[row]]!r}" if names[ids[row]] else ""
        notes.append(
            f"sorted by time: row {row}{where} ({shown(int(times[row]), whole)}) stands behind a "
            f"later one ({len(back):,} such rows)"
        )


def _without_duplicates(
    order: Array, times: Array, ids: Array, names: Sequence[str], asked: Asked, whole: bool,
    zone: str, notes: list[str],
) -> tuple[Array, Array]:  # fmt: skip
    """One row for each time, and for each row of the table the one that stands for it."""
    same = (np.diff(times[order]) == 0) & (np.diff(ids[order]) == 0)
    stands = np.arange(len(times))
    if not same.any():
        return order, stands
    at = int(order[np.flatnonzero(same)[0]])
    when, of = shown(int(times[at]), whole, zone), names[ids[at]]
    where = f" in {of!r}" if of else ""
    if asked.duplicates is None:
        more = " (daylight saving?): zone='Europe/Berlin', or" if not whole and not zone else ":"
        raise DataError(
            f"{when} is there twice{where}{more} duplicates='mean' (or 'sum', 'first', 'last'); "
            f"{int(same.sum()):,} rows"
        )
    if asked.duplicates not in DUPLICATES:
        raise DataError(f"duplicates={asked.duplicates!r}: one of {', '.join(DUPLICATES)}")
    begins = np.append(True, ~same)
    ends = np.append(~same, True)
    group = np.cumsum(begins) - 1
    kept = order[ends] if asked.duplicates == "last" else order[begins]
    stands[order] = kept[group]
    notes.append(
        f"{int(same.sum()):,} rows of a time that was there already ({when}{where}, ...): "
        f"{asked.duplicates} of them"
    )
    return kept, stands


def _on_steps(
    parts: Sequence[Array], each: Sequence[Array], names: Sequence[str], frequency: Frequency,
    asked: Asked, whole: bool, zone: str, notes: list[str],
) -> tuple[Array, Array]:  # fmt: skip
    """How many steps each series has, and the row of each step."""
    counts, rows, gaps = [], [], []
    for number, (part, times) in enumerate(zip(parts, each, strict=True)):
        places = frequency.places(times)
        name = names[number] if number < len(names) else ""
        where = f" of {name!r}" if name else ""
        between = np.flatnonzero(places < 0)
        count = int(places.max()) + 1
        if len(between) or (count != len(part) and asked.fill is None and asked.freq is None):
            raise DataError(_irregular(times, places, where, frequency, whole, zone))
        if count > 50 * len(part) + 1000:
            raise DataError(
                f"{len(part):,} rows{where} lie within {count:,} steps of {frequency}: is that the "
                "frequency? freq= says another one"
            )
        filled = np.full(count, -1, np.int64)
        filled[places] = part
        if count != len(part):
            gaps.append(
                (count - len(part), name, times[int(np.flatnonzero(np.diff(places) > 1)[0])])
            )
        counts.append(count)
        rows.append(filled)
    if asked.fill not in (None, "gaps"):
        raise DataError(f"fill={asked.fill!r}: 'gaps' leaves steps without a row empty")
    if gaps:
        missing = sum(many for many, _, _ in gaps)
        where = f" of {gaps[0][1]!r}" if gaps[0][1] else ""
        notes.append(
            f"{missing:,} steps have no row, in {len(gaps):,} series (first behind "
            f"{shown(int(gaps[0][2]), whole, zone)}{where}): unknown there"
        )
    return np.array(counts), np.concatenate(rows)


def _irregular(
    times: Array, places: Array, where: str, frequency: Frequency, whole: bool, zone: str
) -> str:
    """What to say of times that are between steps, or leave steps out."""
    sizes, counts = np.unique(np.diff(times), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    said = []
    for place in order[:3]:
        size, many = int(sizes[place]), int(counts[place])
        text = str(size) if whole else str(Frequency("fixed", size))
        at = int(np.flatnonzero(np.diff(times) == size)[0])
        share = f"{100 * many / counts.sum():.1f}%"
        said.append(
            f"{text} ({share if place == order[0] else f'{many:,} times'}, first behind "
            f"{shown(int(times[at]), whole, zone)})"
        )
    more = ", ..." if len(order) > 3 else ""
    between = np.flatnonzero(places < 0)
    if len(between):
        off = shown(int(times[between[0]]), whole, zone)
        return (
            f"steps{where}: {', '.join(said)}{more}; {off} is on no step of {frequency}: freq= says "
            "another one, or bring the times to one"
        )
    return (
        f"steps{where}: {', '.join(said)}{more}: fill='gaps' leaves the steps between them unknown, "
        "or freq= says another step"
    )


def _of_targets(
    table: Table, asked: Asked, stands: Array, firsts: Array, counts: Array, rows: Array,
    names: Sequence[str],
) -> tuple[Array, Array, Array, Array, tuple[str, ...]]:  # fmt: skip
    """A series for each target of each series, one behind the other."""
    values = []
    for name in asked.targets:
        column = table[name]
        if column.kind not in ("number", "boolean"):
            raise DataError(
                f"the target {name!r} holds {column.kind}s, {column.shown(0)!r} for example, and "
                "no numbers"
            )
        known = column.values.copy()
        odd = np.flatnonzero(np.isinf(known))
        if len(odd):
            raise DataError(f"the target {name!r} is infinite in row {int(odd[0])}; say None there")
        if asked.duplicates in ("mean", "sum"):
            known = _joined(known, stands, asked.duplicates)
        values.append(np.where(rows >= 0, known[np.maximum(rows, 0)], np.nan))
    many = len(asked.targets)
    if many == 1:
        full = tuple(names)
    else:
        prefix = [f"{name}/" if name else "" for name in names]
        full = tuple(f"{each}{name}" for name in asked.targets for each in prefix)
    return (
        np.tile(firsts, many), np.tile(counts, many), np.tile(rows, many),
        np.concatenate(values), full,
    )  # fmt: skip


def _joined(values: Array, stands: Array, how: str) -> Array:
    """The mean or sum of the rows of one time, at the row that stands for them."""
    there = ~np.isnan(values)
    sums = np.bincount(stands, np.where(there, values, 0.0), len(values))
    counts = np.bincount(stands, there, len(values))
    made = sums / np.maximum(counts, 1) if how == "mean" else sums
    return np.where(counts > 0, made, np.nan)
