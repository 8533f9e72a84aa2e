"""What a task's constructor was given is kept, and makes the task again."""

import json
from collections import namedtuple

import pytest
import torch

from trainbus import CheckpointError, Task, Trainer, hookimpl

DATA = [torch.ones(2, 3)]
Size = namedtuple("Size", "width depth")


class Net(Task):
    """A line of some width."""

    def __init__(self, width, lr=0.1, *, tags=(), api_key="", loss=torch.mean, **more):
        super().__init__()
        self.line = torch.nn.Linear(3, width)
        self.lr, self.more = lr, more

    def training_step(self, batch, run):
        return self.line(batch).mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Wider(Net):
    """A subclass whose constructor takes something else."""

    def __init__(self, factor):
        super().__init__(width=2 * factor)


def params_of(task):
    class Keeps:
        params = None

        @hookimpl
        def on_params(self, params):
            self.params = dict(params)

    keeps = Keeps()
    run = Trainer(plugins=[keeps, "checkpoint"]).fit(task, DATA)
    return keeps.params, run.dir


def test_what_was_given_is_logged():
    params, _ = params_of(Net(2, tags=["a"], deep={"x": [1, 2]}, shape=Size(3, 4)))
    assert params == {
        "width": 2, "tags": ("a",), "deep": {"x": (1, 2)}, "shape": (3, 4),
    }  # fmt: skip


def test_the_outermost_constructor_counts():
    assert params_of(Wider(3))[0] == {"factor": 3}


def test_what_the_task_says_itself_goes_before():
    task = Net(2)
    task.hparams = {"mine": 1}
    assert params_of(task)[0] == {"mine": 1}


def test_secrets_are_not_kept():
    _, directory = params_of(Net(2, api_key="sesame-open-42"))
    assert all(b"sesame-open-42" not in p.read_bytes() for p in directory.rglob("*.json"))


def test_a_task_is_made_again():
    task = Net(2, lr=0.5, depth=3)
    _, directory = params_of(task)
    again = Net.from_checkpoint(directory)
    assert (again.lr, again.more) == (0.5, {"depth": 3})
    assert torch.equal(again.line.weight, task.line.weight)
    assert Net.from_checkpoint(directory / "checkpoints" / "step-00000001", lr=0.9).lr == 0.9


def test_another_shape_is_told():
    _, directory = params_of(Net(2))
    with pytest.raises(CheckpointError, match="does not fit"):
        Net.from_checkpoint(directory, width=4)


def test_names_that_the_constructor_does_not_take_are_left_out():
    _, directory = params_of(Wider(2))
    (manifest,) = directory.glob("checkpoints/step-*/manifest.json")
    content = json.loads(manifest.read_text())
    content["about"]["arguments"]["evil"] = 1
    manifest.write_text(json.dumps(content))
    assert isinstance(Wider.from_checkpoint(directory), Wider)
