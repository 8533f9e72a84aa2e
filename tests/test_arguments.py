"""Numbers that people give: each that cannot be right is refused in one sentence."""

import numpy as np
import pytest

from trainbus import PluginError, UsageError
from trainbus.arguments import check_number, check_whole
from trainbus.builtin import EMA, OOM, Checkpoint, Clip, EarlyStopping, Journal, Nonfinite
from trainbus_data import Category, Data, DataError, Number, splits
from trainbus_vision.plugin import VisionPlugin


@pytest.mark.parametrize("value", ["x", 1.5, True, None, [1], 0, float("nan")])
def test_no_whole_number_of_at_least_one(value):
    with pytest.raises(PluginError, match=r"count=.*: give a whole number of at least 1"):
        check_whole(1, count=value)


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers(value):
    check_whole(1, count=value)


@pytest.mark.parametrize("value", ["x", True, None, float("nan"), -0.1, 1, 1 + 2j])
def test_no_number_from_zero_to_below_one(value):
    with pytest.raises(UsageError, match=r"f\(part=.*\): give a number of at least 0 and less"):
        check_number(0, UsageError, "f", below=1, part=value)


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.25)])
def test_numbers(value):
    check_number(0, below=1, part=value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EarlyStopping("valid/loss", patience="three"),
        lambda: Checkpoint(every_steps=1.5),
        lambda: Checkpoint(every_minutes=float("nan")),
        lambda: Clip(norm=float("nan")),
        lambda: EMA(decay="0.9"),
        lambda: Journal(seconds="1"),
        lambda: Nonfinite(limit=None),
        lambda: OOM(parts=True),
        lambda: VisionPlugin(count="nine"),
    ],
)
def test_plugins_refuse_what_is_no_number(make):
    with pytest.raises(PluginError, match=r"give a (whole )?number"):
        make()


@pytest.mark.parametrize("options", [{"seed": "x"}, {"seed": -1}, {"batch_size": 2.5}])
def test_data_refuse_what_is_no_number(options):
    pair = np.zeros((40, 3), dtype="float32"), np.arange(40) % 2
    with pytest.raises(DataError, match=r"give a whole number"):
        Data.from_tensors(pair, blocks=(Number(3), Category()), **options)


@pytest.mark.parametrize("options", [{"seed": "x"}, {"valid": "0.2"}, {"valid": float("nan")}])
def test_splits_refuse_what_is_no_number(options):
    with pytest.raises(DataError, match=r"give a whole number|fractions between 0 and 1"):
        splits.random(**options)
