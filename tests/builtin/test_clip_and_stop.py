"""Options of clipping, early stopping and the best checkpoint that decide alone."""

import pytest
import torch

from trainbus import PluginError, Task, Trainer
from trainbus.builtin import Checkpoint, Clip, EarlyStopping

DATA = [torch.zeros(1)]


class Scripted(Task):
    """Its validations give these losses; its gradient is (3, -4)."""

    def __init__(self, *losses):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2))
        self.losses = list(losses)
        self.seen = []

    def training_step(self, batch, run):
        return (self.weight * torch.tensor([3.0, -4.0])).sum()

    def validation_step(self, batch, run):
        run.log(loss=self.losses.pop(0))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def epochs(losses, **options):
    trainer = Trainer(epochs=len(losses), plugins=[EarlyStopping(**options)])
    return trainer.fit(Scripted(*losses), DATA, DATA).epoch


@pytest.mark.parametrize(
    ("options", "step"),
    [({"value": 1.0}, [-1.0, 1.0]), ({"norm": 2.5}, [-1.5, 2.0]), ({}, [-0.6, 0.8])],
)
def test_gradients_are_clipped_by_value_or_by_norm(options, step):
    task = Scripted()
    Trainer(plugins=[Clip(**options)]).fit(task, DATA)
    assert task.weight.tolist() == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize("options", [{"norm": 1.0, "value": 1.0}, {"value": 0}, {"norm": "x"}])
def test_what_cannot_be_clipped_is_refused(options):
    with pytest.raises(PluginError, match="give"):
        Clip(**options)


def test_a_metric_that_diverges_ends_the_run():
    assert epochs([1.0, 2.0, 9.0, 1.0], give_up_at=5.0) == 3


def test_the_first_epochs_may_be_no_better():
    assert epochs([1.0, 2.0, 2.0, 2.0, 2.0], patience=1, start_epoch=3) == 4


def test_a_part_of_the_best():
    assert epochs([100.0, 95.0, 91.0, 89.0], patience=2, min_delta=0.1, relative=True) == 3
    assert epochs([100.0, 89.0, 80.0, 70.0], patience=1, min_delta=0.1, relative=True) == 4


@pytest.mark.parametrize(("cumulative", "made"), [(True, 5), (False, 3)])
def test_small_gains_add_up_or_are_looked_at_alone(cumulative, made):
    losses = [1.0, 0.9, 0.8, 0.7, 0.6]
    assert epochs(losses, patience=2, min_delta=0.15, cumulative=cumulative) == made


def test_only_what_is_better_than_a_threshold_is_a_best():
    keep = Checkpoint("valid/loss", threshold=1.0)
    Trainer(epochs=3, plugins=[keep]).fit(Scripted(2.0, 1.0, 0.5), DATA, DATA)
    assert [value for value, _ in keep.best] == [0.5]
    keep = Checkpoint("valid/loss", threshold=0.1)
    Trainer(epochs=3, plugins=[keep]).fit(Scripted(2.0, 1.0, 0.5), DATA, DATA)
    assert keep.best == []
