"""Each mistake gets one message that says what was given, where, and what would be right."""

import pytest
import torch
from torch import nn

from trainbus import PluginError, Task, Trainer, UsageError


def fails(match):
    return pytest.raises(UsageError, match=match)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"epochs": 0}, r"Trainer\(epochs=0\): epochs must be a whole number, at least 1"),
        ({"epochs": 1.5}, r"epochs=1.5"),
        ({"accumulate": True}, r"accumulate=True"),
        ({"max_time": -1}, r"max_time=-1\): max_time must be a number greater than 0"),
        ({"max_time": "1h"}, r"max_time='1h'\): max_time must be a number greater than 0"),
        ({"limit_batches": 2.5}, r"limit_batches must be a whole number, or a fraction up to 1"),
        ({"validate_every": 1.5}, r"whole epochs, a fraction of an epoch below 1, or a text"),
        ({"clip_norm": 0}, r"clip_norm=0"),
        ({"limit_batches": 0}, r"limit_batches=0"),
    ],
)
def test_an_argument_of_the_trainer_out_of_range(arguments, match):
    with fails(match):
        Trainer(**arguments)


def test_an_unknown_accelerator_names_the_known(line, loader):
    with fails(r"accelerator='cpuu' is not known here; did you mean 'cpu'\?.*Available: cpu"):
        Trainer(accelerator="cpuu").fit(line, loader)


@pytest.mark.parametrize("devices", [2, "two", [0, 1], 0])
def test_several_devices_need_a_plugin(line, loader, devices):
    with fails("need a plugin that starts one process for each"):
        Trainer(devices=devices).fit(line, loader)


def test_a_device_index_that_is_not_there(line, loader):
    with fails(r"devices=\[3\]: the CPU is one device"):
        Trainer(accelerator="cpu", devices=[3]).fit(line, loader)


def test_a_precision_that_nobody_provides(line, loader):
    with fails("precision='bf16': no active plugin provides it"):
        Trainer(precision="bf16").fit(line, loader)


def test_no_task(loader):
    with fails(r"Linear.* is no Task; subclass trainbus.Task, or use Task.supervised"):
        Trainer().fit(nn.Linear(4, 1), loader)


def test_an_empty_loader(line):
    with fails("the train loader gave no batch: list"):
        Trainer().fit(line, [])


def test_an_empty_validation_loader(line, loader):
    with fails("the valid loader gave no batch"):
        Trainer().fit(line, loader, [])


def test_a_generator_has_nothing_left_in_the_second_epoch(line, loader):
    with fails("a generator can be read only once"):
        Trainer(epochs=2).fit(line, (batch for batch in loader))


def test_a_fraction_of_a_loader_that_does_not_tell_its_length(line, loader):
    with fails("limit_batches=0.5 is a fraction, but generator does not tell its length"):
        Trainer(limit_batches=0.5).fit(line, (batch for batch in loader))
    with fails("validate_every=0.5 is a fraction of an epoch"):
        Trainer(validate_every=0.5).fit(line, (batch for batch in loader), loader)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda task: None, r"Odd.training_step returned None; return the loss, or step by"),
        (lambda task: 1.5, r"Odd.training_step returned float; return the loss as a tensor"),
        (lambda task: task.linear.weight * 2, r"a loss of shape \(1, 4\); reduce it"),
        (lambda task: torch.tensor(1.0), r"a loss without a graph"),
        (lambda task: task.linear.weight.sum().detach(), r"a loss without a graph"),
    ],
)
def test_a_loss_that_cannot_be_differentiated(make_line, loader, loss, match):
    class Odd(make_line):
        def training_step(self, batch, run):
            return loss(self)

    with fails(match):
        Trainer().fit(Odd(), loader)


@pytest.mark.parametrize(
    ("optimizer", "match"),
    [
        (lambda task: torch.optim.SGD([], lr=0.1), "the optimizer has no parameters"),
        (lambda task: None, "returned no optimizer"),
        (lambda task: [], "returned no optimizer"),
        (lambda task: "sgd", "returned str; return a torch.optim.Optimizer"),
        (lambda task: torch.optim.SGD([torch.zeros(1)], lr=0.1), "all are frozen"),
    ],
)
def test_an_optimizer_that_cannot_train(make_line, loader, optimizer, match):
    class Odd(make_line):
        def configure_optimizer(self):
            return optimizer(self)

    with fails(rf"Odd.configure_optimizer.*{match}"):
        Trainer().fit(Odd(), loader)


def test_a_task_without_the_step_that_is_needed(loader):
    with fails("Task has no configure_optimizer, which fit needs"):
        Trainer().fit(Task(), loader)
    with fails("Task has no validation_step, which validate or test needs"):
        Trainer().validate(Task(), loader)


def test_a_monitored_metric_that_was_never_logged(line, loader):
    from trainbus.builtin import Checkpoint

    with fails(
        r"checkpoint monitors 'valid/los', which was not logged; did you mean 'valid/loss'\? "
        r"Logged were: train/loss, train/loss_epoch, valid/loss"
    ):
        Trainer(plugins=[Checkpoint(monitor="valid/los")]).fit(line, loader, loader)


def test_two_plugins_that_claim_one_role(line, loader):
    trainer = Trainer()

    @trainer.on("run_start")
    def claim(run):
        run.claim("precision", "amp")
        run.claim("precision", "half")

    with fails("two plugins claim precision: 'amp' and 'half'"):
        trainer.fit(line, loader)


def test_a_trainer_in_the_middle_of_a_run(line, loader):
    trainer = Trainer()

    @trainer.on("epoch_end")
    def again(run):
        trainer.validate(line, loader)

    with fails("in the middle of a run"):
        trainer.fit(line, loader)


def test_an_unknown_event_of_on():
    with pytest.raises(PluginError, match=r"'train_batch_ned'.*did you mean 'train_batch_end'"):
        Trainer().on("train_batch_ned")


def test_plugins_as_one_text():
    with pytest.raises(PluginError, match=r"plugins='progress': give a list"):
        Trainer(plugins="progress")


def test_a_run_dir_that_cannot_be_made(line, loader, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with fails("run_dir='taken': cannot make"):
        Trainer(run_dir="taken").fit(line, loader)


def test_the_trainer_is_whole_after_each_mistake(line, make_line, loader):
    class Broken(make_line):
        def training_step(self, batch, run):
            raise RuntimeError("broken")

    trainer = Trainer(deterministic=True, seed=1)
    with pytest.raises(RuntimeError):
        trainer.fit(Broken(), loader)
    assert trainer.fit(line, loader).status == "completed"
