"""`trainbus demo series`: the temperatures of a city, hour by hour, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def train(run_dir: str, seed: int, epochs: int = 2) -> None:
    """Learn hourly temperatures, those that vega_datasets carries or made ones, and forecast them.

    Args:
        run_dir: where the runs go.
        seed: of the network and the order of windows.
        epochs: passes over the windows.
    """
    from trainbus.storage.files import shown
    from trainbus_learner import load
    from trainbus_series import ForecastLearner, series_table

    data = series_table(
        temperatures(seed), "date", "temp", horizon=24, split=(0.7, 0.15, 0.15), fill="gaps",
        duplicates="mean", name="temperatures",
    )  # fmt: skip
    print(data.summary())
    learner = ForecastLearner(data, seed=seed, run_dir=run_dir)
    learner.fit_one_cycle(epochs)
    print(learner.baselines("test"))
    run = learner.run
    assert run is not None and run.dir is not None
    exported = learner.export(run.dir / "model")
    print(f"the next hours by {shown(exported)}, loaded again:")
    predictor: Any = load(exported)
    for row in list(predictor.forecast(data.panel.table).rows())[:6]:
        print(f"{row['time']}  {row['mean']:.1f}  ({row['q10']:.1f} to {row['q90']:.1f})")


def temperatures(seed: int) -> Any:
    """A year of hours: of Seattle where vega_datasets is installed, else made of a day, a year and
    weather.
    """
    try:
        from vega_datasets import data as local  # type: ignore[import-not-found]
    except ImportError:
        return _made(seed)
    path = Path(local.seattle_temps.filepath)
    return path if path.is_file() else _made(seed)


def _made(seed: int) -> dict[str, Any]:
    import numpy as np

    draw = np.random.default_rng(seed)
    hours = np.arange(8759)
    year, day = 2 * np.pi * hours / 8760, 2 * np.pi * hours / 24
    weather = np.zeros(len(hours))
    for hour, change in enumerate(draw.normal(0, 0.5, len(hours) - 1), 1):
        weather[hour] = 0.98 * weather[hour - 1] + change
    values = 52 - 12 * np.cos(year - 0.5) - 5 * np.cos(day - 0.8) + weather
    times = np.datetime64("2010-01-01", "us") + hours * np.timedelta64(1, "h")
    return {"date": times, "temp": values.round(1)}
