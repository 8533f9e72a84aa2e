"""A step has one value, whoever reads it meanwhile; what is skipped has none."""

import math

import pytest
import torch
from torch import nn

from trainbus import JournalFile, SkipBatch, SkipStep, Task, Trainer
from trainbus.builtin import Nonfinite

DATA = [torch.full((2, 1), float(i)) for i in range(8)]
HOOKS = [
    "train_batch_start", "after_loss", "after_backward", "before_optimizer_step",
    "after_optimizer_step", "train_batch_end",
]  # fmt: skip


class Net(Task):
    """Logs the mean of each batch; `act(run)` is called after that."""

    def __init__(self, act=None):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.act = act

    def training_step(self, batch, run):
        run.log(value=batch.mean())
        if self.act is not None:
            self.act(run)
        return (self.w * batch).mean()

    def validation_step(self, batch, run):
        run.log(value=batch.mean())
        if self.act is not None:
            self.act(run)

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def values(run, name="train/value"):
    with JournalFile.open(run.dir / "journal.db") as journal:
        steps, _, found = journal.series(name)
    return list(zip(map(int, steps), found, strict=True))


def raise_in(hook, control, batches):
    def make(trainer):
        @trainer.on(hook)
        def leave_out(run):
            if run.batch_index in batches:
                raise control

        return trainer

    return make


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("read", ["metrics", "flush"])
def test_a_window_has_one_value_whoever_reads_it_meanwhile(hook, read):
    trainer = Trainer(accumulate=4)

    @trainer.on(hook)
    def look(run):
        run.metrics if read == "metrics" else run.flush()

    run = trainer.fit(Net(), DATA)
    assert values(run) == [(1, 1.5), (2, 5.5)]
    assert run.metrics["train/value_epoch"] == 3.5


def test_a_window_has_one_value_where_the_step_reads_it():
    seen = []
    run = Trainer(accumulate=4).fit(Net(lambda run: seen.append(run.metrics["train/value"])), DATA)
    assert values(run) == [(1, 1.5), (2, 5.5)]
    assert seen == [0, 0.5, 1, 1.5, 4, 4.5, 5, 5.5]


@pytest.mark.parametrize("hook", HOOKS[1:])
def test_a_value_that_is_read_in_its_own_step_is_that_of_the_step(hook):
    seen = []
    trainer = Trainer()
    trainer.on(hook)(lambda run: seen.append(run.metrics["train/value"]))
    run = trainer.fit(Net(), DATA)
    assert seen == [float(i) for i in range(8)]
    assert values(run) == [(i + 1, float(i)) for i in range(8)]


def test_a_validation_in_the_middle_of_a_window_leaves_its_value_whole():
    trainer = Trainer(accumulate=4)

    @trainer.on("train_batch_end")
    def validate(run):
        if run.batch_index == 1:
            for batch in run.evaluation_batches(DATA[6:]):
                run.task.validation_step(batch, run)

    run = trainer.fit(Net(), DATA)
    assert values(run) == [(1, 1.5), (2, 5.5)]
    assert [value for _, value in values(run, "valid/value")] == [6.5]


@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("hook", ["after_loss", "after_backward"])
def test_a_skipped_batch_has_no_value(hook, read):
    act = (lambda run: run.metrics) if read else None
    run = raise_in(hook, SkipBatch, [1])(Trainer()).fit(Net(act), DATA[:3])
    assert values(run) == [(1, 0.0), (2, 2.0)]
    assert run.metrics["train/value_epoch"] == 1.0


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_batch_that_is_skipped_in_a_window_leaves_the_values_of_the_others(batch):
    run = raise_in("after_loss", SkipBatch, [batch])(Trainer(accumulate=3)).fit(Net(), DATA[:3])
    others = [value for value in range(3) if value != batch]
    assert values(run) == [(1, sum(others) / 2)]


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_a_batch_that_the_task_skips_in_a_window_has_no_value(batch):
    def skip(run):
        assert run.metrics
        if run.batch_index == batch:
            raise SkipBatch

    run = Trainer(accumulate=3).fit(Net(skip), DATA[:3])
    others = [value for value in range(3) if value != batch]
    assert values(run) == [(1, sum(others) / 2)]


def test_a_skipped_step_has_no_value():
    run = raise_in("before_optimizer_step", SkipStep, [1])(Trainer()).fit(Net(), DATA[:3])
    assert values(run) == [(1, 0.0), (2, 2.0)]
    assert run.metrics["train/value_epoch"] == 1.0


def test_a_skipped_step_of_a_window_has_no_value():
    trainer = Trainer(accumulate=2)
    run = raise_in("before_optimizer_step", SkipStep, [3])(trainer).fit(Net(), DATA)
    assert values(run) == [(1, 0.5), (2, 4.5), (3, 6.5)]


def test_a_step_that_an_action_calls_off_has_no_value():
    trainer = Trainer()

    @trainer.on("optimizer_step")
    def overflow(run):
        return False if run.batch_index == 1 else None

    assert values(trainer.fit(Net(), DATA[:3])) == [(1, 0.0), (2, 2.0)]


def test_what_nonfinite_leaves_out_has_no_value():
    class Broken(Net):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            return loss * (math.nan if run.batch_index == 1 else 1)

    run = Trainer(plugins=[Nonfinite("skip")]).fit(Broken(), DATA[:3])
    assert values(run) == [(1, 0.0), (2, 2.0)]


def test_a_validation_batch_that_is_skipped_has_no_value():
    def skip(run):
        if run.stage == "valid" and run.batch_index == 1:
            raise SkipBatch

    assert Trainer().validate(Net(skip), DATA[:3]) == {"valid/value": 1.0}
