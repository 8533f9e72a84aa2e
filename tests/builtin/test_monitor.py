"""A watched metric: its value, its best, and what is remembered of it."""

import math

import pytest

from trainbus import PluginError, Trainer, UsageError
from trainbus.builtin.monitor import Monitor


@pytest.mark.parametrize(
    ("mode", "min_delta", "values", "answers"),
    [
        ("min", 0.0, [2.0, 2.0, 1.0], [True, False, True]),
        ("max", 0.0, [2.0, 3.0, 1.0], [True, True, False]),
        ("min", 0.5, [2.0, 1.5, 1.4], [True, False, True]),
        ("min", 0.0, [math.nan, 5.0, math.nan], [False, True, False]),
    ],
)
def test_better_is_by_mode_and_more_than_min_delta(mode, min_delta, values, answers):
    monitor = Monitor("valid/loss", mode, min_delta)
    assert [monitor.improved(value) for value in values] == answers


def test_the_best_comes_back_from_a_state():
    monitor, other = Monitor("valid/loss"), Monitor("valid/loss")
    monitor.improved(1.0)
    other.load_state_dict(monitor.state_dict())
    assert not other.improved(1.5)


def test_the_best_of_another_metric_is_not_taken():
    monitor, other = Monitor("valid/loss"), Monitor("valid/accuracy", "max")
    monitor.improved(10.0)
    other.load_state_dict(monitor.state_dict())
    assert other.best is None


def test_the_value_is_that_of_the_run(line, loader):
    run = Trainer().fit(line, loader, loader)
    assert Monitor("valid/loss").value(run, "somebody") == run.metrics["valid/loss"]


def test_a_metric_that_was_not_logged_is_an_error_that_names_those_that_were(line, loader):
    run = Trainer().fit(line, loader, loader)
    with pytest.raises(
        UsageError, match=r"somebody monitors 'valid/los'.*mean 'valid/loss'.*train/loss"
    ):
        Monitor("valid/los").value(run, "somebody")


@pytest.mark.parametrize(
    "options", [{"mode": "least"}, {"min_delta": -1.0}, {"min_delta": math.nan}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(PluginError, match=next(iter(options))):
        Monitor("valid/loss", **options)
