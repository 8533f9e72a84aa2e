"""Two processes train as one does that accumulates over two batches: to the bit."""

import pytest
import torch
from torch import nn

from trainbus import Loader, SkipBatch, SkipStep, Task, TrainbusError, Trainer, UsageError, hookimpl
from trainbus.testing.processes import ranks
from trainbus_distributed import Distributed

from .conftest import Small, dataset, digest, fit, loader

DataLoader = torch.utils.data.DataLoader


@pytest.mark.parametrize("count", [64, 63, 57])
def test_two_processes_are_one_with_a_window_of_two(count):
    def train(accumulate=1):
        return fit(Small(), loader(count), loader(count), accumulate=accumulate)

    one, (first, second) = train(2), ranks(2, train)
    assert first["digest"] == second["digest"] == one["digest"]
    assert first["steps"] == one["steps"]
    for name in ("valid/loss", "valid/accuracy", "train/loss_epoch"):
        assert first["metrics"][name] == pytest.approx(one["metrics"][name], abs=1e-7)
        assert first["metrics"][name] == second["metrics"][name]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_order_of_torchs_own_loader_is_that_of_one_process(workers):
    def train(accumulate=1):
        return fit(Small(), loader(40, kind=DataLoader, num_workers=workers), accumulate=accumulate)

    one, two = train(2), ranks(2, train)
    assert [each["digest"] for each in two] == [one["digest"]] * 2


def test_windows_of_several_batches_in_each_process():
    def train(accumulate):
        return fit(Small(), loader(56), accumulate=accumulate)

    first, second = ranks(2, train, 2)
    assert first["digest"] == second["digest"]
    one = train(4)
    assert first["steps"] == one["steps"]
    assert first["metrics"]["train/loss_epoch"] == pytest.approx(
        one["metrics"]["train/loss_epoch"], abs=1e-6
    )


def test_your_own_loop_has_its_gradients_reduced():
    def train(accumulate=1):
        net = Small().net
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        trainer = Trainer(plugins=[Distributed()], seed=1, accumulate=accumulate)
        with trainer.open(net, optimizer) as run:
            for x, y, _ in run.batches(loader(60), epochs=2):
                run.step(nn.functional.cross_entropy(net(x), y))
        return digest(net)

    assert ranks(2, train) == [train(2)] * 2


class TwoLosses(Task):
    """A task that steps its two optimizers itself."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.one, self.two = nn.Linear(8, 2), nn.Linear(8, 2)

    def training_step(self, batch, run):
        for net, optimizer in zip((self.one, self.two), run.optimizers, strict=True):
            loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
            run.backward(loss, optimizer)
            run.optimizer_step(optimizer)

    def configure_optimizer(self):
        return [torch.optim.SGD(each.parameters(), lr=0.1) for each in (self.one, self.two)]


def test_a_task_with_several_optimizers_that_steps_by_itself():
    def weights():
        task = TwoLosses()
        fit(task, loader(57))
        return task.one.weight.detach()

    first, second = ranks(2, weights)
    task = TwoLosses()  # one process that reads both batches of a round as one
    Trainer(epochs=2, seed=1).fit(task, Loader(dataset(57), batch_size=8, shuffle=True))
    assert torch.equal(first, second)
    assert torch.allclose(first, task.one.weight, atol=1e-6)


def test_initial_weights_are_equal_and_masks_are_not():
    class Masks(Small):
        def training_step(self, batch, run):
            self.mask = torch.rand(4).tolist()
            return super().training_step(batch, run)

    def train():
        task = Masks(dropout=0.5)
        told = fit(task, loader(40), epochs=1)
        return told["digest"], task.mask

    (one, mask), (two, other) = ranks(2, train)
    assert one == two
    assert mask != other


def test_statistics_of_normalisations_are_the_same_everywhere():
    def train():
        task = Small()
        task.net.insert(1, nn.BatchNorm1d(16))
        return fit(task, loader(62), loader(62))["digest"]

    one, two = ranks(2, train)
    assert one == two


def test_parameters_without_a_part_in_the_loss_are_named():
    def train():
        task = Small()
        task.idle = nn.Linear(2, 2)
        fit(task, loader(40))

    for each in ranks(2, train, survive=True):
        assert "the loss does not depend on idle.weight, idle.bias" in each


def test_unused_parameters_by_name_are_allowed():
    def train():
        task = Small()
        task.idle = nn.Linear(2, 2)
        trainer = Trainer(epochs=1, plugins=[Distributed(unused_parameters=True)])
        return trainer.fit(task, loader(40)).status

    assert ranks(2, train) == ["completed"] * 2


def test_a_batch_that_one_process_leaves_out_leaves_nobody_waiting():
    class Picky(Small):
        def training_step(self, batch, run):
            if run.rank == 1 and run.batch_index == 2:
                raise SkipBatch
            return super().training_step(batch, run)

    first, second = ranks(2, lambda: fit(Picky(), loader(40)))
    assert first["digest"] == second["digest"]
    assert first["steps"] == second["steps"] == 10


def test_a_step_that_one_process_calls_off_is_an_error_in_all():
    class Veto:
        @hookimpl
        def on_before_optimizer_step(self, run):
            if run.rank == 1 and run.batch_index == 2:
                raise SkipStep

    def train():
        with pytest.raises(TrainbusError, match="not made the same number of optimizer steps"):
            fit(Small(), loader(40), plugins=[Veto()])

    ranks(2, train)


def test_models_that_differ_are_an_error_in_all():
    def train():
        task = Small()
        if Distributed().provide_peers().rank == 1:
            task.net[3] = nn.Linear(16, 3)
        with pytest.raises(UsageError, match=r"net.3.weight is \(2, 16\).* in rank 0"):
            fit(task, loader(40))

    ranks(2, train)


def test_loaders_of_different_lengths_are_an_error_in_all():
    def train():
        rank = Distributed().provide_peers().rank
        with pytest.raises(UsageError, match="rank 0: 10, rank 1: 11"):
            fit(Small(), loader(40 + 4 * rank))

    ranks(2, train)


def test_alone_the_plugin_does_nothing():
    assert fit(Small(), loader(40))["digest"] == digest(_alone())


def _alone():
    task = Small()
    Trainer(epochs=2, seed=1).fit(task, loader(40))
    return task


def test_a_launcher_without_the_plugin_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="pip install trainbus-distributed"):
        Trainer(epochs=1).fit(Small(), loader(40))
