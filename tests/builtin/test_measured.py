"""What a plugin monitors counts once for each time that it was measured."""

import logging

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, Task, Trainer
from trainbus.builtin import EMA, Checkpoint, EarlyStopping, Schedule

DATA = [torch.ones(2, 1)] * 3
#: Measured in every fourth epoch.
EVERY_FOURTH = {0: 0.1, 4: 0.1, 8: 0.05}


class Net(Task):
    """Logs `valid/map` in some epochs only, and `valid/loss` in each validation."""

    def __init__(self, maps, in_training=False):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))
        self.maps, self.in_training = maps, in_training

    def training_step(self, batch, run):
        if self.in_training and run.epoch in self.maps:
            run.log(map=self.maps[run.epoch])
        return ((self.w - batch) ** 2).mean()

    def validation_step(self, batch, run):
        run.log(loss=1.0)
        if run.epoch in self.maps:
            run.log(map=self.maps[run.epoch])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(*plugins, maps=EVERY_FOURTH, epochs=12, in_training=False, **options):
    trainer = Trainer(epochs=epochs, plugins=[*plugins], **options)
    return trainer.fit(Net(maps, in_training), DATA, DATA, resume="auto")


def test_early_stopping_waits_for_new_values_only():
    run = fit(EarlyStopping("valid/map", "max", patience=2))
    assert (run.status, run.epoch) == ("stopped", 9)


def test_early_stopping_on_a_metric_of_training_waits_for_new_values_only():
    plugin = EarlyStopping("train/map_epoch", "max", patience=2)
    assert fit(plugin, in_training=True).epoch == 9


def test_early_stopping_goes_on_waiting_after_a_resume():
    for epochs in (2, 6, 12):
        run = fit(EarlyStopping("valid/map", "max", patience=2), "checkpoint", epochs=epochs)
    assert run.epoch == 9


def plateau():
    return Schedule(
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, "max", 0.5, patience=0),
        monitor="valid/map",
    )


def test_a_plateau_is_asked_at_new_values_only():
    rates = []
    trainer = Trainer(epochs=12, plugins=[plateau()])
    trainer.on("epoch_start")(lambda run: rates.append(run.optimizer.param_groups[0]["lr"]))
    trainer.fit(Net(EVERY_FOURTH), DATA, DATA)
    assert rates == [0.1] * 5 + [0.05] * 4 + [0.025] * 3


def test_a_plateau_goes_on_after_a_resume():
    for epochs in (3, 7, 12):
        run = fit(plateau(), "checkpoint", epochs=epochs)
    assert run.optimizer.param_groups[0]["lr"] == 0.025


def test_the_best_is_a_state_that_was_measured():
    keep = Checkpoint("valid/map", "max", keep_best=9)
    fit(keep, maps={0: 0.1, 4: 0.9})
    assert [name for _, name in keep.best] == ["best-00000015", "best-00000003"]


def test_the_best_of_a_metric_of_training_is_a_state_that_was_measured():
    keep = Checkpoint("train/map_epoch", "max", keep_best=9)
    fit(keep, maps={0: 0.1, 4: 0.9}, in_training=True, epochs=6)
    assert [value for value, _ in keep.best] == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("make", [lambda: EarlyStopping("valid/map"), lambda: plateau()])
def test_a_metric_that_is_never_measured_is_an_error_in_the_first_epoch(make):
    with pytest.raises(Exception, match="monitors 'valid/map', which was not logged"):
        fit(make(), maps={})


def test_the_same_value_twice_is_measured_twice():
    run = fit(EarlyStopping("valid/loss", patience=2))
    assert run.epoch == 3


# --- what is not finite --------------------------------------------------------------------------


def test_a_validation_that_is_not_finite_is_never_the_best_and_is_told_once(caplog):
    keep = Checkpoint("valid/map", "max", keep_best=9)
    fit(keep, maps={0: float("inf"), 1: float("nan"), 2: 0.5}, epochs=3)
    assert [value for value, _ in keep.best] == [0.5]
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len([text for text in told if "valid/map is inf at step 3" in text]) == 1
    assert not any("nan" in text for text in told)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_step_whose_weights_are_not_finite_is_no_part_of_the_average(caplog, value):
    average = EMA(0.9, warmup=False)
    task = Net({})
    trainer = Trainer(epochs=4, plugins=[average])
    seen = []

    @trainer.on("after_optimizer_step")
    def break_weights(run):
        seen.append(task.w.detach().clone())
        if run.global_step == 2:
            task.w.data.fill_(value)

    @trainer.on("train_batch_end", trylast=True)
    def mend(run):
        if run.global_step == 2:
            task.w.data.copy_(seen[-1])

    trainer.fit(task, DATA)
    expected = torch.zeros(1)
    for step, weight in enumerate(seen, 1):
        if step != 2:
            expected.lerp_(weight, 0.1)
    torch.testing.assert_close(average.average["w"], expected)
    assert "were not finite after 1 steps of epoch 0" in caplog.text


# --- parameters that come later ------------------------------------------------------------------


def grown(plugin):
    trainer = Trainer(epochs=3, plugins=[plugin])

    @trainer.on("epoch_start")
    def add(run):
        if run.epoch == 1:
            run.task.extra = nn.Parameter(torch.full((1,), 3.0))
            run.optimizer.add_param_group({"params": [run.task.extra]})

    return trainer.fit(Net({}), DATA, DATA)


def test_the_average_of_a_parameter_that_is_added_begins_with_it():
    average = EMA(0.9)
    assert grown(average).status == "completed"
    assert average.average["extra"].tolist() == [3.0]


def test_a_schedule_leaves_a_group_that_is_added_alone():
    schedule = Schedule(lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.5), per="epoch")
    run = grown(schedule)
    assert run.status == "completed"
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_a_run_whose_model_grew_does_not_go_on_with_a_smaller_one():
    grown(Checkpoint())
    with pytest.raises(CheckpointError, match="extra"):
        fit("checkpoint", maps={}, epochs=4)
