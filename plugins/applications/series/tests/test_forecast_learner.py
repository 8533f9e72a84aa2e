"""A learner of series: trained, asked for forecasts, exported, and beside the classical answers."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus.cli import main
from trainbus_learner import load as loaded
from trainbus_series import ForecastLearner, series_table

QUIET = ["-progress", "-journal", "-manifest"]


@pytest.fixture
def data(load):
    return series_table(load, "when", "load", horizon=12, lookback=48, split=(400, 100, 100))


def learner_of(data, arch="linear", **options):
    return ForecastLearner(data, arch, seed=0, plugins=QUIET, **options)


def test_a_linear_forecast_begins_as_good_as_the_closed_form(data):
    learner = learner_of(data)
    found = learner.baselines("test")
    assert found[-1].metrics["mse"] < 1.02 * found["closed form"].metrics["mse"] < 0.02
    assert found[-1].metrics["mse"] < 0.7 * found["seasonal naive"].metrics["mse"]
    assert [row.name for row in found] == [
        "repeat", "seasonal naive", "drift", "closed form", "this learner"
    ]  # fmt: skip


@pytest.mark.parametrize("arch", ["linear", "patch", "mixer"])
def test_each_network_trains_and_is_exported_bit_by_bit(data, load, arch):
    learner = learner_of(data, arch)
    learner.fit_one_cycle(1)
    assert learner.validate("test")["mase"] < 1
    learner.export("out")
    ours, theirs = learner.forecast(load), loaded("out").forecast(load)
    assert list(ours) == ["series", "time", "mean", *(f"q{n}0" for n in range(1, 10))]
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_errors_are_those_of_the_definitions(data, load):
    """As utilsforecast defines them; its smape is ours over 200."""
    learner = learner_of(data)
    values, found = load["load"], learner.validate("test")
    wrong, sizes = [], []
    for start in range(500, 589):
        part = {name: each[:start] for name, each in load.items()}
        made = learner.forecast(part)["mean"]
        came = values[start : start + 12]
        wrong.append(made - came)
        sizes.append(np.abs(made - came) / (np.abs(made) + np.abs(came)))
    naive = np.abs(values[24:500] - values[:476]).mean()
    assert found["mse"] == pytest.approx(np.square(wrong).mean(), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(wrong).mean(), rel=1e-5)
    assert found["smape"] == pytest.approx(200 * np.mean(sizes), rel=1e-4)
    assert found["mase"] == pytest.approx(np.abs(wrong).mean() / naive, rel=1e-5)
    scale = values[:400].std()
    assert learner.validate("test", scaled=True)["mse"] == pytest.approx(
        found["mse"] / scale**2, rel=1e-5
    )


def test_quantiles_cover_what_they_say_on_what_was_not_seen(data):
    learner = learner_of(data)
    assert learner.validate()["coverage"] == pytest.approx(0.8, abs=0.03)
    assert 0.6 < learner.validate("test")["coverage"] < 0.95
    made = learner.forecast()
    rows = np.stack([made[f"q{n}0"] for n in range(1, 10)])
    assert (np.diff(rows, axis=0) >= 0).all()


def test_quantiles_of_many_windows_are_exported_too(load):
    data = series_table(load, "when", "load", horizon=12, lookback=48, split=(300, 300))
    learner = learner_of(data)
    learner.export("out")
    assert np.array_equal(learner.forecast(load)["q10"], loaded("out").forecast(load)["q10"])


def test_a_longer_horizon_goes_on_from_its_own_forecasts(data, caplog):
    made = learner_of(data).forecast(horizon=30)
    assert made.count == 30 and "in 3 rounds, on its own forecasts" in caplog.text
    assert np.abs(made["mean"][:24] - made["mean"][:24].mean()).max() > 0.5


def test_what_is_known_ahead_is_asked_for(shops):
    data = series_table(shops, "when", "sold", series="shop", horizon=6, lookback=24, future="sale")
    learner = learner_of(data, lr=1e-2)
    learner.fit_one_cycle(3)
    assert (
        learner.validate()["mae"] < 0.8 * learner.baselines(names=["closed form"])[0].metrics["mae"]
    )
    with pytest.raises(UsageError, match=r"'sale' is needed for 6 steps behind .* of 'a', got 0"):
        learner.forecast()
    last = {row["shop"]: row["when"] for row in shops}
    ahead = [
        {"when": np.datetime64(when) + np.timedelta64(n, "h"), "shop": shop, "sale": int(n == 2)}
        for shop, when in last.items() for n in range(1, 7)
    ]  # fmt: skip
    made = learner.forecast(future=ahead)
    without = learner.forecast(future=[{**row, "sale": 0} for row in ahead])
    gain = (made["mean"] - without["mean"]).reshape(3, 6)
    assert (gain[:, 1] > 1.0).all() and np.abs(np.delete(gain, 1, 1)).max() < 1e-4
    with pytest.raises(UsageError, match="got 4: missing"):
        learner.forecast(future=[row for row in ahead if row["when"] <= ahead[3]["when"]])


def test_a_new_series_is_scaled_by_its_own_values(shops, caplog):
    data = series_table(shops, "when", "sold", series="shop", horizon=6, lookback=24)
    learner = learner_of(data)
    rows = [
        {**row, "shop": "T999", "sold": 100 * row["sold"]} for row in shops if row["shop"] == "a"
    ]
    made = learner.forecast(rows)
    assert "'T999': not in training" in caplog.text
    assert 800 < made["mean"].mean() < 1400


def test_another_frequency_is_refused(data, load):
    from datetime import timedelta

    learner = learner_of(data)
    begin = load["when"][0]
    quarters = {**load, "when": [begin + n * timedelta(minutes=15) for n in range(600)]}
    with pytest.raises(UsageError, match=r"trained on steps of 1 h: .*is on no step of 1 h"):
        learner.forecast(quarters)


def test_short_histories_are_begun_with_their_first_value(data, load, caplog):
    made = learner_of(data).forecast({name: each[:20] for name, each in load.items()})
    assert made.count == 12 and "are shorter than the 48 steps" in caplog.text


def test_a_missing_column_is_named(data, load):
    with pytest.raises(UsageError, match="no column 'load'"):
        learner_of(data).forecast({"when": load["when"], "loda": load["load"]})


def test_a_learner_wants_the_data_of_a_table():
    with pytest.raises(UsageError, match="give what series_table"):
        ForecastLearner(object())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "liner"}, "did you mean 'linear'"),
        ({"arch": "patch", "network": {"wide": 3}}, "network="),
        ({"arch": "linear", "network": {"width": 3}}, "has no options"),
    ],
)
def test_networks_that_there_are_not_are_refused(data, options, words):
    with pytest.raises(UsageError, match=words):
        learner_of(data, **options)


def test_a_module_of_ones_own_takes_the_place(data):
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(12))

        def forward(self, history, ahead, static):
            return history[:, -1:, 0] * self.weight

    learner = learner_of(data, Last())
    learner.fit_one_cycle(1, 1e-3)
    assert learner.validate()["mase"] > 0


def test_a_series_with_unknown_values_trains(load):
    values = load["load"].copy()
    values[::17] = np.nan
    data = series_table({**load, "load": values}, "when", "load", horizon=6, lookback=48)
    learner = learner_of(data)
    learner.fit_one_cycle(2, 1e-3)
    found = learner.validate()
    assert found["mase"] == found["mase"] and found["mase"] < 3


def test_an_export_forecasts_a_file_in_a_fresh_process(data, load):
    learner = learner_of(data)
    learner.fit_one_cycle(1)
    learner.export("model")
    with Path("load.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["when", "load"])
        table.writerows(zip(load["when"], load["load"].tolist(), strict=True))
    subprocess.run(
        [sys.executable, "-m", "trainbus", "-p", "learner", "predict", "model", "load.csv",
         "--out", "next.csv"], check=True,
    )  # fmt: skip
    ours = learner.forecast("load.csv")
    with Path("next.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == ours["mean"].tolist()
    assert [float(row["q90"]) for row in rows] == ours["q90"].tolist()
    assert rows[0]["time"] == "2020-01-26 00:00:00" and rows[0]["series"] == "load"


def test_predict_prints_json_too(data, load, capsys):
    learner_of(data).export("model")
    with Path("load.csv").open("w") as file:
        print("when,load", file=file)
        for when, value in zip(load["when"], load["load"].tolist(), strict=True):
            print(f"{when},{value}", file=file)
    main(["-p", "learner", "predict", "model", "load.csv", "--json"])
    assert len(capsys.readouterr().out.splitlines()) == 12


def test_etth1_in_closed_form_is_what_was_published(etth1):
    """Over all 2,785 windows of 7 series, as in LTSF-Linear; nothing is dropped."""
    names = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    data = series_table(etth1, "date", names, horizon=96, lookback=336, split=(8640, 2880, 2880))
    assert len(data.test.dataset) == 7 * 2785
    found = learner_of(data).baselines("test", names=["closed form"], scaled=True)
    assert found[0].metrics["mse"] == pytest.approx(0.3702, abs=5e-4)
    assert found[0].metrics["mae"] == pytest.approx(0.3914, abs=5e-4)
    assert found[-1].metrics["mse"] < 0.372
