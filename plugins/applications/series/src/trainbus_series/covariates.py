"""What is known beside a series: columns of numbers and words, and what the calendar says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainbus_data import DataError
from trainbus_data.tables.columns import Table
from trainbus_series.frequency import DAY, SECOND, Frequency, zone_named

Array = np.ndarray[Any, Any]
#: Words of a column, at most.
_WORDS = 100
#: What the calendar says, by name: how long it takes to come again, in microseconds.
CYCLES = {"hour": DAY, "weekday": 7 * DAY, "year": 365 * DAY}


class Covariates:
    """Columns that were fitted to the training part: numbers are standardized, words are 0 and 1.

    Args:
        columns: {"name", "centre", "scale"} or {"name", "words"} of each.
    """

    def __init__(self, columns: Sequence[Mapping[str, Any]] = ()) -> None:
        self.columns = [dict(each) for each in columns]

    @classmethod
    def fitted(
        cls, table: Table, names: Sequence[str], rows: Array, notes: list[str]
    ) -> Covariates:
        """Of these rows of a table; columns that say nothing there are left out, with a note."""
        columns: list[dict[str, Any]] = []
        for name in names:
            column = table[name]
            seen = column.take(rows)
            if column.kind in ("number", "boolean"):
                known = seen.values[~seen.missing]
                if not len(known) or float(np.ptp(known)) == 0:
                    notes.append(f"{name!r} is constant in training: left out")
                    continue
                if not np.isfinite(known).all():
                    raise DataError(f"the column {name!r} is infinite in a row; say None there")
                scale = float(known.std())
                columns.append({"name": name, "centre": float(known.mean()), "scale": scale})
            elif column.kind == "text":
                used = np.unique(seen.values[~seen.missing])
                if len(used) > _WORDS:
                    raise DataError(
                        f"the column {name!r} has {len(used):,} words in training, and at most "
                        f"{_WORDS} are taken; make them fewer"
                    )
                if not len(used):
                    notes.append(f"{name!r} is empty in training: left out")
                    continue
                columns.append({"name": name, "words": [column.words[code] for code in used]})
            else:
                raise DataError(f"the column {name!r} holds dates; the calendar is known by rule")
        return cls(columns)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return [each["name"] for each in self.columns]

    @property
    def width(self) -> int:
        """Numbers for each step."""
        return sum(len(each.get("words", (0,))) for each in self.columns)

    def encode(self, table: Table, rows: Array) -> Array:
        """T x width float32 of these rows; what is missing (row -1) is the mean, or no word."""
        made = np.zeros((len(rows), self.width), np.float32)
        at = 0
        there = rows >= 0
        for each in self.columns:
            column = table[each["name"]]
            values = column.values[np.maximum(rows, 0)]
            if "words" in each:
                texts = column.texts() if column.kind != "text" else None
                known = list(column.words) if texts is None else sorted(set(map(str, texts)))
                codes = values if texts is None else np.array([known.index(str(t)) for t in texts])
                for word in each["words"]:
                    code = known.index(word) if word in known else -2
                    made[:, at] = (codes == code) & there
                    at += 1
                continue
            if column.kind not in ("number", "boolean"):
                raise DataError(
                    f"{each['name']!r} was a number in training, and holds {column.kind}s now, "
                    f"{column.shown(0)!r} for example"
                )
            scaled = (values - each["centre"]) / each["scale"]
            made[:, at] = np.where(there & ~np.isnan(scaled), scaled, 0.0)
            at += 1
        return made

    def missing(self, table: Table, rows: Array) -> dict[str, Array]:
        """Which of these rows lack a number, by column; words may lack."""
        found = {}
        for each in self.columns:
            if "words" not in each:
                gone = (rows < 0) | table[each["name"]].missing[np.maximum(rows, 0)]
                if gone.any():
                    found[each["name"]] = gone
        return found


def calendar_of(frequency: Frequency, steps: int, lookback: int) -> tuple[str, ...]:
    """What the calendar is to say: of each cycle that training has twice and a lookback has not.

    Args:
        frequency: of the times.
        steps: of training, of the longest series.
        lookback: steps that a network sees: cycles that it sees twice it needs not be told.
    """
    if frequency.kind == "whole":
        return ()
    size = {"months": 30 * DAY * frequency.size, "business": 7 * DAY // 5}.get(
        frequency.kind, frequency.size
    )
    return tuple(
        name
        for name, cycle in CYCLES.items()
        if 2 * size < cycle and steps * size >= 2 * cycle > lookback * size
    )


def calendar(times: Array, names: Sequence[str], zone: str) -> Array:
    """T x 2 for each name, float32: sine and cosine of where in the day, week or year a time is.

    Args:
        times: microseconds; in UTC where there is a zone.
        names: of `CYCLES`.
        zone: whose clocks and days these are.
    """
    if not names:
        return np.zeros((len(times), 0), np.float32)
    clocks = times if zone in ("", "UTC") else times + _offsets(times, zone)
    year = clocks.view("datetime64[us]").astype("datetime64[Y]").astype("datetime64[us]")
    behind = {
        "hour": clocks % DAY, "weekday": (clocks + 3 * DAY) % (7 * DAY),
        "year": clocks - year.astype(np.int64),
    }  # fmt: skip
    turns = [2 * np.pi * behind[name] / CYCLES[name] for name in names]
    return np.stack([f(turn) for turn in turns for f in (np.sin, np.cos)], 1).astype(np.float32)


def _offsets(times: Array, zone: str) -> Array:
    """What clocks in a zone show more than in UTC, in microseconds; looked up for each hour."""
    from datetime import UTC, datetime

    place = zone_named(zone)
    hours, which = np.unique(times // (3600 * SECOND), return_inverse=True)
    found = []
    for hour in hours.tolist():
        there = datetime.fromtimestamp(hour * 3600, UTC).astimezone(place).utcoffset()
        found.append(0 if there is None else int(there.total_seconds()) * SECOND)
    return np.array(found, np.int64)[which]
