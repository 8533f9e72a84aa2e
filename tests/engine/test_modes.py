"""A module is in the mode in which it was found, and comes back in it from each pass."""

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer

DATA = [torch.randn(8, 2, generator=torch.Generator().manual_seed(1)) + 5 for _ in range(3)]


class Frozen(Task):
    """A head on a body with a norm layer, which is in evaluation mode; notes what it sees."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 1)
        self.body.requires_grad_(False).eval()
        self.seen = {}

    def training_step(self, batch, run):
        self.seen[run.stage] = (self.body.training, self.head.training)
        return self.head(self.body(batch)).pow(2).mean()

    def validation_step(self, batch, run):
        self.seen[run.stage] = (self.body.training, self.head.training)

    def configure_optimizer(self):
        return torch.optim.SGD(self.head.parameters(), lr=0.1)


def mode_line(task):
    return Trainer().fit(task, DATA).header.get("evaluation mode")


def test_a_frozen_body_keeps_its_mode_and_its_statistics():
    task = Frozen()
    Trainer(epochs=2).fit(task, DATA)
    assert task.seen["train"] == (False, True)
    assert torch.equal(task.body[1].running_mean, torch.zeros(4))


def test_a_validation_inside_a_fit_gives_each_module_its_mode_back():
    task = Frozen()
    Trainer(epochs=2, validate_every=0.5).fit(task, DATA, DATA)
    assert task.seen == {"train": (False, True), "valid": (False, False)}
    assert (task.body.training, task.head.training, task.training) == (False, True, True)


def test_a_model_that_is_in_evaluation_mode_as_a_whole_is_trained_in_it():
    task = Frozen().eval()
    Trainer().fit(task, DATA)
    assert task.seen["train"] == (False, False)
    assert not task.training


def test_a_loop_of_ones_own_leaves_the_modes_alone():
    task = Frozen()
    with Trainer().open(task.head, torch.optim.SGD(task.head.parameters(), 0.1)) as run:
        task.head.eval()
        for batch in run.batches(DATA, epochs=2):
            assert not task.head.training
            run.step(task.head(task.body(batch)).mean())
        for _ in run.evaluation_batches(DATA):
            assert not task.head.training
    assert not task.head.training


def test_a_model_made_by_hand_is_as_it_was_found_in_a_loop_of_ones_own():
    net = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))
    net[1].eval()
    with Trainer().open(net, torch.optim.SGD(net.parameters(), 0.1)) as run:
        for batch in run.batches(DATA, epochs=1):
            assert (net.training, net[1].training) == (True, False)
            run.step(net(batch).mean())


def test_the_header_names_the_outermost_modules_in_evaluation_mode():
    assert mode_line(Frozen()) == "body, as they were found"


def test_the_header_says_that_it_is_the_whole_model():
    assert mode_line(Frozen().eval()) == "the whole model, as they were found"


def test_the_header_names_a_module_deep_inside():
    task = Frozen()
    task.body.train()
    task.body[1].eval()
    assert mode_line(task) == "body.1, as they were found"


def test_the_header_names_five_modules_at_most():
    task = Frozen()
    task.many = nn.ModuleList(nn.Linear(1, 1).eval() for _ in range(7))
    assert mode_line(task).endswith("many.3 and 3 more, as they were found")


@pytest.mark.parametrize("train", [True, False])
def test_a_model_all_in_training_mode_is_no_line_of_the_header(line, loader, train):
    run = Trainer().fit(line.train(train), loader)
    assert ("evaluation mode" in run.header) is not train
