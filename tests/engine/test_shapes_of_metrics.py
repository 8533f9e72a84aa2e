"""Metrics that are more than a number: mappings, reductions, vectors and matrices."""

import pytest
import torch

from trainbus import Task, Trainer, UsageError, hookimpl

DATA = [torch.tensor(value) for value in (1.0, 4.0, 3.0)]


class Logs(Task):
    """Logs what a function makes of each batch."""

    def __init__(self, log):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.logs = log

    def training_step(self, batch, run):
        self.logs(run, batch)
        return self.weight

    def validation_step(self, batch, run):
        self.logs(run, batch)

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Gives:
    """A meter that gives a value at the end of a pass."""

    def __init__(self, value):
        self.value = value

    def compute(self):
        return self.value

    def reset(self):
        pass


def validate(log):
    return Trainer().validate(Logs(log), DATA)


@pytest.mark.parametrize(
    ("reduce", "value"), [("max", 4.0), ("min", 1.0), ("sum", 8.0), ("last", 3.0)]
)
def test_a_pass_makes_something_else_than_a_mean(reduce, value):
    assert validate(lambda run, x: run.log(score=x, reduce=reduce)) == {"valid/score": value}


def test_an_epoch_of_training_too():
    run = Trainer().fit(Logs(lambda run, x: run.log(score=x, reduce="max")), DATA)
    assert run.metrics["train/score_epoch"] == 4.0
    assert run.metrics["train/score"] == 3.0


def test_a_metric_called_as_an_argument_is_refused():
    with pytest.raises(UsageError, match=r"run.log\(reduce=0.5\): give one of 'max'"):
        validate(lambda run, x: run.log(reduce=0.5))


def test_mappings_inside_are_logged_by_their_names():
    found = validate(lambda run, x: run.log(f1={"cat": x, "dog": {"big": 1.0}}))
    assert found == {"valid/f1/cat": pytest.approx(8 / 3), "valid/f1/dog/big": 1.0}


def test_what_a_meter_gives_may_be_a_mapping():
    meter = Gives({"precision": torch.tensor(0.5), "recall": 1.0})
    found = validate(lambda run, x: run.log(all=meter))
    assert found == {"valid/all/precision": 0.5, "valid/all/recall": 1.0}


def artifacts_of(value):
    class Keeps:
        found = []

        @hookimpl
        def on_artifact(self, artifact):
            self.found.append(artifact)

    keeps, meter = Keeps(), Gives(value)
    keeps.found.clear()
    Trainer(plugins=[keeps]).validate(Logs(lambda run, x: run.log(cm=meter)), DATA)
    return {each.kind: each for each in keeps.found}


def test_a_matrix_becomes_a_table_and_a_picture():
    found = artifacts_of(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert found["table"].name == "valid/cm"
    assert found["table"].value == [{"row": 0, "0": 1.0, "1": 2.0}, {"row": 1, "0": 3.0, "1": 4.0}]
    picture = found["image"].value
    assert picture.shape == (1, 240, 240)
    assert (picture[0, 0, 0], picture[0, -1, -1]) == (0.0, 1.0)


def test_a_curve_becomes_a_table():
    found = artifacts_of((torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.7, 0.9])))
    assert list(found) == ["table"]
    assert found["table"].value[2] == {"row": 2, "1": pytest.approx(0.9)}


def test_what_has_too_many_dimensions_is_refused():
    with pytest.raises(UsageError, match=r"a metric gave \(2, 2, 2\); give vectors, or a matrix"):
        artifacts_of(torch.zeros(2, 2, 2))


def test_the_history_of_a_run_has_a_row_for_each_epoch():
    run = Trainer(epochs=2).fit(Logs(lambda run, x: run.log(loss=x)), DATA, DATA)
    assert [(row["epoch"], row["global_step"]) for row in run.history] == [(0, 3), (1, 6)]
    assert run.history[1]["valid/loss"] == pytest.approx(8 / 3)
