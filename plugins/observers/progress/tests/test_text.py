"""Numbers, times and layouts."""

import math
import subprocess
import sys

import pytest

from trainbus_progress.text import Pass, aligned, clock, duration, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.123456, "0.1235"),
        (-12.5, "-12.5000"),
        (0.00012345, "1.234e-04"),
        (1234567.0, "1.235e+06"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (65.9, "1:05"), (3600 + 23 * 60 + 4, "1:23:04")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0s"), (59.94, "59.9s"), (59.96, "1:00")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_pass_tells_rate_and_remaining_time():
    each = Pass("epoch 1/1", 100, now=0.0)
    each.done = 20
    each.update(now=10.0)
    assert str(each) == "epoch 1/1   20/100  2.0 it/s  0:10<0:40"


def test_a_slow_pass_tells_seconds_per_batch():
    each = Pass("epoch 1/1", 4, now=0.0)
    each.done = 1
    each.update(now=5.0)
    assert "5.00 s/it  0:05<0:15" in str(each)


def test_a_pause_counts_neither_as_time_nor_for_the_rate():
    each = Pass("epoch 1/1", 40, now=0.0)
    each.done = 10
    each.update(now=10.0)
    each.resume(now=70.0)
    each.done = 20
    each.update(now=80.0)
    assert str(each) == "epoch 1/1  20/40  1.0 it/s  0:20<0:20"


def test_the_rate_is_that_of_late():
    each = Pass("epoch 1/1", 1000, now=0.0)
    each.done = 1
    each.update(now=100.0)  # a slow first batch, that compiles
    for i in range(1, 101):
        each.done = 1 + i
        each.update(now=100.0 + i)
    assert each.rate == pytest.approx(1.0)


def test_long_texts_of_the_header_are_wrapped_beside_their_topic():
    lines = aligned({"a": "one two three four five six", "topic": "x"}, width=27)
    assert lines == ["a      one two three four", "       five six", "topic  x"]


def test_importing_it_imports_neither_rich_nor_torch():
    code = "import sys, trainbus_progress; print({'rich', 'torch'} & set(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.stdout == "set()\n"


def test_a_path_is_left_whole_to_be_copied():
    path = "/data/a-long-name/another-long-name/2026-01-01_00-00-00Z_Line"
    assert aligned({"a": path}, width=40) == [f"a  {path}"]
