"""What happens when gradients are no longer numbers."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus import PluginError, Task, TrainbusError, Trainer, UsageError, hookimpl
from trainbus.builtin import EMA, Checkpoint, Nonfinite, Schedule
from trainbus.checkpoints import archive


def data(bad=(), samples=10, size=2):
    """Batches of which some are not numbers."""
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1))
    y = x.sum(1, keepdim=True)
    for batch in bad:
        x[batch * size] = float("nan")
    return DataLoader(TensorDataset(x, y), batch_size=size)


def weight(task):
    return task.linear.weight.detach().clone()


def test_warn_costs_a_step_nothing_and_the_others_look_at_each():
    warn = Trainer(plugins=[Nonfinite()]).bus.order()
    skip = Trainer(plugins=[Nonfinite(mode="skip")]).bus.order()
    assert "on_before_optimizer_step" not in warn
    assert skip["on_before_optimizer_step"] == ["nonfinite"]


def test_stop_keeps_the_last_good_weights(line):
    seen = {}
    trainer = Trainer(plugins=[Nonfinite("stop"), Checkpoint()])
    trainer.on("train_batch_end")(lambda run: seen.update({run.batch_index: weight(run.task)}))
    run = trainer.fit(line, data(bad=[2]))
    assert (run.status, run.global_step) == ("stopped", 2)
    assert run.stop_reason == "the gradients hold nan at step 2"
    assert torch.equal(weight(line), seen[1])
    saved = archive.newest_valid(run.dir / "checkpoints")
    assert torch.equal(archive.read(saved)["model"]["linear.weight"], seen[1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_skip_ends_where_a_run_without_the_bad_step_does(make_line, accumulate):
    good, bad = make_line(), make_line()
    good.load_state_dict(bad.state_dict())
    batches = list(data(bad=[2], samples=12))
    leave = {1: [2], 2: [2, 3]}[accumulate]
    run = Trainer(plugins=[Nonfinite("skip")], accumulate=accumulate).fit(bad, batches)
    clean = [batch for index, batch in enumerate(batches) if index not in leave]
    Trainer(accumulate=accumulate).fit(good, clean)
    assert run.skipped_steps == 1
    assert torch.equal(weight(good), weight(bad))


def test_skipping_is_told_once_and_ends_when_nothing_else_happens(line, caplog):
    trainer = Trainer(epochs=9, plugins=[Nonfinite("skip", limit=3)])
    with pytest.raises(TrainbusError, match="hold nan at step 1, after 3 skipped steps in a row"):
        trainer.fit(line, data(bad=[1, 2, 3, 4]))
    assert caplog.text.count("are skipped") == 1
    assert torch.isfinite(weight(line)).all()


def test_restore_returns_to_the_checkpoint_and_the_data_goes_on(line, caplog):
    seen, restored = [], {}
    trainer = Trainer(plugins=[Nonfinite("restore"), Checkpoint(every_steps=2, keep_last=9)])
    trainer.on("train_batch_start")(lambda run: seen.append((run.batch_index, run.global_step)))

    @trainer.on("checkpoint_loaded")
    def compare(run, path):
        expected = archive.read(path)["model"]["linear.weight"]
        restored[path.name] = torch.equal(weight(run.task), expected)

    run = trainer.fit(line, data(bad=[3]))
    assert restored == {"step-00000002": True}
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 2)], "back one step, on by one batch"
    assert (run.epoch, run.global_step, run.skipped_steps) == (1, 3, 1)
    assert "the run returns to" in caplog.text


def test_restore_takes_optimizer_schedule_and_average_along(line):
    ema = EMA()
    schedule = Schedule(name="one_cycle")
    trainer = Trainer(plugins=[Nonfinite("restore"), ema, schedule, Checkpoint(every_steps=1)])
    rates, updates = {}, {}

    @trainer.on("train_batch_end", trylast=True)
    def note(run):
        rates.setdefault(run.batch_index, (run.global_step, run.optimizer.param_groups[0]["lr"]))
        updates[run.batch_index] = ema.updates

    trainer.fit(line, data(bad=[3]))
    assert rates[3] == rates[2]
    assert updates[3] == updates[2]


def test_a_run_that_returned_resumes_with_the_same_bits(make_line):
    def run(stop_at=None, resume=None, run_dir="whole"):
        torch.manual_seed(0)
        task = make_line(dropout=0.5)
        keep = Checkpoint(every_steps=2)
        trainer = Trainer(epochs=2, seed=1, run_dir=run_dir, plugins=[Nonfinite("restore"), keep])

        @trainer.on("train_batch_end", before=["checkpoint"])
        def stop(run):
            if (run.epoch, run.batch_index) == stop_at:
                run.stop()

        trainer.fit(task, data(bad=[3]), resume=resume)
        return weight(task)

    expected = run()
    run(stop_at=(0, 4), run_dir="broken")
    assert torch.equal(run(resume="auto", run_dir="broken"), expected)


def test_restore_gives_up_when_it_gets_no_further(line):
    guard = Nonfinite("restore", limit=2)
    trainer = Trainer(epochs=9, plugins=[guard, Checkpoint(every_steps=1)])
    with pytest.raises(TrainbusError, match=r"after 2 returns .* no further than step 1"):
        trainer.fit(line, data(bad=[1, 2, 3, 4]))


def test_restore_without_a_checkpoint_yet_skips(line, caplog):
    trainer = Trainer(plugins=[Nonfinite("restore"), Checkpoint()])
    run = trainer.fit(line, data(bad=[0]))
    assert (run.global_step, run.skipped_steps) == (4, 1)
    assert "there is no checkpoint yet" in caplog.text


def test_restore_needs_checkpoints(line):
    with pytest.raises(UsageError, match=r'add "checkpoint" to the plugins'):
        Trainer(plugins=[Nonfinite("restore")]).fit(line, data())


def test_only_the_optimizer_with_the_bad_gradients_is_skipped():
    class Two(Task):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(4, 1), nn.Linear(4, 1)

        def training_step(self, batch, run):
            x, y = batch
            for part, optimizer in zip((self.one, self.other), run.optimizers, strict=True):
                value = x.nan_to_num() if part is self.other else x
                run.backward(functional.mse_loss(part(value), y), optimizer)
                run.optimizer_step(optimizer)

        def configure_optimizer(self):
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.one, self.other)]

    task = Two()
    run = Trainer(plugins=[Nonfinite("skip")]).fit(task, data(bad=[2]))
    assert run.skipped_steps == 1
    assert run.global_step == 5
    assert all(torch.isfinite(p).all() for p in task.parameters())


class Pair(Task):
    """Two lines, each with an optimizer of its own; `bad` says whose loss is not a number."""

    def __init__(self, bad):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        self.bad = bad

    def training_step(self, batch, run):
        for number, (part, optimizer) in enumerate(zip(self.parts, run.optimizers, strict=True)):
            loss = part(torch.ones(2, 4)).mean()
            bad = number in self.bad and run.batch_index >= 2
            run.backward(loss * (float("nan") if bad else 1.0), optimizer)
            run.optimizer_step(optimizer)

    def configure_optimizer(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in self.parts]


def test_the_limit_counts_each_optimizer():
    with pytest.raises(TrainbusError, match="after 3 skipped steps in a row"):
        Trainer(plugins=[Nonfinite("skip", limit=3)]).fit(Pair(bad=[0]), [1] * 9)


def test_a_bad_batch_is_one_return_whoever_was_bad():
    loaded = []
    trainer = Trainer(plugins=[Nonfinite("restore", limit=1), Checkpoint(every_steps=1)])
    trainer.on("checkpoint_loaded")(lambda path: loaded.append(path.name))
    trainer.fit(Pair(bad=[0, 1]), [1] * 3)
    assert loaded == ["step-00000002"]


def test_a_bad_step_at_the_end_of_a_pass_of_unknown_length_returns_too(line):
    batches = list(data(bad=[4]))
    loaded = []
    trainer = Trainer(accumulate=2, plugins=[Nonfinite("restore"), Checkpoint(every_steps=1)])
    trainer.on("checkpoint_loaded")(lambda path: loaded.append(path.name))
    trainer.fit(line, iter(batches))
    assert loaded == ["step-00000002"]


def test_steps_that_were_taken_back_do_not_count():
    task = Pair(bad=[])

    class Once:
        @hookimpl
        def on_train_batch_start(self, run):
            run.task.bad = [1] if run.batch_index == 3 else []

    trainer = Trainer(
        max_steps=4, plugins=[Nonfinite("restore"), Checkpoint(every_steps=2), Once()]
    )
    run = trainer.fit(task, [1] * 9)
    assert (run.global_step, run.status) == (4, "completed")
    assert task.parts[1].weight.isfinite().all()
    assert run.batch_index > 3, "it went on until four steps stood"


def test_a_copy_guards_as_the_original_does():
    copied = copy.deepcopy(Nonfinite("skip"))
    assert Trainer(plugins=[copied]).bus.order()["on_before_optimizer_step"] == ["nonfinite"]


def test_large_finite_gradients_are_no_reason():
    class Steep(Task):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def training_step(self, batch, run):
            return (self.weight * 1e30).sum()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=1e-30)

    assert Trainer(plugins=[Nonfinite("stop")]).fit(Steep(), [1]).status == "completed"


def test_sparse_gradients_are_looked_at():
    class Sparse(Task):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 2, sparse=True)

        def training_step(self, batch, run):
            return (self.table(batch) * (float("inf") if run.batch_index else 1.0)).sum()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    run = Trainer(plugins=[Nonfinite("skip")]).fit(Sparse(), [torch.tensor([1, 2])] * 2)
    assert (run.global_step, run.skipped_steps) == (1, 1)


@pytest.mark.parametrize(
    ("options", "says"), [({"mode": "ignore"}, "'restore'"), ({"limit": 0}, "least 1")]
)
def test_options_that_cannot_work_are_refused(options, says):
    with pytest.raises(PluginError, match=says):
        Nonfinite(**options)


def test_the_mode_can_be_given_as_an_option(line, monkeypatch, caplog):
    monkeypatch.setenv("TRAINBUS_NONFINITE_MODE", "skip")
    with caplog.at_level(logging.WARNING):
        run = Trainer().fit(line, data(bad=[2]))
    assert run.skipped_steps == 1
