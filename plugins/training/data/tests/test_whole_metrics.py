"""Metrics over batches of unequal size are those that scikit-learn has over all rows."""

import numpy as np
import pytest
import torch

from trainbus_data.metrics import MacroF1, RootMeanSquare
from trainbus_data.whole_metrics import (
    AUC,
    R2,
    AveragePrecision,
    Brier,
    LogLoss,
    MeanAbsolute,
    Pinball,
    QuadraticKappa,
)

sklearn = pytest.importorskip("sklearn.metrics")
CUTS = (7, 100, 101, 500)


def whole(metric, output, target):
    """What a metric gives over batches of 7, 93, 1, 399 and the rest."""
    bounds = [0, *CUTS, len(output)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        metric.update(output[start:end], target[start:end])
    return float(metric.compute())


def classes(count):
    torch.manual_seed(count)
    target = torch.randint(0, count, (703,))
    logits = torch.randn(703, count) + 2 * torch.nn.functional.one_hot(target, count)
    return (logits * 4).round() / 4, target  # with ties


NUMBERS = torch.randn(703, generator=torch.Generator().manual_seed(1)) * 30 + 1e5
GUESSES = NUMBERS + torch.randn(703, generator=torch.Generator().manual_seed(2)) * 9


@pytest.mark.parametrize("count", [2, 4])
def test_of_classes(count):
    logits, target = classes(count)
    sure = logits.double().softmax(1).numpy()
    given, wanted = (sure[:, 1] if count == 2 else sure), target.numpy()
    assert whole(LogLoss(), logits, target) == pytest.approx(sklearn.log_loss(wanted, sure))
    assert whole(MacroF1(), logits, target) == pytest.approx(
        sklearn.f1_score(wanted, logits.argmax(1), average="macro"), abs=1e-6
    )
    assert whole(QuadraticKappa(), logits, target) == pytest.approx(
        sklearn.cohen_kappa_score(wanted, logits.argmax(1), weights="quadratic")
    )
    assert whole(AUC(), logits, target) == pytest.approx(
        sklearn.roc_auc_score(wanted, given, multi_class="ovr")
    )
    flags = wanted if count == 2 else np.eye(count)[wanted]
    assert whole(AveragePrecision(), logits, target) == pytest.approx(
        sklearn.average_precision_score(flags, given, average="macro")
    )
    assert whole(Brier(), logits, target) == pytest.approx(
        sklearn.brier_score_loss(wanted, sure[:, 1]) if count == 2
        else ((sure - np.eye(count)[wanted]) ** 2).sum(1).mean()
    )  # fmt: skip


def test_of_numbers():
    given, wanted = GUESSES.numpy(), NUMBERS.numpy()
    assert whole(R2(), GUESSES, NUMBERS) == pytest.approx(sklearn.r2_score(wanted, given))
    assert whole(MeanAbsolute(), GUESSES, NUMBERS) == pytest.approx(
        sklearn.mean_absolute_error(wanted.astype(float), given.astype(float))
    )
    assert whole(RootMeanSquare(), GUESSES, NUMBERS) == pytest.approx(
        sklearn.root_mean_squared_error(wanted.astype(float), given.astype(float)), rel=1e-5
    )
    assert whole(Pinball(0.9), GUESSES, NUMBERS) == pytest.approx(
        sklearn.mean_pinball_loss(wanted.astype(float), given.astype(float), alpha=0.9)
    )


def test_of_several_labels():
    torch.manual_seed(0)
    logits, target = torch.randn(703, 3), torch.randint(0, 2, (703, 3))
    assert whole(AUC(), logits, target) == pytest.approx(sklearn.roc_auc_score(target, logits))
    assert whole(AveragePrecision(), logits, target) == pytest.approx(
        sklearn.average_precision_score(target, logits)
    )


@pytest.mark.parametrize("metric", [AUC, AveragePrecision, Brier, LogLoss, MeanAbsolute, R2])
def test_of_nothing_is_no_number(metric):
    assert torch.isnan(metric().compute())
