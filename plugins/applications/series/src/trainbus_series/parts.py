"""Parts in the order of time: where training ends in each series, and where windows lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainbus_data import DataError
from trainbus_data.tables.columns import Column
from trainbus_data.tables.values import texts
from trainbus_series.frequency import to_utc
from trainbus_series.panel import Panel

Array = np.ndarray[Any, Any]
STAGES = ("train", "valid", "test")
_USUAL = 0.2
_WHAT = (
    "two or three parts in the order of time: shares (0.7, 0.1, 0.2), counts of steps (8640, 2880, "
    "2880) with None for what is left, or the dates at which validation and test begin"
)


def borders(panel: Panel, ends: Array, split: Any, horizon: int) -> tuple[Array, str]:
    """Where each part ends in each series, S x 2 or 3; and how that was found.

    Args:
        panel: the series.
        ends: S, the steps of each that are known.
        split: see `series_table`.
        horizon: steps of a forecast.

    Raises:
        DataError: it is none of these, or leaves a part empty in all series.
    """
    if split is None:
        valid = np.maximum(horizon, np.round(_USUAL * ends)).astype(np.int64)
        made = np.stack([np.maximum(ends - valid, 0), ends], 1)
        return made, f"the last {_USUAL:.0%}, and at least {horizon} steps, validate"
    given = (split,) if isinstance(split, (str, float, int, np.datetime64)) else split
    try:
        given = tuple(given)
    except TypeError:
        raise DataError(f"split={split!r:.60}: {_WHAT}") from None
    if given and all(isinstance(each, float) for each in given):
        made, how = _shares(ends, given, split), "shares of the steps of each series"
    elif given and all(each is None or _is_count(each) for each in given):
        made, how = _counts(ends, given, split, panel), "counts of steps"
    elif given and not any(each is None for each in given):
        made, how = _dates(panel, ends, given, split), f"from {' and '.join(map(str, given))} on"
    else:
        raise DataError(f"split={split!r:.60}: {_WHAT}")
    sizes = np.diff(made, axis=1, prepend=0)
    for stage, size in zip(STAGES, sizes.T, strict=False):
        if not (size > 0).any():
            raise DataError(f"split={split!r:.60} leaves no step for {stage}")
    return made, how


def _is_count(each: Any) -> bool:
    return isinstance(each, (int, np.integer)) and not isinstance(each, bool) and each >= 0


def _shares(ends: Array, given: Sequence[float], split: Any) -> Array:
    if len(given) == 1 and 0 < given[0] < 1:
        given = (1 - given[0], given[0])
    if not 2 <= len(given) <= 3 or min(given) <= 0 or sum(given) > 1 + 1e-9:
        raise DataError(f"split={split!r}: shares above 0, of at most 1 together; {_WHAT}")
    upto = np.cumsum(given)
    return np.round(upto[None] * ends[:, None] + 1e-9).astype(np.int64)


def _counts(ends: Array, given: Sequence[int | None], split: Any, panel: Panel) -> Array:
    if len(given) == 1:
        given = (None, given[0])
    if not 2 <= len(given) <= 3 or sum(each is None for each in given) > 1:
        raise DataError(f"split={split!r}: {_WHAT}")
    known = sum(each for each in given if each is not None)
    sizes = [np.full(len(ends), each) if each is not None else ends - known for each in given]
    made = np.cumsum(np.stack(sizes, 1), 1)
    short = np.flatnonzero((ends < known) | (np.stack(sizes, 1) < 0).any(1))
    if len(short) == len(ends) or (None not in given and len(short)):
        worst = int(short[0])
        raise DataError(
            f"split={split!r}: {known:,} steps, and series {panel.names[worst]!r} has "
            f"{int(ends[worst]):,}"
        )
    return np.clip(made, 0, ends[:, None])


def _dates(panel: Panel, ends: Array, given: Sequence[Any], split: Any) -> Array:
    if panel.whole:
        raise DataError(f"split={split!r}: times are whole numbers here, and no dates; {_WHAT}")
    if not 1 <= len(given) <= 2:
        raise DataError(f"split={split!r}: the date at which validation begins, and that of test")
    read: Column = texts([str(each).replace("T", " ") for each in given])
    if read.kind != "date" or read.missing.any():
        raise DataError(f"split={split!r}: these are no dates, as '2017-06-25'; {_WHAT}")
    at = read.values
    if panel.zone and not read.zone:
        at = to_utc(at, panel.zone, np.arange(len(at)))
    if len(at) == 2 and at[0] >= at[1]:
        raise DataError(f"split={split!r}: the test begins behind validation")
    made = np.empty((len(ends), len(at) + 1), np.int64)
    for number, end in enumerate(ends.tolist()):
        times = panel.times(number, end)
        made[number] = [*np.searchsorted(times, at), end]
    return made


def windows(
    panel: Panel, bounds: Array, stage: int, lookback: int, horizon: int, padded: int
) -> tuple[Array, Array]:
    """Where the windows of a part begin in the T steps (with `padded` in front of each series),
    and the series of each. What a window forecasts lies in the part as a whole; what it looks back
    at may lie before it.

    Args:
        panel: the series.
        bounds: of `borders`.
        stage: 0, 1 or 2.
        lookback, horizon: steps.
        padded: steps in front of each series, where nothing is known.
    """
    starts, owners = [], []
    offsets = np.cumsum(panel.counts + padded) - (panel.counts + padded)
    for number, (offset, bound) in enumerate(zip(offsets.tolist(), bounds.tolist(), strict=True)):
        begin = bound[stage - 1] if stage else 0
        first = max(begin, lookback - padded, 1)
        last = bound[stage] - horizon
        if last >= first:
            made = np.arange(first, last + 1) - lookback + padded + offset
            starts.append(made)
            owners.append(np.full(len(made), number))
    if not starts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(starts), np.concatenate(owners)
