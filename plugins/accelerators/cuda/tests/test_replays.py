"""Replays beside what is computed without them, with a double of torch's graphs on the CPU."""

import copy
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus.builtin import OOM
from trainbus_cuda.graphs import Graphs

_spec = importlib.util.spec_from_file_location(
    "graph_double", Path(__file__).with_name("graph_double.py")
)
double = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(double)
DATA = list(torch.randn(6, 8, 4, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(autouse=True)
def graphed(monkeypatch):
    double.make_graphed.options.clear()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", double.make_graphed)
    return double.make_graphed


class Net(Task):
    """A network that is called once in a step."""

    def __init__(self, net=None):
        super().__init__()
        torch.manual_seed(0)
        self.net = net or nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))

    def training_step(self, batch, run):
        return self.net(batch).pow(2).mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def weights(task, data=DATA, plugins=(), graphs=True, **options):
    plugins = [*([Graphs()] if graphs else []), *plugins]
    Trainer(plugins=plugins, **options).fit(task, data)
    return torch.cat([p.detach().flatten() for p in task.parameters()])


def same(make, **options):
    torch.manual_seed(1)
    with_them = weights(make(), **options)
    torch.manual_seed(1)
    without = weights(make(), graphs=False, **options)
    return torch.equal(with_them, without)


def test_the_weights_are_those_without_graphs(graphed):
    assert same(Net, epochs=2)
    assert graphed.replays == 11, "all but the first of twelve, which was watched"


def test_other_threads_may_allocate_and_parameters_may_be_unused(graphed):
    weights(Net())
    (options,) = graphed.options
    assert options == {"allow_unused_input": True} or options == {
        "allow_unused_input": True,
        "capture_error_mode": "thread_local",
    }


def test_a_module_that_is_called_twice_later_on():
    class Twice(Net):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            return loss + self.net(-batch).sum() if run.batch_index > 1 else loss

    assert same(Twice)


def test_batches_in_parts():
    assert same(Net, plugins=[OOM(parts=2)], data=[torch.cat([x, x]) for x in DATA])


def test_outputs_that_a_metric_keeps():
    class Keeps(Net):
        def __init__(self):
            super().__init__()
            self.kept = []

        def training_step(self, batch, run):
            output = self.net(batch)
            self.kept.append(output.detach())
            return output.pow(2).mean()

    one, other = Keeps(), Keeps()
    weights(one)
    weights(other, graphs=False)
    assert all(map(torch.equal, one.kept, other.kept))


def test_a_mode_that_changes_within_an_epoch():
    class Changes(Net):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))

        def training_step(self, batch, run):
            if run.batch_index == 3:
                self.net[1].eval()
            return super().training_step(batch, run)

    assert same(Changes)


def test_what_cannot_be_captured_is_told_once_and_trained(monkeypatch, caplog):
    def fails(*_arguments, **_options):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fails)
    assert same(Net, epochs=2)
    assert caplog.text.count("net is computed as before: it cannot be captured") == 1


def inner_hook():
    net = nn.Sequential(nn.Linear(4, 1))
    net[0].register_forward_hook(lambda *_: None)
    return net


def compiled():
    net = nn.Sequential(nn.Linear(4, 1))
    net[0].compile(backend="eager")
    return net


@pytest.mark.parametrize(("make", "why"), [(inner_hook, "hooks"), (compiled, "replaced")])
def test_hooks_and_compiled_parts_inside_are_left_out(make, why, graphed, caplog):
    weights(Net(make()))
    assert why in caplog.text
    assert not graphed.options


def test_a_task_is_pickled_and_copied_while_it_is_replayed():
    copies = []
    trainer = Trainer(plugins=[Graphs()])

    @trainer.on("train_epoch_end")
    def copied(run):
        copies.append(pickle.loads(pickle.dumps(run.task.net)))
        copies.append(copy.deepcopy(run.task.net))

    task = Net()
    trainer.fit(task, DATA)
    for each in copies:
        assert "forward" not in vars(each) or each.forward.__self__ is each
        assert each(DATA[0]).shape == (8, 1)
        assert torch.equal(each[0].weight, task.net[0].weight)
