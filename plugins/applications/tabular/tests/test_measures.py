"""What is measured of a table is over all rows, in its units."""

import pytest
import torch

from trainbus_tabular.targets import TableTarget

sk = pytest.importorskip("sklearn.metrics")


def measured(target, output, wanted, cut):
    """All metrics of a target, of batches of these sizes."""
    made = target.metrics()
    for part, right in zip(output.split(cut), wanted.split(cut), strict=True):
        for metric in made.values():
            metric.update(part, right)
    return {name: float(metric.compute()) for name, metric in made.items()}


@pytest.mark.parametrize("cut", [[100], [1, 99], [33, 33, 34]])
def test_metrics_do_not_depend_on_the_batches(cut):
    output, wanted = torch.randn(100, 2), torch.randint(2, (100,))
    found = measured(TableTarget("class", 2, ["a", "b"]), output, wanted, cut)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(wanted, output.softmax(1)[:, 1]))
    assert found["log_loss"] == pytest.approx(sk.log_loss(wanted, output.softmax(1)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(wanted, output.argmax(1)))


def test_numbers_are_in_units_also_where_the_logarithm_was_learned():
    target = TableTarget("number", 1, names=["y"], centre=[3.0], scale=[0.5], log=[True])
    output, wanted = torch.randn(50, 1), torch.randn(50, 1)
    found = measured(target, output, wanted, [20, 30])
    given, right = (torch.expm1(each.double() * 0.5 + 3) for each in (output, wanted))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(right, given))
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(right, given))
    assert found["r2"] == pytest.approx(sk.r2_score(right, given))


def test_the_temperature_changes_the_log_loss_and_not_the_ranks():
    output, wanted = torch.randn(60, 3), torch.randint(3, (60,))
    plain = measured(TableTarget("class", 3), output, wanted, [60])
    warm = measured(TableTarget("class", 3, temperature=2.0), output, wanted, [60])
    assert warm["log_loss"] == pytest.approx(sk.log_loss(wanted, (output / 2).softmax(1)), rel=1e-5)
    assert warm["accuracy"] == plain["accuracy"]


def test_labels_are_counted_all():
    output, flags = torch.randn(40, 3), torch.randint(2, (40, 3)).float()
    found = measured(TableTarget("labels", 3, ["a", "b", "c"]), output, flags, [15, 25])
    right = (output > 0) == (flags > 0.5)
    assert found["accuracy"] == pytest.approx(float(right.float().mean()))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(flags, output), abs=1e-6)
