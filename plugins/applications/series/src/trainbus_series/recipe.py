"""SeriesRecipe: from series to what a network sees of them, by what training said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data import DataError
from trainbus_data.recipe import Recipe
from trainbus_data.tables.columns import Reading
from trainbus_series.covariates import Covariates, calendar
from trainbus_series.frequency import Frequency
from trainbus_series.panel import Asked, Panel
from trainbus_series.target import About, Ahead, History, Horizon, Static

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Scales:
    """Of each series of training, by its name: its mean, its deviation, and the mean difference
    from one season before, of the training part; float64.
    """

    names: tuple[str, ...]
    centre: Array
    scale: Array
    naive: Array

    def of(self, names: Sequence[str]) -> Array:
        """The places of these; -1 of those that training did not have."""
        known = {name: place for place, name in enumerate(self.names)}
        return np.array([known.get(name, -1) for name in names], np.int64)


def measured(values: Array, season: int) -> tuple[float, float, float, bool]:
    """Mean, deviation and seasonal difference of known values; whether it is constant."""
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0, 1.0, np.nan, True
    scale = float(known.std())
    constant = scale <= 1e-12 * max(1.0, float(np.abs(known).max()))
    lag = season if len(values) > season else 1
    steps = np.abs(values[lag:] - values[:-lag])
    steps = steps[~np.isnan(steps)]
    naive = float(steps.mean()) if len(steps) else np.nan
    return float(known.mean()), 1.0 if constant else scale, naive, constant


def filled(values: Array) -> Array:
    """Values with unknown ones as the last known before them, the first known at the beginning."""
    known = ~np.isnan(values)
    if known.all():
        return values
    if not known.any():
        return np.zeros_like(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return values[np.where(last < 0, int(known.argmax()), last)]


@dataclass(frozen=True, eq=False)
class Seen:
    """What networks see of series, T steps of all of them: float32.

    Attributes:
        history: T x channels: the series, whether it was known (if training had gaps), covariates.
        ahead: T x features: covariates that are known ahead, and the calendar.
        static: S x features.
        wanted: T, in deviations; NaN where not known.
    """

    history: Tensor
    ahead: Tensor
    static: Tensor
    wanted: Tensor


class SeriesRecipe(Recipe):
    """What turns series into what a network sees.

    Args:
        asked: how times and columns are read.
        horizon, lookback: steps of a forecast, and that are looked back at.
        frequency: of the times; `whole` of whole numbers, `zone` that they are in.
        season: steps after which a series is like itself.
        scales: of the series of training.
        past, future, static: covariates, fitted.
        calendar: what it says.
        gaps: whether training had unknown values.
        transform: "log", or nothing.
        target: the horizon.
        readings: how the columns were read.
    """

    #: What an export names for `trainbus_learner.load`.
    reader = "series"

    def __init__(
        self, asked: Asked, horizon: int, lookback: int, frequency: Frequency, whole: bool,
        zone: str, season: int, scales: Scales, past: Covariates, future: Covariates,
        static: Covariates, calendar: Sequence[str], gaps: bool, transform: str | None,
        target: Horizon, readings: Mapping[str, Reading],
    ) -> None:  # fmt: skip
        super().__init__([History(), Ahead(), Static(), target, About()], inputs=3)
        self.asked, self.horizon, self.lookback = asked, horizon, lookback
        self.frequency, self.whole, self.zone, self.season = frequency, whole, zone, season
        self.scales, self.past, self.future, self.static = scales, past, future, static
        self.calendar, self.gaps, self.transform = tuple(calendar), gaps, transform
        self.readings = dict(readings)

    @property
    def channels(self) -> int:
        """Of the history."""
        return 1 + self.gaps + self.past.width

    @property
    def features(self) -> int:
        """Known ahead."""
        return self.future.width + 2 * len(self.calendar)

    # --- of series -------------------------------------------------------------------------------

    def scaled(self, values: Array, name: str) -> Array:
        """Values as they are learned: transformed. Raises `DataError` where they cannot be."""
        if self.transform != "log":
            return values
        low = np.nanmin(values) if (~np.isnan(values)).any() else 1.0
        if low <= 0:
            raise DataError(f"transform='log' needs values above 0: the least of {name!r} is {low}")
        return np.log(values)

    def unscaled(self, values: Any) -> Any:
        """Values in their units again."""
        if self.transform != "log":
            return values
        return values.exp() if isinstance(values, Tensor) else np.exp(values)

    def seen(
        self, panel: Panel, values: Array, scales: Scales, static: Array, padded: int = 0
    ) -> Seen:
        """What networks see of all steps of a panel.

        Args:
            panel: the series.
            values: T, transformed.
            scales: of its series, in their order.
            static: the row of the table that says what is static of each series.
            padded: unknown steps in front of each series.
        """
        history, ahead, wanted = [], [], []
        past = self.past.encode(panel.table, panel.rows)
        future = self.future.encode(panel.table, panel.rows)
        for number, (start, count) in enumerate(
            zip(panel.starts.tolist(), panel.counts.tolist(), strict=True)
        ):
            steps = slice(start, start + count)
            own = (values[steps] - scales.centre[number]) / scales.scale[number]
            own = np.concatenate([np.full(padded, np.nan), own])
            parts = [filled(own)[:, None]]
            if self.gaps:
                parts.append(~np.isnan(own)[:, None])
            parts.append(np.pad(past[steps], ((padded, 0), (0, 0))))
            history.append(np.concatenate(parts, 1, dtype=np.float32))
            times = panel.times(number, count + padded, -padded)
            said = calendar(times, self.calendar, self.zone)
            ahead.append(np.concatenate([np.pad(future[steps], ((padded, 0), (0, 0))), said], 1))
            wanted.append(own.astype(np.float32))
        return Seen(
            torch.from_numpy(np.concatenate(history)),
            torch.from_numpy(np.concatenate(ahead)),
            torch.from_numpy(self.static.encode(panel.table, static)),
            torch.from_numpy(np.concatenate(wanted)),
        )

    # --- to keep ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON values from which, with `tensors`, `from_state` makes the same recipe."""
        return {
            "asked": asdict(self.asked), "horizon": self.horizon, "lookback": self.lookback,
            "frequency": self.frequency.state(), "whole": self.whole, "zone": self.zone,
            "season": self.season, "series": list(self.scales.names),
            "past": self.past.columns, "future": self.future.columns,
            "static": self.static.columns, "calendar": list(self.calendar), "gaps": self.gaps,
            "transform": self.transform, "target": self.target.options(),
            "readings": {name: each.state() for name, each in self.readings.items()},
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """What was learned that is numbers, by name."""
        scales = self.scales
        made = {
            "centre": torch.from_numpy(scales.centre), "scale": torch.from_numpy(scales.scale),
            "naive": torch.from_numpy(scales.naive),
        }  # fmt: skip
        if self.target.offsets is not None:
            made["offsets"] = self.target.offsets
        return made

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Any = ()) -> SeriesRecipe:
        """The recipe that `state` and `tensors` described.

        Raises:
            DataError: they describe none.
        """
        try:
            given = dict(tensors)
            asked = dict(state["asked"])
            asked["targets"] = tuple(asked["targets"])
            scales = Scales(
                tuple(state["series"]), *(given[n].numpy() for n in ("centre", "scale", "naive"))
            )
            target = Horizon(**state["target"])
            target.offsets = given.get("offsets")
            covariates = [Covariates(state[name]) for name in ("past", "future", "static")]
            return cls(
                Asked(**asked), state["horizon"], state["lookback"],
                Frequency(**state["frequency"]), state["whole"], state["zone"], state["season"],
                scales, *covariates, state["calendar"], state["gaps"], state["transform"], target,
                {name: Reading.from_state(each) for name, each in state["readings"].items()},
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"this is no recipe of series: {type(error).__name__}: {error}"
            ) from error

    def __repr__(self) -> str:
        return (
            f"SeriesRecipe({', '.join(self.asked.targets)}: {self.lookback} steps of "
            f"{self.frequency} -> {self.horizon})"
        )
