"""Two plugins of a kind in one run, each with a name of its own."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, Task, Trainer, UsageError
from trainbus.builtin import EMA, Checkpoint

LOSSES, ACCURACIES = [5.0, 1.0, 3.0, 4.0], [0.1, 0.2, 0.9, 0.3]
DATA = [torch.ones(2, 3)] * 2


class Net(Task):
    """Its values are written down."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 1)

    def training_step(self, batch, run):
        return self.net(batch).pow(2).mean()

    def validation_step(self, batch, run):
        run.log(loss=LOSSES[run.epoch], accuracy=ACCURACIES[run.epoch])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def named(plugin, name):
    plugin.plugin_name = name
    return plugin


def by_loss_and_accuracy(**options):
    by_loss = Checkpoint("valid/loss", **options)
    return by_loss, named(Checkpoint("valid/accuracy", "max", **options), "by_accuracy")


def fit(plugins, epochs=4, **options):
    return Trainer(epochs=epochs, plugins=[*plugins]).fit(Net(), DATA, DATA, **options)


def states(run, *inside):
    directory = run.dir.joinpath("checkpoints", *inside)
    return sorted(each.name for each in directory.iterdir())


def test_each_keeps_its_best_in_a_directory_of_its_own():
    one, two = by_loss_and_accuracy()
    run = fit((one, two))
    assert states(run) == ["best", "best-00000004", "by_accuracy", "step-00000008"]
    assert states(run, "by_accuracy") == ["best", "best-00000006", "step-00000008"]
    assert (one.best, two.best) == ([(1.0, "best-00000004")], [(0.9, "best-00000006")])
    for each in (one, two):
        assert each.best_path(run).exists()


def test_both_go_on_with_what_they_kept():
    fit(by_loss_and_accuracy(), epochs=3)
    one, two = by_loss_and_accuracy()
    run = fit((one, two), resume="auto")
    assert (run.epoch, run.global_step) == (4, 8)
    assert (one.best, two.best) == ([(1.0, "best-00000004")], [(0.9, "best-00000006")])
    assert one.best_path(run).exists() and two.best_path(run).exists()


def test_a_run_whose_only_states_are_those_of_a_named_one_is_found():
    first = fit([named(Checkpoint(), "mine")], epochs=1)
    second = fit([named(Checkpoint(), "mine")], epochs=2, resume="auto")
    assert second.dir == first.dir and second.global_step == 4


def test_sigusr1_asks_both():
    before = signal.getsignal(signal.SIGUSR1)
    plugins = [Checkpoint(keep_last=9), named(Checkpoint(keep_last=9), "mine")]
    trainer = Trainer(plugins=plugins)

    @trainer.on("train_batch_start")
    def ask(run):
        if run.batch_index == 0:
            os.kill(os.getpid(), signal.SIGUSR1)

    run = trainer.fit(Net(), DATA)
    assert states(run) == ["mine", "step-00000001", "step-00000002"]
    assert states(run, "mine") == ["step-00000001", "step-00000002"]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_the_best_of_several_is_asked_for_by_its_path():
    run = fit(by_loss_and_accuracy())
    with pytest.raises(CheckpointError, match=r"resume='best': there are several, .*give the path"):
        fit(by_loss_and_accuracy(), resume="best")
    again = fit(by_loss_and_accuracy(), resume=run.dir / "checkpoints/by_accuracy/best")
    assert (again.dir, again.global_step) == (run.dir.resolve(), 8)


def test_one_that_keeps_a_best_beside_one_that_does_not_is_found_by_best():
    run = fit([Checkpoint(), named(Checkpoint("valid/loss"), "mine")])
    again = fit([Checkpoint(), named(Checkpoint("valid/loss"), "mine")], resume="best")
    assert again.dir == run.dir.resolve()


def weights_after(*plugins):
    run = fit(plugins)
    return run.task.net.weight.detach().clone()


def test_two_averages_leave_training_alone():
    second = named(EMA(0.5, validate=False), "short")
    assert torch.equal(weights_after(EMA(0.9), second), weights_after())
    assert second.average.keys() == {"net.weight", "net.bias"}


@pytest.mark.parametrize(
    ("options", "role"),
    [({}, "that which validates; give validate=False"), ({"validate": False, "final": True},
     "that which is left in the model; give final=False")],
)  # fmt: skip
def test_two_averages_for_one_purpose_are_refused(options, role):
    with pytest.raises(UsageError, match=rf"'ema' and 'short' each keep an average.*{role}"):
        fit([EMA(0.9, **options), named(EMA(0.5, **options), "short")])


def test_one_average_may_validate_and_another_be_left_in_the_model():
    run = fit([EMA(0.9), named(EMA(0.5, validate=False, final=True), "short")])
    short = run.bus.plugins["short"]
    assert torch.equal(run.task.net.weight, short.average["net.weight"])


def test_two_averages_go_on_with_their_own():
    def plugins():
        return [EMA(0.9), named(EMA(0.5, validate=False), "short"), Checkpoint()]

    whole = plugins()
    fit(whole)
    Path("runs").rename("whole")
    fit(plugins(), epochs=2)
    fit(parts := plugins(), resume="auto")
    for one, other in zip(whole[:2], parts[:2], strict=True):
        for name, value in one.average.items():
            assert torch.equal(value, other.average[name])


@pytest.mark.parametrize(
    ("one", "two"), [("by loss", "by_loss"), ("a", "A"), ("a/b", "a b"), ("best", "best_")]
)
def test_two_names_that_are_one_directory_are_refused(one, two):
    plugins = [named(Checkpoint(), one), named(Checkpoint(), two)]
    with pytest.raises(UsageError, match="would both keep their states in checkpoints/"):
        fit(plugins)


@pytest.mark.parametrize("name", ["best", "Best", "step-00000004", "exception-00000001", ".."])
def test_a_plugin_that_is_called_as_a_state_is_has_a_directory_of_its_own(name):
    run = fit(
        [Checkpoint("valid/loss"), named(Checkpoint("valid/accuracy", "max"), name)], epochs=3
    )
    assert states(run) == sorted(["best", "best-00000004", f"{name}_", "step-00000006"])
    assert states(run, f"{name}_") == ["best", "best-00000006", "step-00000006"]
    again = fit([Checkpoint("valid/loss"), named(Checkpoint(), name)], resume="auto")
    assert (again.dir, again.global_step) == (run.dir, 8)
