"""Frequency: by how much the times of a series go on, found from them, or named."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from trainbus_data import DataError

Array = np.ndarray[Any, Any]
#: Microseconds.
SECOND = 1_000_000
DAY = 86_400 * SECOND
_UNITS = {
    "s": SECOND, "sec": SECOND, "second": SECOND, "t": 60 * SECOND, "min": 60 * SECOND,
    "minute": 60 * SECOND, "h": 3600 * SECOND, "hour": 3600 * SECOND, "d": DAY, "day": DAY,
    "w": 7 * DAY, "week": 7 * DAY,
}  # fmt: skip
_MONTHS = {"m": 1, "ms": 1, "me": 1, "month": 1, "q": 3, "qs": 3, "qe": 3, "quarter": 3,
           "y": 12, "a": 12, "ys": 12, "ye": 12, "year": 12}  # fmt: skip
#: Steps after which a series is like itself, by the step in microseconds.
_SEASONS = {SECOND: 60, 60 * SECOND: 1440, 3600 * SECOND: 24, DAY: 7, 7 * DAY: 52}


@dataclass(frozen=True)
class Frequency:
    """The step from one time to the next.

    Attributes:
        kind: "fixed", of `size` microseconds; "months", of `size` months; "business", days from
            Monday to Friday; "whole", times being whole numbers `size` apart.
        size: of a step.
        end: of months: times are their last days.
    """

    kind: Literal["fixed", "months", "business", "whole"]
    size: int = 1
    end: bool = False

    def __str__(self) -> str:
        if self.kind == "fixed":
            for name, unit in (("day", DAY), ("h", _UNITS["h"]), ("min", _UNITS["min"])):
                if self.size % unit == 0:
                    many = self.size // unit
                    return "1 week" if (name, many) == ("day", 7) else f"{many} {name}"
            return f"{self.size / SECOND:g} s"
        if self.kind == "months":
            named = {1: "1 month", 3: "1 quarter", 12: "1 year"}
            said = named.get(self.size, f"{self.size} months")
            return said + (", on its last day" if self.end else "")
        return "1 business day" if self.kind == "business" else f"{self.size} (whole numbers)"

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @property
    def season(self) -> int:
        """Steps after which a series is mostly like itself: 24 of hours, 12 of months; 1 if none is
        known.
        """
        if self.kind == "months":
            return max(1, 12 // self.size)
        if self.kind == "business":
            return 5
        if self.kind == "fixed":
            if self.size in _SEASONS:
                return _SEASONS[self.size]
            if self.size < DAY and DAY % self.size == 0:
                return DAY // self.size
        return 1

    def times(self, first: int, count: int, start: int = 0) -> Array:
        """The times of steps `start` to before `start + count`, counted from the time `first`."""
        steps = np.arange(start, start + count, dtype=np.int64)
        if self.kind in ("fixed", "whole"):
            return first + steps * self.size
        moment = np.int64(first).view("datetime64[us]")
        day = moment.astype("datetime64[D]")
        clock = first - day.astype("datetime64[us]").astype(np.int64)
        if self.kind == "business":
            days = np.busday_offset(day, steps, roll="forward")
        else:
            months = day.astype("datetime64[M]") + steps * self.size
            last = (months + 1).astype("datetime64[D]") - 1
            wanted = months.astype("datetime64[D]") + (day - day.astype("datetime64[M]"))
            days = last if self.end else np.minimum(wanted, last)
        return days.astype("datetime64[us]").astype(np.int64) + clock  # type: ignore[no-any-return]

    def places(self, times: Array) -> Array:
        """How many steps each time is behind the first one; -1 of those that are between steps."""
        first = int(times[0])
        if self.kind in ("fixed", "whole"):
            steps, rest = np.divmod(times - first, self.size)
            return np.where(rest == 0, steps, -1)
        days = times.view("datetime64[us]").astype("datetime64[D]")
        if self.kind == "business":
            steps = np.busday_count(days[0], days)
        else:
            months = days.astype("datetime64[M]").astype(np.int64)
            steps = (months - months[0]) // self.size
        steps = np.asarray(steps, np.int64)
        count = int(steps.max(initial=0)) + 1
        return np.where(self.times(first, count)[steps] == times, steps, -1)


def named(freq: str | int | Frequency, whole: bool) -> Frequency:
    """The frequency of a name: "h", "15min", "D", "W", "M", "ME", "Q", "Y", "B", or a whole number.

    Args:
        freq: the name.
        whole: whether times are whole numbers.
    """
    if isinstance(freq, Frequency):
        return freq
    if whole:
        if isinstance(freq, bool) or not isinstance(freq, int) or freq < 1:
            raise DataError(f"freq={freq!r}: times are whole numbers, and so is their step: freq=1")
        return Frequency("whole", freq)
    found = re.fullmatch(r"\s*(\d*)\s*([A-Za-z]+?)s?\s*", str(freq))
    exact = re.fullmatch(r"\s*(\d*)\s*([A-Za-z]+)\s*", str(freq))
    for match in (exact, found):
        if match is None:
            continue
        many, unit = int(match[1] or 1), match[2].lower()
        if many and unit in _UNITS:
            return Frequency("fixed", many * _UNITS[unit])
        if many and unit in _MONTHS:
            return Frequency("months", many * _MONTHS[unit], unit in ("me", "qe", "ye"))
        if unit == "b":
            return Frequency("business")
    raise DataError(
        f"freq={freq!r} is no step of time: 's', 'min', '15min', 'h', 'D', 'W', 'M' (months), 'ME' "
        "(their last days), 'Q', 'Y', 'B' (Monday to Friday)"
    )


def found(times: list[Array], whole: bool) -> Frequency:
    """The frequency that most steps of all series have.

    Args:
        times: of each series, sorted, each once.
        whole: whether they are whole numbers.

    Raises:
        DataError: no series has two times.
    """
    steps = np.concatenate([np.diff(each) for each in times])
    if not len(steps):
        raise DataError("no series has two times: give the frequency: freq='h'")
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    if whole:
        return Frequency("whole", usual)
    if set(sizes.tolist()) <= {DAY, 3 * DAY} and len(sizes) == 2 and _weekdays(times):
        return Frequency("business")
    if usual >= 27 * DAY:
        for months, low, high in ((1, 28, 31), (3, 89, 92), (6, 181, 184), (12, 365, 366)):
            if low * DAY <= usual <= high * DAY:
                return Frequency("months", months, _last_days(times))
    return Frequency("fixed", usual)


def _weekdays(times: list[Array]) -> bool:
    """Whether no time is on a Saturday or Sunday; 1970-01-01 was a Thursday."""
    return all(bool((((each // DAY + 3) % 7) < 5).all()) for each in times)


def _last_days(times: list[Array]) -> bool:
    for each in times:
        after = (each + DAY).view("datetime64[us]").astype("datetime64[D]")
        if not bool((after == after.astype("datetime64[M]")).all()):
            return False
    return True


# --- zones ---------------------------------------------------------------------------------------


def zone_named(zone: str) -> ZoneInfo:
    """The zone of a name: "Europe/Berlin"."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DataError(
            f"zone={zone!r} is no name of a zone: 'UTC', 'Europe/Berlin', 'America/New_York'"
        ) from None


def to_utc(times: Array, zone: str, series: Array) -> Array:
    """Times of clocks in a zone as UTC; of an hour that is twice, the first one is summer's.

    Args:
        times: of clocks, in microseconds, in the order of the source.
        zone: its name.
        series: the number of the series of each.
    """
    place = zone_named(zone)
    offsets: dict[tuple[int, int], int] = {}

    def offset(hour: int, fold: int) -> int:
        if (hour, fold) not in offsets:
            clock = datetime.fromtimestamp(hour * 900, UTC).replace(tzinfo=place, fold=fold)
            there = clock.utcoffset()
            offsets[hour, fold] = int(there.total_seconds()) if there is not None else 0
        return offsets[hour, fold]

    made = times.copy()
    seen: set[tuple[int, int]] = set()
    for row, (time, number) in enumerate(zip(times.tolist(), series.tolist(), strict=True)):
        quarter = time // (900 * SECOND)
        first, second = offset(quarter, 0), offset(quarter, 1)
        if second > first:  # clocks were put on, and there was no such hour
            clock = str(np.datetime64(time, "us"))
            raise DataError(f"row {row}: {clock} never was in {zone}: clocks were put on then")
        again = first != second and (number, time) in seen
        if first != second:
            seen.add((number, time))
        made[row] = time - (second if again else first) * SECOND
    return made


def shown(time: int, whole: bool, zone: str = "") -> str | int:
    """A time as a person reads it: 2016-07-01 00:00, or with its zone."""
    if whole:
        return time
    if zone:
        moment = datetime.fromtimestamp(time // SECOND, UTC).astimezone(zone_named(zone))
        return moment.isoformat(" ")
    text = str(np.datetime64(time, "us"))
    day, _, clock = text.partition("T")
    if clock.startswith("00:00:00") and not clock.strip("0:."):
        return day
    clock = clock.rstrip("0").rstrip(".") if "." in clock else clock
    return f"{day} {clock.removesuffix(':00') if clock.count(':') == 2 else clock}"
