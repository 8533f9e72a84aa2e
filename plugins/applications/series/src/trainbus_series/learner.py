"""ForecastLearner: a learner whose network is made for the series of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from trainbus import UsageError
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.baselines import Comparison
from trainbus_learner.evaluation import forward
from trainbus_series import baselines, closed_form, intervals
from trainbus_series.forecast import Forecast, ForecastPredictor
from trainbus_series.models import ARCHS, ForecastModel

#: The highest rate of a cycle, by the network: what begins as a solution is not to forget it.
_RATES = {"linear": 1e-4, "patch": 5e-4, "mixer": 1e-3}


class ForecastLearner(ArchLearner):
    """Learns what comes next in series.

    The linear part of each network begins as the solution of ridge regressions of all windows, so
    that training adds to it. `validate()` measures all windows; `forecast()` writes a table with
    quantiles, which are calibrated on the validation part; `baselines()` puts the classical answers
    beside it.

    Args:
        data: what `series_table(...)` made.
        arch: "linear", "patch" or "mixer"; or a module that is called with (history N x lookback x
            channels, ahead N x (lookback + horizon) x features, static N x features) and gives
            N x horizon.
        network: options of the network: {"width": 64, "layers": 3}, ...
        lr: the learning rate; by default one for each network.
        options: of `Learner`: loss, metrics, optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "linear",
        *,
        network: Mapping[str, Any] | None = None,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(data, "panel"):
            raise UsageError(
                f"ForecastLearner(data={type(data).__name__}): give what series_table(...) makes: "
                "series_table('file.csv', time='date', target='load', horizon=24)"
            )
        name = arch if isinstance(arch, str) else type(arch).__name__
        described = None
        if isinstance(arch, nn.Module):
            if network:
                raise UsageError("network= is for a network by name")
            model: nn.Module = arch
        else:
            model = _made(data, arch, dict(network or {}), options.get("seed"))
            described = {
                "builder": "trainbus_series.models:rebuild", "options": dict(model.description),
            }  # fmt: skip
        about = {
            "network": ARCHS.get(name, f"{name} (given)"),
            "begins as": "the mean of ridge regressions of all windows of training",
        }
        super().__init__(
            data, model, arch=name, about=about, usual=_RATES.get(name), lr=lr,
            model_description=described, **options,
        )  # fmt: skip
        self._calibrated_for: Any = None

    def validate(self, loader: Any = "valid", *, scaled: bool = False) -> dict[str, float]:
        """Errors over all windows: {"loss", "mse", "mae", "smape", "mase", "coverage", "crps"}.

        `smape` is that of M4, in percent. `mase` is set beside the seasonal difference of all that
        was before the part. `coverage` is how often what came lies within the outermost quantiles
        (80% where nothing was said), which are calibrated on the validation part: on that part it
        is what it should be by construction, and says something on "test".

        Args:
            loader: "valid", "test" or "train", or a loader.
            scaled: tell errors in deviations of the training part, as papers do; else in units.
        """
        self.calibrate()
        target, metrics = self.source.target, self.task.metrics
        target.scaled = scaled
        self.task.metrics = {**metrics, **target.of_quantiles()}
        try:
            return super().validate(loader)
        finally:
            target.scaled, self.task.metrics = False, metrics

    def calibrate(self) -> None:
        """Find the quantiles beside forecasts, on the validation part; once after each training.

        It is done where quantiles are needed. Without a validation part it is done on training,
        which flatters.
        """
        now = tuple(getattr(each, "_version") for each in self.model.parameters())  # noqa: B009
        if self._calibrated_for != now:
            self.source.target.offsets = intervals.offsets(self)
            self._calibrated_for = now

    # --- forecasting -----------------------------------------------------------------------------

    def predictor(self) -> ForecastPredictor:
        """What `forecast` asks; it goes on with the present weights."""
        self.calibrate()
        return ForecastPredictor(partial(forward, self), self.source.recipe)

    def forecast(
        self, source: Any = None, horizon: int | None = None, *, future: Any = None
    ) -> Forecast:
        """What comes next in each series: a table of series, time, mean and quantiles.

        Args:
            source: rows of series up to now; by default those of the data, with all their parts.
            horizon: steps; by default those of training.
            future: rows with what is known ahead, with time (and series).
        """
        if source is None and future is None:
            data = self.data
            return self.predictor().of_panel(data.panel, data.values, horizon)
        if source is None:
            source = self.data.panel.table
        return self.predictor().forecast(source, horizon, future)

    def predict(self, item: Any) -> Any:
        """The forecast of rows: see `forecast`."""
        return self.forecast(item)

    def predictions(self, items: Any, batch_size: int = 0) -> Forecast:  # type: ignore[override]
        """The forecast of rows: see `forecast`."""
        return self.forecast(items)

    def export(self, path: Any, format: Any = "weights", overwrite: bool = False) -> Any:
        """As of any learner; the quantiles go with it."""
        self.calibrate()
        return super().export(path, format, overwrite)

    def baselines(  # type: ignore[override]
        self, loader: Any = "valid", *, names: Sequence[str] | None = None, scaled: bool = False
    ) -> Comparison:
        """The classical answers beside this one: same windows, same errors, with times.

        "repeat" the last value, "seasonal naive" what was a season before, "drift" the line from
        the first to the last value of a window, "closed form" the ridge regression that training
        begins with.

        Args:
            loader: "valid", "test" or "train".
            names: of the baselines; by default all.
            scaled: as in `validate`.
        """
        return baselines.compare(self, loader, names, scaled)

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, with the network."""
        return {"network": self.choices["network"], **super()._header(schedule)}


def _made(data: Any, arch: str, network: dict[str, Any], seed: Any) -> ForecastModel:
    recipe = data.recipe
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            model = ForecastModel(
                recipe.lookback, recipe.horizon, recipe.channels, recipe.features,
                recipe.static.width, arch, **network,
            )  # fmt: skip
        except TypeError as error:
            raise UsageError(f"network={network!r:.80} of {arch!r}: {error}") from None
    try:
        model.take(closed_form.ridge(data))
    except ValueError:  # no window is known as a whole
        nn.init.zeros_(model.linear.weight)
        nn.init.zeros_(model.linear.bias)
    return model
