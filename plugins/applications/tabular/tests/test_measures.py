"""What is measured is what scikit-learn measures."""

import pytest
import torch

from trainbus_tabular import measures
from trainbus_tabular.targets import TableTarget

sk = pytest.importorskip("sklearn.metrics")


def same(given, wanted):
    assert float(given) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_classes(classes):
    given = torch.randn(300, classes).round(decimals=1).double().softmax(1)
    wanted = torch.randint(classes, (300,))
    scores = given[:, 1] if classes == 2 else given
    options = {} if classes == 2 else {"multi_class": "ovr"}
    same(measures.auc(given, wanted), sk.roc_auc_score(wanted, scores, **options))
    same(measures.log_loss(given, wanted), sk.log_loss(wanted, given))
    same(measures.accuracy(given, wanted), sk.accuracy_score(wanted, given.argmax(1)))
    kappa = sk.cohen_kappa_score(wanted, given.argmax(1), weights="quadratic")
    same(measures.quadratic_kappa(given, wanted), kappa)


def test_numbers_and_labels():
    given, wanted = torch.randn(200, 2).double(), torch.randn(200, 2).double()
    same(measures.mae(given, wanted), sk.mean_absolute_error(wanted, given))
    same(measures.r2(given, wanted), sk.r2_score(wanted, given))
    same(
        measures.rmse(given[:, :1], wanted[:, :1]),
        sk.root_mean_squared_error(wanted[:, :1], given[:, :1]),
    )
    flags = (wanted > 0).double()
    same(measures.labels_auc(given.sigmoid(), flags), sk.roc_auc_score(flags, given.sigmoid()))


def test_a_measure_is_over_all_rows_whatever_the_batches_are():
    target = TableTarget("class", 2, ["a", "b"])
    output, wanted = torch.randn(100, 2), torch.randint(2, (100,))
    for cut in ([100], [1, 99], [33, 33, 34]):
        metric = target.metrics()["auc"]
        for part, right in zip(output.split(cut), wanted.split(cut), strict=True):
            metric.update(part, right)
        same(metric.compute(), measures.auc(output.softmax(1), wanted))
    metric.reset()
    assert metric.compute().isnan()
