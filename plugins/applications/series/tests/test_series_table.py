"""From tables to windows: frequency, gaps, zones, parts; nothing is guessed in silence."""

from datetime import datetime, timedelta

import numpy as np
import pytest
import torch

from trainbus_data import DataError
from trainbus_series import series_table
from trainbus_series.frequency import found, named


def test_windows_are_slices_of_the_series_and_cover_each_part(load):
    data = series_table(
        load, "when", "load", horizon=6, lookback=24, split=(400, 100, 100),
        calendar=False,
    )  # fmt: skip
    values = torch.tensor(load["load"])
    centre, scale = values[:400].mean(), values[:400].std(correction=0)
    assert [len(each.dataset) for each in (data.train, data.valid, data.test)] == [371, 95, 95]
    history, ahead, static, wanted, about = data.test.first()
    first = ((values - centre) / scale).float()
    assert torch.allclose(history[0, :, 0], first[500 - 24 : 500], atol=1e-6)
    assert torch.allclose(wanted[3], first[503:509], atol=1e-6)
    assert ahead.shape == (95, 30, 0) and static.shape == (95, 0)
    assert about[0, :2].tolist() == pytest.approx([float(centre), float(scale)])


def test_no_window_of_training_forecasts_what_validation_does(load):
    data = series_table(load, "when", "load", horizon=6, lookback=24, split=(0.7, 0.3))
    last = int(data.train_items.parts[0].max()) + 24 + 6
    first = int(data.valid_items.parts[0].min()) + 24
    assert last == first == 420


@pytest.mark.parametrize(
    "split", [(480, 120), (None, 120), (0.8, 0.2), 0.2, "2020-01-21", ("2020-01-21",), None]
)
def test_a_split_is_said_in_shares_counts_or_dates(load, split):
    data = series_table(load, "when", "load", horizon=6, lookback=24, split=split)
    assert data.bounds.tolist() == [[480, 600]]


@pytest.mark.parametrize("split", [(0.9, 0.2), (700, 10), "tomorrow", ("2020-01-20", 3), [], True])
def test_other_splits_are_refused(load, split):
    with pytest.raises(DataError, match="split="):
        series_table(load, "when", "load", horizon=6, lookback=24, split=split)


def test_a_part_without_a_window_is_refused(load):
    with pytest.raises(DataError, match="valid has no window: its longest part has 4 steps"):
        series_table(load, "when", "load", horizon=6, lookback=24, split=(596, 4))


def test_long_and_wide_tables_are_the_same_series(hours, waves):
    a, b = waves(200), waves(200, 1)
    wide = series_table({"t": hours(200), "a": a, "b": b}, "t", ["a", "b"], horizon=4, lookback=10)
    long = series_table(
        {"t": hours(200) * 2, "of": ["a"] * 200 + ["b"] * 200, "y": np.concatenate([a, b])},
        "t", "y", series="of", horizon=4, lookback=10,
    )  # fmt: skip
    assert wide.panel.names == long.panel.names == ("a", "b")
    for ours, theirs in zip(wide.valid.first(), long.valid.first(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("step", "text", "season"),
    [
        (timedelta(hours=1), "1 h", 24), (timedelta(minutes=15), "15 min", 96),
        (timedelta(days=1), "1 day", 7), (timedelta(weeks=1), "1 week", 52),
        (timedelta(seconds=1), "1 s", 60),
    ],
)  # fmt: skip
def test_a_fixed_frequency_is_found(step, text, season):
    times = [np.array([datetime(2020, 1, 1) + n * step for n in range(30)], "datetime64[us]")]
    frequency = found([each.astype(np.int64) for each in times], False)
    assert (str(frequency), frequency.season) == (text, season)


@pytest.mark.parametrize(
    ("first", "freq", "text", "expected"),
    [
        ("2020-01-31", "ME", "1 month, on its last day", "2020-02-29"),
        ("2020-01-01", "M", "1 month", "2020-02-01"),
        ("2020-01-01", "Q", "1 quarter", "2020-04-01"),
        ("2020-03-15", "Y", "1 year", "2021-03-15"),
        ("2020-01-03", "B", "1 business day", "2020-01-06"),
        ("2020-01-03", "2h", "2 h", "2020-01-03T02:00:00"),
    ],
)
def test_months_and_business_days_go_on(first, freq, text, expected):
    frequency = named(freq, False)
    start = int(np.datetime64(first, "us").astype(np.int64))
    times = frequency.times(start, 40)
    assert str(frequency) == text
    assert times[1] == np.datetime64(expected, "us").astype(np.int64)
    assert frequency.places(times).tolist() == list(range(40))
    assert str(found([times], False)) == text


def test_an_unknown_frequency_is_refused(load):
    with pytest.raises(DataError, match="freq='fortnight' is no step of time"):
        series_table(load, "when", "load", horizon=6, freq="fortnight")


def test_missing_steps_are_refused_and_left_unknown_by_name(load):
    table = {"when": load["when"][:300] + load["when"][302:],
             "load": np.delete(load["load"], [300, 301])}  # fmt: skip
    with pytest.raises(
        DataError, match=r"1 h \(99.8%.*3 h \(1 times.*2020-01-13 11:00.*fill='gaps'"
    ):
        series_table(table, "when", "load", horizon=6)
    data = series_table(table, "when", "load", horizon=6, lookback=24, fill="gaps")
    assert any("2 steps have no row" in note for note in data.notes)
    history, _, _, wanted, _ = data.part("train", [277]).first()  # 301 is the first to be forecast
    assert torch.isnan(wanted[0]).tolist() == [True] + [False] * 5
    assert history.shape[2] == 2 and history[0, -1, 1] == 0
    assert history[0, -1, 0] == history[0, -2, 0]


def test_times_between_steps_are_refused(load):
    table = {**load, "when": [*load["when"][:-1], load["when"][-1] + timedelta(minutes=7)]}
    with pytest.raises(DataError, match="2020-01-25 23:07 is on no step of 1 h"):
        series_table(table, "when", "load", horizon=6)


def test_two_rows_of_one_time_are_refused_and_joined_by_name():
    table = {"t": [0, 1, 1, *range(2, 60)], "y": [0.0, 1.0, 3.0, *map(float, range(2, 60))]}
    with pytest.raises(DataError, match="1 is there twice.*duplicates='mean'"):
        series_table(table, "t", "y", horizon=2)
    for how, value in (("mean", 2.0), ("sum", 4.0), ("first", 1.0), ("last", 3.0)):
        data = series_table(table, "t", "y", horizon=2, lookback=4, duplicates=how)
        assert data.panel.values[1] == value


def test_clocks_that_were_put_back_are_told_by_the_zone(waves):
    summer = datetime(2016, 10, 30, 2)
    clocks = [datetime(2016, 10, 28) + timedelta(hours=n) for n in range(51)]
    clocks += [summer + timedelta(hours=n) for n in range(150)]
    table = {"t": clocks, "y": waves(201)}
    with pytest.raises(DataError, match=r"2016-10-30 02:00 is there twice.*zone='Europe/Berlin'"):
        series_table(table, "t", "y", horizon=6)
    data = series_table(table, "t", "y", horizon=6, zone="Europe/Berlin")
    assert data.panel.counts.tolist() == [201] and str(data.recipe.frequency) == "1 h"
    shown = [data.panel.shown(int(each)) for each in data.panel.times(0, 3, 49)]
    assert [each[11:] for each in shown] == ["01:00:00+02:00", "02:00:00+02:00", "02:00:00+01:00"]


def test_an_hour_that_never_was_is_refused(waves):
    clocks = [datetime(2016, 3, 27) + timedelta(hours=n) for n in range(100)]
    with pytest.raises(DataError, match="2016-03-27T02:00:00.* never was in Europe/Berlin"):
        series_table({"t": clocks, "y": waves(100)}, "t", "y", horizon=6, zone="Europe/Berlin")


def test_rows_are_sorted_with_a_note(load):
    swapped = {
        name: [*values[:5], values[6], values[5], *values[7:]] for name, values in load.items()
    }
    data = series_table(swapped, "when", "load", horizon=6, lookback=24)
    assert any("sorted by time: row 6" in note for note in data.notes)
    assert np.array_equal(data.panel.values, load["load"])


def test_short_series_are_refused_with_what_would_be_long_enough():
    table = {"t": [*range(200), *range(40)], "of": ["long"] * 200 + ["T12"] * 40,
             "y": np.arange(240.0)}  # fmt: skip
    with pytest.raises(
        DataError,
        match=r"'T12' has 16 values for training; lookback 96 \+ horizon 24 need 120; 1 of 2",
    ):
        series_table(table, "t", "y", series="of", horizon=24, lookback=96, split=(None, 24))


def test_series_that_start_late_are_validated_and_said():
    table = {"t": [*range(200), *range(170, 200)], "of": ["a"] * 200 + ["late"] * 30,
             "y": np.arange(230.0)}  # fmt: skip
    data = series_table(table, "t", "y", series="of", horizon=4, lookback=20, split=(None, 8))
    assert any("'late'" in note and "not trained on" in note for note in data.notes)
    assert "train     " in data.summary() and "1 series have none" in data.summary()
    assert set(data.valid_items.parts[1].tolist()) == {0, 1}


def test_padding_takes_short_series():
    table = {"t": list(range(40)), "y": np.arange(40.0)}
    data = series_table(table, "t", "y", horizon=4, lookback=60, split=(32, 8), pad=True)
    history, *_ = data.train.first()
    assert len(data.train.dataset) == 28 and history.shape[1:] == (60, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": ["a"] * 100}, "the target 'y' holds texts, 'a' for example"),
        ({"y": [float("nan")] * 100}, "has no known value"),
        ({"y": [float("inf"), *range(99)]}, "is infinite in row 0"),
        ({"t": [None, *range(99)]}, r"1 rows have no time in 't' \(rows 0\)"),
        ({"t": [n + 0.5 for n in range(100)]}, "no times: dates, or whole numbers"),
        ({"t": ["monday"] * 100}, "holds texts, 'monday' for example, and no times"),
    ],
)
def test_what_is_no_series_is_refused(change, words):
    with pytest.raises(DataError, match=words):
        series_table({"t": list(range(100)), "y": np.arange(100.0), **change}, "t", "y", horizon=4)


def test_zones_that_are_mixed_are_refused(waves):
    times = [f"2020-01-01T{n:02}:00:00" + ("+01:00" if n == 5 else "") for n in range(24)]
    with pytest.raises(DataError, match="zone"):
        series_table({"t": times, "y": waves(24)}, "t", "y", horizon=2)


def test_a_covariate_that_is_the_target_is_a_leak(load):
    with pytest.raises(DataError, match="'copy' equals the target 'load': a leak"):
        series_table({**load, "copy": load["load"]}, "when", "load", horizon=6, future="copy")


def test_a_constant_covariate_is_left_out_with_a_note(load):
    data = series_table({**load, "one": [1.0] * 600}, "when", "load", horizon=6, past="one")
    assert any("'one' is constant in training" in note for note in data.notes)


def test_a_constant_series_is_scaled_by_one():
    data = series_table({"t": list(range(100)), "B": [5.0] * 100}, "t", "B", horizon=4)
    assert data.recipe.scales.scale.tolist() == [1.0]
    assert any("'B' constant in training: scaled by 1" in note for note in data.notes)


def test_logarithms_are_of_values_above_zero(load):
    with pytest.raises(DataError, match="transform='log' needs values above 0"):
        series_table(
            {**load, "load": load["load"] - 12}, "when", "load", horizon=6, transform="log"
        )


def test_unknown_values_are_said_and_left_out_of_the_loss(load):
    values = load["load"].copy()
    values[[50, 51, 52, 90]] = np.nan
    data = series_table({**load, "load": values}, "when", "load", horizon=6, lookback=24)
    assert any("4 unknown values, at most 3 in a row" in note for note in data.notes)


def test_the_season_of_whole_numbers_is_found(waves):
    data = series_table({"t": list(range(600)), "y": waves(600)}, "t", "y", horizon=6)
    assert data.recipe.season == 24


def test_holidays_are_a_column_of_words(shops):
    for place, row in enumerate(shops):
        row["holiday"] = "easter" if place % 50 == 3 else None
    data = series_table(
        shops, "when", "sold", series="shop", horizon=6, lookback=24, future=["holiday", "sale"],
        static="town", calendar=False,
    )  # fmt: skip
    _, ahead, static, *_ = data.train.first()
    assert ahead.shape[2] == 2 and static.shape[1] == 2
    assert data.recipe.future.names == ["holiday", "sale"]


def test_what_is_static_does_not_change(shops):
    with pytest.raises(DataError, match="static='sale' is not the same in all rows of 'a'"):
        series_table(shops, "when", "sold", series="shop", horizon=6, static="sale")
