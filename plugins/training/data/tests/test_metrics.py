"""Metrics over a whole pass: what nothing was counted for is NaN."""

import math

import pytest
import torch

from trainbus_data.metrics import (
    F1,
    Accuracy,
    CountedMean,
    ErrorRate,
    MacroF1,
    RootMeanSquare,
    accuracy,
    error_rate,
)


@pytest.mark.parametrize("make", [Accuracy, ErrorRate, F1, MacroF1, RootMeanSquare, CountedMean])
def test_nothing_is_neither_perfect_nor_wrong(make):
    assert math.isnan(make().compute())


def test_targets_that_do_not_count_are_nothing():
    """All of them -100: neither 0% nor 100%."""
    output, target = torch.rand(4, 3), torch.full((4,), -100)
    for metric in (Accuracy(), ErrorRate(), MacroF1()):
        metric.update(output, target)
        assert math.isnan(metric.compute())
    assert math.isnan(accuracy(output, target))
    assert math.isnan(error_rate(output, target))


def test_a_mean_is_weighed_by_what_counts():
    mean = CountedMean()
    mean.update(torch.tensor(2.0), torch.tensor(3))
    mean.update(torch.tensor(0.0), torch.tensor(0))
    mean.update(torch.tensor(6.0), torch.tensor(1))
    assert mean.compute() == 3.0
