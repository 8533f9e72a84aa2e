"""What a batch weighs: in means, and in the gradient of a window."""

import logging
from collections import namedtuple
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from trainbus import Task, Trainer, batches

Pair = namedtuple("Pair", "x y")


@dataclass
class Fields:
    x: torch.Tensor
    names: list


class Graphs:
    """As a batch of torch_geometric: nodes of several graphs in one tensor."""

    def __init__(self, graphs, nodes=9):
        self.num_graphs = graphs
        self.x = torch.ones(nodes, 2)


def images(n):
    return [torch.rand(3, 8, 8) for _ in range(n)]


def boxes(n):
    return [{"boxes": torch.zeros(1, 4)} for _ in range(n)]


SURE = {
    "a tensor": (torch.ones(4, 2), 4),
    "a pair": ((torch.ones(4, 2), torch.ones(4)), 4),
    "a mapping": ({"x": torch.ones(4, 2), "y": torch.ones(4), "name": "n"}, 4),
    "a named tuple": (Pair(torch.ones(4, 2), torch.ones(4)), 4),
    "a dataclass": (Fields(torch.ones(4, 2), ["a"] * 4), 4),
    "graphs": (Graphs(4), 4),
    "graphs in one part of a pair": ((Graphs(4), torch.ones(4)), 4),
    "sequences": (pack_sequence([torch.ones(3), torch.ones(2), torch.ones(1)]), 3),
    "sequences and labels": ((pack_sequence([torch.ones(3), torch.ones(2)]), torch.ones(2)), 2),
    "images and boxes": ((images(4), boxes(4)), 4),
    "one image and its boxes": ((images(1), boxes(1)), 1),
    "a list of samples": ([{"x": torch.ones(3)}, {"x": torch.ones(5)}], 2),
    "texts and labels": ((["a", "b", "c"], torch.ones(3)), 3),
    "a list of texts": (["a", "b"], 2),
    "inputs of several parts": (([torch.ones(4, 2), torch.ones(4, 3)], torch.ones(4)), 4),
}
GUESSES = {
    "fields that disagree": ((torch.ones(9, 2), torch.ones(4)), 9),
    "a number": (torch.tensor(1.0), 1),
    "an object": (object(), 1),
    "a list of images": (images(5), 5),
}


@pytest.mark.parametrize("what", SURE)
def test_a_batch_that_tells_how_many_samples_it_holds(what):
    batch, count = SURE[what]
    assert batches.samples(batch) == (count, True)


@pytest.mark.parametrize("what", GUESSES)
def test_a_batch_that_does_not_tell_is_a_guess(what):
    batch, count = GUESSES[what]
    assert batches.samples(batch) == (count, False)


class Counts(Task):
    """Logs how many samples its test says that a batch holds."""

    def __init__(self, count):
        super().__init__()
        self.net = nn.Linear(1, 1)
        self.count = count

    def validation_step(self, batch, run):
        run.log(samples=float(self.count(batch)))


@pytest.mark.parametrize(
    ("data", "count"),
    [
        ([(images(4), boxes(4)), (images(1), boxes(1))], lambda batch: len(batch[0])),
        ([Graphs(4), Graphs(1)], lambda batch: batch.num_graphs),
        ([Fields(torch.ones(4), []), Fields(torch.ones(1), [])], lambda batch: len(batch.x)),
    ],
    ids=["detection", "graphs", "a dataclass"],
)
def test_means_are_weighted_by_samples(data, count):
    assert Trainer().validate(Counts(count), data)["valid/samples"] == (4 * 4 + 1 * 1) / 5


def test_a_guess_is_told_once(caplog):
    data = [(torch.ones(9, 2), torch.ones(4))] * 5
    Trainer(plugins=["-journal"]).validate(Counts(lambda _: 1), data)
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    assert "is guessed: 9 of this one (tuple); set run.batch_size" in told[0]


def test_what_is_set_is_no_guess(caplog):
    class Set(Counts):
        def validation_step(self, batch, run):
            run.batch_size = 4
            super().validation_step(batch, run)

    Trainer().validate(Set(lambda _: 1), [(torch.ones(9, 2), torch.ones(4))])
    assert "guessed" not in caplog.text


# --- the gradient of a window --------------------------------------------------------------------

X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
Y = torch.randn(12, 1, generator=torch.Generator().manual_seed(1))
CUTS = {"three": [0, 1, 3, 12], "equal": [0, 4, 8, 12], "the large one first": [0, 9, 11, 12]}


class Net(Task):
    def __init__(self, weigh=None):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Linear(2, 1)
        self.weigh = weigh

    def training_step(self, batch, run):
        if self.weigh is not None:
            run.batch_size = self.weigh(batch)
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def stepped(data, window, weigh=None):
    task = Net(weigh)
    run = Trainer(accumulate=window, plugins=["-journal", "-manifest"]).fit(task, data)
    assert run.global_step == 1
    return task.net.weight.detach()


def cut(places):
    return [(X[a:b], Y[a:b]) for a, b in pairwise(places)]


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("window", [3, 5])
def test_a_window_steps_as_one_batch_of_all_its_samples(name, window):
    whole = stepped([(X, Y)], 1)
    torch.testing.assert_close(stepped(cut(CUTS[name]), window), whole)
    torch.testing.assert_close(stepped(iter(cut(CUTS[name])), window), whole)


def test_equal_weights_make_the_mean_of_the_batches():
    places = CUTS["three"]
    task = Net()
    expected = task.net.weight.detach().clone()
    for x, y in cut(places):
        task.zero_grad()
        nn.functional.mse_loss(task.net(x), y).backward()
        expected -= 0.1 * task.net.weight.grad / 3
    torch.testing.assert_close(stepped(cut(places), 3, weigh=lambda _: 1), expected)


def test_a_weight_is_any_number_such_as_that_of_tokens():
    whole = stepped([(X, Y)], 1)
    weights = iter([10, 20, 90])
    torch.testing.assert_close(stepped(cut(CUTS["three"]), 3, weigh=lambda _: next(weights)), whole)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_batch_without_weight_adds_nothing(empty):
    data = [(X[:6], Y[:6]), (X[6:], Y[6:])]
    data.insert(empty, (torch.full((2, 2), 7.0), torch.ones(2, 1)))
    torch.testing.assert_close(
        stepped(data, 3, weigh=lambda batch: len(batch[0]) if len(batch[0]) > 2 else 0),
        stepped([(X, Y)], 1),
    )


def test_a_window_without_any_weight_leaves_the_weights():
    assert torch.equal(stepped(cut(CUTS["equal"]), 3, weigh=lambda _: 0), Net().net.weight)


def test_no_loss_grows_with_its_weight():
    """Losses of 16 bits overflow at 65,504."""
    largest = []
    trainer = Trainer(accumulate=3, plugins=["-journal", "-manifest"])
    trainer.on("after_loss")(
        lambda run: largest.append(float(run.loss_to_backward.detach() / run.loss))
    )
    trainer.fit(Net(lambda _: 100_000), cut(CUTS["equal"]))
    assert largest == pytest.approx([1 / 3] * 3)


def test_a_skipped_batch_of_a_window_weighs_nothing():
    from trainbus import SkipBatch

    trainer = Trainer(accumulate=3, plugins=["-journal", "-manifest"])

    @trainer.on("after_loss")
    def skip(run):
        if run.batch_index == 1:
            raise SkipBatch

    task = Net()
    trainer.fit(task, [(X[:2], Y[:2]), (X[:5] * 9, Y[:5]), (X[2:], Y[2:])])
    torch.testing.assert_close(task.net.weight.detach(), stepped([(X, Y)], 1))
