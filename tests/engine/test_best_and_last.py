"""The weights that a run leaves, and those that a task is evaluated with."""

import pytest
import torch

from trainbus import CheckpointError, Task, Trainer, UsageError, save_weights
from trainbus.builtin import Checkpoint

LOSSES = [3.0, 1.0, 2.0]


class Counts(Task):
    """Its weight is the number of its steps; the loss of validation is that of a script."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, run):
        return -self.weight

    def validation_step(self, batch, run):
        run.log(loss=LOSSES[int(self.weight) - 1], weight=self.weight)

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


DATA = [torch.zeros(1)]


def fit(task, **options):
    return Trainer(epochs=3, plugins=[Checkpoint("valid/loss")]).fit(task, DATA, DATA, **options)


def test_a_fit_leaves_the_best():
    task = Counts()
    fit(task, load="best")
    assert task.weight == 2


def test_a_fit_leaves_the_last():
    task = Counts()
    fit(task)
    assert task.weight == 3


def test_the_best_of_a_run_without_one_is_refused_before_it():
    task = Counts()
    with pytest.raises(UsageError, match="no plugin keeps a best checkpoint"):
        Trainer(plugins=["checkpoint"]).fit(task, DATA, DATA, load="best")
    assert task.weight == 0


def test_only_the_best_can_be_loaded():
    with pytest.raises(UsageError, match="give 'best', or leave it out"):
        fit(Counts(), load="last")


@pytest.mark.parametrize(("weights", "value"), [("best", 2), ("last", 3)])
def test_a_task_is_tested_with_the_weights_of_the_newest_run(weights, value):
    fit(Counts())
    assert Trainer().test(Counts(), DATA, weights=weights)["test/weight"] == value
    assert Trainer().validate(Counts(), DATA, weights=weights)["valid/weight"] == value


def test_a_model_predicts_with_the_weights_of_a_file(tmp_path):
    one, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    save_weights(one, tmp_path / "w.pt")
    found = list(Trainer().predict(other, [torch.ones(1, 2)], weights=tmp_path / "w.pt"))
    assert torch.equal(found[0], one(torch.ones(1, 2)))


@pytest.mark.parametrize("weights", ["best", "last", "nowhere.pt"])
def test_weights_that_are_not_there(weights):
    with pytest.raises(CheckpointError, match=r"no run|there is no file"):
        Trainer().test(Counts(), DATA, weights=weights)


def test_a_loop_of_ones_own_goes_on():
    def loop(epochs, **options):
        trainer = Trainer(seed=1, plugins=[Checkpoint(every_steps=1)])
        seen, model = [], Counts()
        loader = torch.utils.data.DataLoader(torch.arange(6.0), batch_size=2, shuffle=True)
        with trainer.open(model, **options) as run:
            for epoch in run.epochs(epochs):
                for batch in run.batches(loader):
                    seen.append((epoch, batch.tolist()))
                    run.step(-model.weight)
        return seen, model.weight.item()

    first, _ = loop(1, resume="auto")
    rest, weight = loop(3, resume="auto")
    assert weight == 9
    alone, _ = loop(3)
    assert first + rest == alone
