"""`series_table`: from any source of rows to windows of series that a learner takes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainbus.arguments import check_whole
from trainbus_data import DataError
from trainbus_data.tables.columns import Column, Table
from trainbus_data.tables.reader import read_table
from trainbus_series.covariates import Covariates, calendar_of
from trainbus_series.data import ForecastData, Windows
from trainbus_series.panel import Asked, Panel, read_panel
from trainbus_series.parts import STAGES, borders, windows
from trainbus_series.recipe import Scales, SeriesRecipe, measured
from trainbus_series.target import QUANTILES, Horizon

logger = logging.getLogger("trainbus")
Array = np.ndarray[Any, Any]
#: Steps that are looked back at, by the season; of hours three weeks.
_LOOKBACKS = {24: 504, 7: 112, 5: 100, 52: 104, 12: 36, 4: 16}
#: Of training at least so many times a lookback is there, where nothing is said.
_TIMES = 2


def series_table(
    source: Any,
    time: str,
    target: str | Sequence[str],
    *,
    horizon: int,
    lookback: int | None = None,
    series: str | None = None,
    past: str | Sequence[str] = (),
    future: str | Sequence[str] = (),
    static: str | Sequence[str] = (),
    split: Any = None,
    freq: str | int | None = None,
    fill: str | None = None,
    duplicates: str | None = None,
    zone: str | None = None,
    season: int | None = None,
    calendar: bool = True,
    transform: str | None = None,
    pad: bool = False,
    loss: str | None = None,
    quantiles: Sequence[float] = QUANTILES,
    batch_size: int | None = None,
    seed: int = 0,
    name: str = "",
) -> ForecastData:
    """Series of a table, and windows of them: what is looked back at, and what is forecast.

    Args:
        source: the path of a CSV file (also packed by gzip) or Parquet file, a frame of any
            library, a dict of columns, or a list of dicts.
        time: the column of times: dates, or whole numbers.
        target: the column that is forecast; several are as many series of the same times.
        horizon: steps of a forecast.
        lookback: steps that a forecast looks back at; by default by the season, as far as the
            series go.
        series: the column that says which series a row is of.
        past: columns that are known as long as the series is.
        future: columns that are known ahead: holidays, prices.
        static: columns that say something of a series as a whole.
        split: two or three parts in the order of time: shares (0.7, 0.1, 0.2), counts of steps
            (8640, 2880, 2880) with None for what is left, or the dates at which validation and
            test begin. By default the last fifth validates.
        freq: the step of time: "h", "15min", "D", "W", "M", "ME", "Q", "Y", "B", or a whole
            number; by default it is found, and said. With one, steps without a row are unknown.
        fill: "gaps" leaves steps without a row unknown; else they are refused.
        duplicates: what is made of several rows of one time: "mean", "sum", "first", "last"; else
            they are refused.
        zone: in which times without a zone are meant: "Europe/Berlin". Series are then on the
            steps of UTC, and shown in the zone.
        season: steps after which a series is like itself; by default by the frequency, of whole
            numbers by their autocorrelation.
        calendar: whether hour, weekday and day of the year are known, of each that training has
            twice and a lookback has not.
        transform: "log" learns logarithms, of values above 0.
        pad: whether windows may begin before a series does, for short ones.
        loss: "mse", "mae" or "huber"; by default "mse", of more than 20 series "mae".
        quantiles: that forecasts have.
        batch_size: windows in a batch of training.
        seed: of the order of training.
        name: in the names of runs; by default that of the file.

    Raises:
        DataError: something of it cannot be; the message says what, where, and what would be right.
    """
    _check_numbers(horizon=horizon, lookback=lookback, season=season)
    targets, past, future, static = map(_listed, (target, past, future, static))
    if not targets:
        raise DataError("target=: name the column that is forecast")
    table = read_table(source)
    for each in (time, *targets, *([series] if series else []), *past, *future, *static):
        table[each]
    asked = Asked(time, targets, series, freq, fill, duplicates, zone)
    panel = read_panel(table, asked)
    _refuse_leaks(table, targets, (*past, *future), panel.notes)
    ends = _known_ends(panel)
    bounds, how = borders(panel, ends, split, horizon)
    season = season or _season_of(panel, bounds, panel.notes)
    lookback = lookback or _usual_lookback(season, bounds, horizon)
    padded = lookback if pad else 0
    _check_lengths(panel, bounds, lookback, horizon, pad)
    many = len(panel.names) > 20
    goal = Horizon(horizon, loss or ("mae" if many else "mse"), quantiles, transform)
    recipe = _fitted(
        panel, asked, bounds, lookback, season, (past, future, static), calendar, pad, goal
    )
    values = _scaled(panel, recipe)
    scales = _scales(panel, values, bounds[:, 0], season, panel.notes)
    recipe.scales = scales
    statics = panel.rows[panel.starts]
    seen = recipe.seen(panel, values, scales, statics, padded)
    parts = _parts(panel, bounds, recipe, padded, scales, season)
    for note in panel.notes:
        logger.warning("%s", note)
    name = name or _name_of(source)
    return ForecastData(
        recipe, panel, values, seen, parts, bounds, how, statics, padded, batch_size, seed=seed,
        name=name,
    )  # fmt: skip


def _check_numbers(horizon: int, **others: int | None) -> None:
    check_whole(1, DataError, horizon=horizon)
    check_whole(1, DataError, **{name: each for name, each in others.items() if each is not None})


def _listed(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _name_of(source: Any) -> str:
    return Path(source).name.partition(".")[0] if isinstance(source, (str, Path)) else ""


def _scaled(panel: Panel, recipe: Any) -> Any:
    """The values of all series, each on its scale."""
    parts = zip(panel.names, panel.starts, panel.counts, strict=True)
    return np.concatenate([recipe.scaled(panel.values[s : s + n], each) for each, s, n in parts])


def _refuse_leaks(
    table: Table, targets: Sequence[str], covariates: Sequence[str], notes: list[str]
) -> None:
    """Refuse a covariate that is the target under another name."""
    for each in covariates:
        if each in targets:
            raise DataError(f"{each!r} is the target; its past is looked back at as it is")
        column = table[each]
        for target in targets:
            if column.kind == "number" and np.array_equal(
                column.values, table[target].values, equal_nan=True
            ):
                raise DataError(f"{each!r} equals the target {target!r}: a leak; leave it out")


def _known_ends(panel: Panel) -> Array:
    """How many steps of each series there are up to the last known one."""
    ends = np.zeros(len(panel.names), np.int64)
    for number, (start, count) in enumerate(zip(panel.starts, panel.counts, strict=True)):
        known = np.flatnonzero(~np.isnan(panel.values[start : start + count]))
        if not len(known):
            raise DataError(f"series {panel.names[number]!r} has no known value")
        ends[number] = known[-1] + 1
        gone = np.isnan(panel.values[start : start + ends[number]])
        if gone.any():
            runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], gone, [0]]))))[::2]
            name = f"{panel.names[number]!r}" if panel.names[number] else "the series"
            if sum("unknown values" in note for note in panel.notes) < 3:
                panel.notes.append(
                    f"{name} has {int(gone.sum()):,} unknown values, at most {int(runs.max())} in "
                    "a row: left out of the loss; looked back at as the last known one"
                )
    return ends


def _season_of(panel: Panel, bounds: Array, notes: list[str]) -> int:
    """By the frequency; of whole numbers the lag of the highest autocorrelation of training."""
    if not panel.whole:
        return panel.frequency.season
    longest = int(bounds[:, 0].max())
    most = min(400, longest // 3)
    total = np.zeros(most + 1)
    rows = np.linspace(0, len(panel.names) - 1, min(200, len(panel.names))).astype(int)
    for number in rows:
        start, count = int(panel.starts[number]), int(bounds[number, 0])
        values = panel.values[start : start + count]
        if count < 3 * most or np.isnan(values).any() or most < 4:
            continue
        steps = np.diff(values)
        steps = steps - steps.mean()
        if not steps.any():
            continue
        wave = np.fft.rfft(steps, 2 * len(steps))
        found = np.fft.irfft(np.abs(wave) ** 2)[: most + 1]
        total += found / found[0]
    peaks = [
        lag for lag in range(2, most)
        if total[lag] > total[lag - 1] and total[lag] >= total[lag + 1]
    ]  # fmt: skip
    best = max(peaks, key=total.__getitem__, default=1)
    if best > 1 and total[best] < 0.2 * total[0]:
        best = 1
    # A day that is nearly as high as the week it is in is the season.
    best = next((lag for lag in peaks if total[lag] >= 0.7 * total[best] and best > 1), best)
    notes.append(f"season: {best} steps (found; season= says another one)")
    return int(best)


def _usual_lookback(season: int, bounds: Array, horizon: int) -> int:
    """By the season, and at least twice the horizon where training is long enough."""
    wanted = _LOOKBACKS.get(season, max(2 * season, 96) if season > 1 else 2 * horizon)
    wanted = max(wanted, min(2 * horizon, 336))
    steps = bounds[:, 0]
    room = int((np.median(steps) - horizon) // _TIMES)
    if (steps > 0).all():
        room = min(room, int(steps.min()) - horizon)
    return max(1, min(wanted, room))


def _check_lengths(panel: Panel, bounds: Array, lookback: int, horizon: int, pad: bool) -> None:
    """Refuse series that are too short for a single window of training, unless they start late."""
    need = horizon + (1 if pad else lookback)
    short = np.flatnonzero(bounds[:, 0] < need)
    late = panel.firsts[short] > panel.firsts.min()
    if len(short) and (len(short) == len(panel.names) or not late.all()):
        worst = int(short[0])
        what = f"series {panel.names[worst]!r} has" if panel.names[worst] else "there are"
        raise DataError(
            f"{what} {int(bounds[worst, 0]):,} values for training; lookback {lookback} + horizon "
            f"{horizon} need {lookback + horizon}; {len(short):,} of {len(panel.names):,} series; "
            "a shorter lookback, or pad=True"
        )
    if len(short):
        panel.notes.append(
            f"{len(short):,} of {len(panel.names):,} series ({panel.names[int(short[0])]!r}, ...) "
            f"are shorter than lookback {lookback} + horizon {horizon} in training: not trained on "
            "(pad=True trains on them)"
        )


def _fitted(
    panel: Panel, asked: Asked, bounds: Array, lookback: int, season: int,
    covariates: Sequence[Sequence[str]], calendar: bool, pad: bool, goal: Horizon,
) -> SeriesRecipe:  # fmt: skip
    """The recipe, fitted to the training part."""
    trained = np.zeros(len(panel.rows), bool)
    for start, end in zip(panel.starts, bounds[:, 0], strict=True):
        trained[start : start + end] = True
    rows = np.unique(panel.rows[trained & (panel.rows >= 0)])
    notes = panel.notes
    past, future = (Covariates.fitted(panel.table, each, rows, notes) for each in covariates[:2])
    firsts = panel.rows[panel.starts]
    for each in covariates[2]:
        _check_static(panel, panel.table[each], each)
    static = Covariates.fitted(panel.table, covariates[2], np.unique(firsts), notes)
    cycles = calendar_of(panel.frequency, int(bounds[:, 0].max()), lookback) if calendar else ()
    gaps = pad or bool(np.isnan(panel.values[trained]).any())
    empty = Scales((), *(np.zeros(0) for _ in range(3)))
    names = {asked.time, *asked.targets, *past.names, *future.names, *static.names}
    names |= {asked.series} if asked.series else set()
    return SeriesRecipe(
        asked, goal.horizon, lookback, panel.frequency, panel.whole, panel.zone, season, empty,
        past, future, static, cycles, gaps, goal.transform, goal,
        {each: panel.table[each].reading for each in sorted(names)},
    )  # fmt: skip


def _check_static(panel: Panel, column: Column, name: str) -> None:
    values = np.where(column.missing, 0, column.values)[np.maximum(panel.rows, 0)]
    for number, (start, count) in enumerate(zip(panel.starts, panel.counts, strict=True)):
        own = values[start : start + count][panel.rows[start : start + count] >= 0]
        if (own != own[0]).any():
            raise DataError(
                f"static={name!r} is not the same in all rows of {panel.names[number]!r}; what "
                "changes is past= or future="
            )


def _scales(panel: Panel, values: Array, ends: Array, season: int, notes: list[str]) -> Scales:
    """Of the training part of each series; of one without such a part, of its first season."""
    found = []
    constant = []
    for number, (start, end) in enumerate(zip(panel.starts, ends, strict=True)):
        until = end if end > 1 else min(int(panel.counts[number]), max(2, 2 * season))
        *numbers, is_constant = measured(values[start : start + until], season)
        naive = measured(panel.values[start : start + until], season)[2]
        found.append([*numbers[:2], naive])
        if is_constant:
            constant.append(panel.names[number])
    if constant:
        notes.append(
            f"{', '.join(map(repr, constant[:3]))}{', ...' if len(constant) > 3 else ''} constant "
            f"in training: scaled by 1 ({len(constant):,} series)"
        )
    centre, scale, naive = np.array(found, np.float64).T
    return Scales(panel.names, centre.copy(), scale.copy(), naive.copy())


def _parts(
    panel: Panel, bounds: Array, recipe: SeriesRecipe, padded: int, scales: Scales, season: int
) -> dict[str, Windows]:
    """The windows of each part; what errors of a part are set beside is what was before it."""
    made = {}
    for place, stage in enumerate(STAGES[: bounds.shape[1]]):
        starts, owners = windows(panel, bounds, place, recipe.lookback, recipe.horizon, padded)
        naive = scales.naive.copy()
        if place > 1:
            for number, (start, end) in enumerate(zip(panel.starts, bounds[:, 1], strict=True)):
                naive[number] = measured(panel.values[start : start + end], season)[2]
        about = torch.from_numpy(np.stack([scales.centre, scales.scale, naive], 1))
        if not len(starts):
            sizes = np.diff(bounds, axis=1, prepend=0)[:, place]
            raise DataError(
                f"{stage} has no window: its longest part has {int(sizes.max()):,} steps, and a "
                f"forecast has {recipe.horizon}"
                + (f", behind {recipe.lookback} that are looked back at" if not place else "")
            )
        made[stage] = Windows(torch.from_numpy(starts), torch.from_numpy(owners), about)
    return made
