"""Forecasts: a table of what comes next, with quantiles; from a learner or an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus_data import DataError
from trainbus_data.tables.reader import read_table
from trainbus_learner import Predictor
from trainbus_series.covariates import calendar
from trainbus_series.frequency import zone_named
from trainbus_series.panel import Panel, logger, read_panel
from trainbus_series.recipe import Scales, SeriesRecipe, filled, measured

Array = np.ndarray[Any, Any]
#: Series that the model is asked about together.
BATCH = 512


class Forecast(dict[str, Any]):
    """A table of forecasts: columns by name, a row for each series and time.

    It is a dict of columns, which every frame takes: `pandas.DataFrame(forecast)`.
    """

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary; times that are dates are texts."""
        columns = dict(self)
        if not isinstance(self["time"][0], (int, np.integer)):
            texts = map(str, self["time"])
            columns["time"] = [each.replace("T", " ").replace(".000000", "") for each in texts]
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))

    @property
    def count(self) -> int:
        """How many rows."""
        return len(next(iter(self.values()), ()))

    def __repr__(self) -> str:
        return f"Forecast({self.count:,} rows: {', '.join(self)})"


class ForecastPredictor(Predictor):
    """Looks back at series, asks a model, and writes tables of forecasts.

    Args:
        forward: gives N x horizon of (history, ahead, static), in evaluation mode.
        recipe: of the series.
        about: what an export says of itself.
    """

    #: What `trainbus predict` gives files: rows of a series belong together.
    takes_tables = takes_whole_files = True

    recipe: SeriesRecipe

    def __init__(
        self, forward: Callable[..., Any], recipe: SeriesRecipe, about: dict[str, Any] | None = None
    ) -> None:
        super().__init__(forward, recipe.encode_input, recipe.target, recipe, about)
        self._ask = forward

    def __repr__(self) -> str:
        return f"ForecastPredictor({self.recipe!r})"

    def predict(self, item: Any) -> Any:
        """The forecast of a source: see `forecast`."""
        return self.forecast(item)

    def predictions(self, items: Any, batch_size: int = BATCH) -> Forecast:  # type: ignore[override]
        """The forecast of a source: see `forecast`."""
        return self.forecast(items)

    def forecast(self, source: Any, horizon: int | None = None, future: Any = None) -> Forecast:
        """What comes next in each series of a source.

        Args:
            source: rows of series up to now, of any kind that `series_table` takes, with the
                columns that training had. Rows behind the last known value may say what is known
                ahead.
            horizon: steps; by default those of training. More are made in rounds, on forecasts.
            future: rows with what is known ahead, with time (and series).

        Raises:
            UsageError: columns or rows are missing; says which, of which series.
        """
        recipe = self.recipe
        if source is None or isinstance(source, (int, float)):
            raise UsageError(f"forecast({source!r:.40}): give rows of the series up to now")
        table = read_table(source, like=recipe.readings)
        if future is not None:
            table = _joined(table, read_table(future, like=recipe.readings), recipe)
        elif recipe.asked.targets[0] not in table:
            table[recipe.asked.targets[0]]  # an error with its name
        freq = None if recipe.frequency.kind == "business" else recipe.frequency
        asked = replace(recipe.asked, freq=freq, fill="gaps" if freq is None else None)
        try:
            panel = read_panel(table, asked)
        except DataError as error:
            raise UsageError(f"trained on steps of {recipe.frequency}: {error}") from error
        values = np.concatenate(
            [recipe.scaled(panel.values[s : s + n], each)
             for each, s, n in zip(panel.names, panel.starts, panel.counts, strict=True)]
        )  # fmt: skip
        return self.of_panel(panel, values, horizon)

    def of_panel(
        self, panel: Panel, values: Array, horizon: int | None = None, ends: Array | None = None
    ) -> Forecast:
        """The forecast of series that are read, behind `ends` (by default the last known value).

        Args:
            panel: the series.
            values: T, transformed.
            horizon: steps.
            ends: S, steps of each that are looked back at.
        """
        recipe = self.recipe
        steps = recipe.horizon if horizon is None else horizon
        check_whole(1, UsageError, "forecast", horizon=steps)
        rounds = -(-steps // recipe.horizon)
        if rounds > 1:
            logger.warning(
                "%d steps of a model of %d: in %d rounds, on its own forecasts", steps,
                recipe.horizon, rounds,
            )  # fmt: skip
        ends = _last_known(values, panel) if ends is None else ends
        scales = self._scales(panel, values, ends)
        history, ahead, static = _inputs(recipe, panel, values, ends, scales, rounds)
        means, quantiles = [], []
        for turn in range(rounds):
            begin = turn * recipe.horizon
            upto = begin + recipe.lookback + recipe.horizon
            made = self._asked(history[:, begin:], ahead[:, begin:upto], static)
            spread = history[:, begin : begin + recipe.lookback, 0].std(1, correction=0)
            means.append(made)
            if recipe.target.offsets is not None:
                quantiles.append(recipe.target.around(made, spread))
            going_on = torch.zeros(len(made), recipe.horizon, history.shape[2])
            going_on[..., 0] = made
            if recipe.gaps:
                going_on[..., 1] = 1.0
            history = torch.cat([history, going_on], 1)
        mean = torch.cat(means, 1)[:, :steps]
        every = torch.cat(quantiles, 2)[:, :, :steps] if quantiles else None
        return _table(recipe, panel, ends, scales, mean, every)

    def _asked(self, history: Tensor, ahead: Tensor, static: Tensor) -> Tensor:
        made = [
            self._ask(history[n : n + BATCH, : self.recipe.lookback], ahead[n : n + BATCH],
                      static[n : n + BATCH]).cpu()
            for n in range(0, len(history), BATCH)
        ]  # fmt: skip
        return torch.cat(made)

    def _scales(self, panel: Panel, values: Array, ends: Array) -> Scales:
        """Those of training; of a new series its own."""
        known = self.recipe.scales
        places = known.of(panel.names)
        new = np.flatnonzero(places < 0)
        made = [known.centre[places], known.scale[places], known.naive[places]]
        if len(new):
            names = ", ".join(repr(panel.names[n]) for n in new[:3])
            more = ", ..." if len(new) > 3 else ""
            what = ", what is static of them as it is given" if self.recipe.static.width else ""
            logger.warning(
                "%s%s: not in training (%d series); scaled by their own values%s", names, more,
                len(new), what,
            )  # fmt: skip
        for number in new:
            start = int(panel.starts[number])
            found = measured(values[start : start + int(ends[number])], self.recipe.season)
            for column, value in zip(made, found, strict=False):
                column[number] = value
        return Scales(panel.names, *made)


def _last_known(values: Array, panel: Panel) -> Array:
    ends = np.zeros(len(panel.names), np.int64)
    for number, (start, count) in enumerate(zip(panel.starts, panel.counts, strict=True)):
        known = np.flatnonzero(~np.isnan(values[start : start + count]))
        if not len(known):
            raise UsageError(f"forecast: series {panel.names[number]!r} has no known value")
        ends[number] = known[-1] + 1
    return ends


def _joined(table: Any, future: Any, recipe: SeriesRecipe) -> Any:
    """The rows of both; of what is to come the targets are not known."""
    names = dict.fromkeys([*table, *future])
    needed = {*recipe.readings}
    columns = {}
    for name in names:
        if name not in needed:
            continue
        parts = [each[name].texts() if name in each else [None] * each.rows
                 for each in (table, future)]  # fmt: skip
        columns[name] = [*parts[0], *parts[1]]
    return read_table(columns, like=recipe.readings)


def _inputs(
    recipe: SeriesRecipe, panel: Panel, values: Array, ends: Array, scales: Scales, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The last steps of each series, what is known ahead of them, and what is static."""
    look, steps = recipe.lookback, rounds * recipe.horizon
    past = recipe.past.encode(panel.table, panel.rows)
    count = len(panel.names)
    history = np.zeros((count, look, recipe.channels), np.float32)
    ahead = np.zeros((count, look + steps, recipe.features), np.float32)
    short = []
    for number, (start, end) in enumerate(zip(panel.starts.tolist(), ends.tolist(), strict=True)):
        begin = max(0, end - look)
        own = (values[start + begin : start + end] - scales.centre[number]) / scales.scale[number]
        if len(own) < look:
            short.append(panel.names[number])
            own = np.concatenate([np.full(look - len(own), np.nan), own])
        history[number, :, 0] = filled(own)
        if recipe.gaps:
            history[number, :, 1] = ~np.isnan(own)
        seen = past[start + begin : start + end]
        history[number, look - len(seen) :, 1 + recipe.gaps :] = seen
        if recipe.features:
            times = panel.times(number, look + steps, end - look)
            rows = np.full(look + steps, -1, np.int64)
            there = np.arange(end - look, end + steps)
            inside = (there >= 0) & (there < panel.counts[number])
            rows[inside] = panel.rows[start + there[inside]]
            _check_ahead(recipe, panel, number, rows[look:], times[look:])
            said = calendar(times, recipe.calendar, recipe.zone)
            ahead[number] = np.concatenate([recipe.future.encode(panel.table, rows), said], 1)
    if short:
        logger.warning(
            "%d of %d series (%r, ...) are shorter than the %d steps that are looked back at: "
            "begun with their first value", len(short), count, short[0], look,
        )  # fmt: skip
    statics = recipe.static.encode(panel.table, panel.rows[panel.starts])
    return torch.from_numpy(history), torch.from_numpy(ahead), torch.from_numpy(statics)


def _check_ahead(
    recipe: SeriesRecipe, panel: Panel, number: int, rows: Array, times: Array
) -> None:
    """Refuse to forecast without what was to be known ahead."""
    for name, gone in recipe.future.missing(panel.table, rows).items():
        of = f" of {panel.names[number]!r}" if panel.names[number] else ""
        some = [str(panel.shown(each)) for each in times[gone][:3]]
        raise UsageError(
            f"{name!r} is needed for {len(rows)} steps behind "
            f"{panel.shown(int(times[0]))}{of}, got {int((~gone).sum())}: missing "
            f"{', '.join(some)}{', ...' if gone.sum() > 3 else ''}; give forecast(future=rows)"
        )


def _table(
    recipe: SeriesRecipe, panel: Panel, ends: Array, scales: Scales, mean: Tensor,
    quantiles: Tensor | None,
) -> Forecast:  # fmt: skip
    about = torch.from_numpy(np.stack([scales.centre, scales.scale], 1))
    count = mean.shape[1]
    names = [name for name in panel.names for _ in range(count)]
    times = np.concatenate([panel.times(n, count, int(end)) for n, end in enumerate(ends.tolist())])
    shown: Any = times
    if not panel.whole:
        shown = times.astype("datetime64[us]")
        if panel.zone:
            from datetime import UTC, datetime

            place = zone_named(panel.zone)
            shown = [
                datetime.fromtimestamp(each / 1_000_000, UTC).astimezone(place)
                for each in times.tolist()
            ]
    made: dict[str, Any] = {"series": names} if names and any(panel.names) else {}
    made |= {"time": shown}
    made["mean"] = recipe.target.in_units(mean.double(), about).flatten().numpy()
    if quantiles is not None:
        for place, level in enumerate(recipe.target.quantiles):
            values = recipe.target.in_units(quantiles[:, place].double(), about)
            made[f"q{level * 100:g}"] = values.flatten().numpy()
    return Forecast(made)


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> ForecastPredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    return ForecastPredictor(run, SeriesRecipe.from_state(state, tensors), about)
