"""Fitted steps do what all steps do, by the kit that everybody's steps use."""

import numpy as np
import pytest
import torch

from trainbus_data import DataError
from trainbus_data.scaling import Scaling
from trainbus_data.step_kit import check_step
from trainbus_data.steps import Codes, DateParts, Frequency, Several, Values, step_from_state
from trainbus_data.tables.values import column_of

WORDS = column_of(["b"] * 6 + ["a"] * 6 + ["x", "y", None])


@pytest.mark.parametrize(
    ("make", "train", "other"),
    [
        (Codes, WORDS, column_of(["a", "new", None, "x", "b"])),
        (Codes, column_of([1, 2, 3, None]), column_of([2, 9, None])),
        (Frequency, WORDS, column_of(["a", "new", None, "x", "b"])),
        (Values, column_of([1.5, None, 3, float("inf")]), column_of([0.1, None, 1e300])),
        (
            DateParts,
            column_of(["2020-01-01", "2020-02-29", None, "2021-12-31"]),
            column_of(["2019-12-31", None, "2024-02-29"]),
        ),
        (
            lambda: Several("|"),
            column_of(["red|round", "red", "blue|round", None] * 3),
            column_of(["round|red", "green", None]),
        ),
    ],
    ids=["words", "codes of numbers", "frequencies", "numbers", "dates", "several"],
)
def test_a_step_conforms(make, train, other):
    check_step(make, train, other)


def test_rare_words_share_a_code_and_new_ones_have_none():
    step = Codes().fit(WORDS)
    assert step.decode(step.encode(column_of(["a", "x", "y", "new", None]))) == [
        "a", "(rare)", "(rare)", None, None,
    ]  # fmt: skip
    assert step.odd(column_of(["a", "x", "new"])) == {2: "new"}


def test_frequencies_are_shares_of_the_rows_that_have_a_value():
    step = Frequency().fit(WORDS)
    made = step.encode(column_of(["a", "x", "new", None]))[:, 0]
    np.testing.assert_allclose(made, [6 / 14, 1 / 14, 0, np.nan])


def test_dates_are_decoded_to_the_day():
    dates = column_of(["2020-01-01", "2020-02-29", None, "2021-12-31"])
    step = DateParts().fit(dates)
    decoded = [None if each is None else each[:10] for each in step.decode(step.encode(dates))]
    assert decoded == ["2020-01-01", "2020-02-29", None, "2021-12-31"]
    assert step.parts == ["weekday", "day", "month", "day of year"]


def test_several_values_are_decoded():
    step = Several("|").fit(column_of(["a|b", "b", "c|a"] * 4))
    assert step.decode(step.encode(column_of(["b|a", "zzz"]))) == ["a|b", ""]


def test_a_state_of_no_step_is_refused():
    with pytest.raises(DataError, match=r"no step 'Code'; did you mean 'Codes'\?"):
        step_from_state({"step": "Code"}, {})
    with pytest.raises(DataError, match="Codes cannot be made of"):
        step_from_state({"step": "Codes", "wrods": []}, {})


def numbers():
    draw = np.random.default_rng(0)
    values = np.exp(draw.normal(size=(500, 3)))
    values[::7, 1] = np.nan
    return values


def test_numbers_are_scaled_to_a_normal_distribution_and_flagged():
    values = numbers()
    scaling = Scaling().fit(values, plain=[2])
    scaled = scaling.encode(values)
    assert scaled.shape == (500, 4)
    assert scaled.dtype == torch.float32
    assert abs(float(scaled[:, 0].mean())) < 0.05
    assert abs(float(scaled[:, 0].std()) - 1) < 0.1
    assert scaled[:, 3].bool().tolist() == np.isnan(values[:, 1]).tolist()
    assert not scaled[::7, 1].any()
    assert torch.equal(scaled[:, 2], torch.tensor(values[:, 2]).float())


def test_scaling_one_row_is_scaling_many_and_is_kept_to_the_bit():
    values = numbers()
    scaling = Scaling().fit(values, plain=[])
    whole = scaling.encode(values)
    assert all(torch.equal(scaling.encode(values[n : n + 1])[0], whole[n]) for n in range(500))
    again = Scaling.from_state(scaling.options(), scaling.tensors())
    assert torch.equal(again.encode(values), whole)


def test_scaling_is_read_back():
    values = numbers()
    scaling = Scaling().fit(values, plain=[])
    back = scaling.decode(scaling.encode(values))
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.nanquantile(np.abs(back / values - 1), 0.95) < 0.01  # the ends are cut


@pytest.mark.parametrize(
    "values", [np.full((40, 1), 3.0), np.full((40, 1), np.nan), np.array([[1e300], [0.0]])]
)
def test_what_has_no_spread_is_scaled_without_a_fault(values):
    assert torch.isfinite(Scaling().fit(values, plain=[]).encode(values)).all()


def test_robust_scaling_keeps_distances_and_bends_what_is_far_out():
    values = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [1e9], [np.nan]])
    scaling = Scaling(kind="robust").fit(values[:5], plain=[])
    made = scaling.encode(values)[:, 0]
    assert made[2] == 0
    assert torch.allclose(made[3] - made[2], made[2] - made[1])
    assert 2.9 < made[5] < 3.0 + 1e-6
    assert made[6] == 0
    again = Scaling.from_state(scaling.options(), scaling.tensors())
    assert torch.equal(again.encode(values), scaling.encode(values))
    np.testing.assert_allclose(scaling.decode(made[:5, None])[:, 0], values[:5, 0], atol=1e-5)


def test_a_column_of_one_value_is_scaled_to_nothing():
    scaling = Scaling(kind="robust").fit(np.full((10, 1), 7.0), plain=[])
    assert scaling.encode(np.array([[7.0], [9.0]])).isfinite().all()


def test_a_scaling_that_there_is_not_is_refused():
    with pytest.raises(DataError, match=r"scaling='robst'.*did you mean 'robust'"):
        Scaling(kind="robst")
