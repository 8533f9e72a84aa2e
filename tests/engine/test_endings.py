"""However and wherever a run ends, the one that goes on from it equals a run left alone."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from trainbus import JournalFile, StopEpoch, StopRun, Task, Trainer, hookimpl
from trainbus.builtin import EMA, Checkpoint, Schedule

BATCHES, EPOCHS = 4, 3
VALID = [(torch.ones(2, 2), torch.ones(2, 1))]


class Net(Task):
    """Random in what it reads, drops and counts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.register_buffer("epochs_counted", torch.zeros(()))

    def _loss(self, batch):
        return (self.net(batch[0]) - batch[1]).pow(2).mean()

    def training_step(self, batch, run):
        loss = self._loss(batch)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        run.log(loss=self._loss(batch))

    def configure_optimizer(self):
        self.optimizer = torch.optim.Adam(self.net.parameters(), 0.05)
        self.decay = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
        return self.optimizer

    @hookimpl(trylast=True)
    def on_epoch_end(self, run):
        if run.epochs_done > run.epoch:  # as docs/loops.md has it
            self.decay.step()
        self.epochs_counted += 1


class Ends:
    """Counts how often things ended, and keeps that."""

    def __init__(self):
        self.counts = {}

    def _count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    @hookimpl
    def on_train_epoch_end(self):
        self._count("train_epoch")

    @hookimpl(wrapper=True)
    def on_epoch_end(self):
        yield
        self._count("epoch")

    @hookimpl(tryfirst=True)
    def on_validation_end(self):
        self._count("validation")

    def state_dict(self):
        return dict(self.counts)

    def load_state_dict(self, state):
        self.counts = dict(state)


def half_each_third_step(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 3, gamma=0.5)


def kill_in_epoch_1(run):
    if run.epoch == 1:
        raise Killed


def loader():
    data = torch.utils.data.TensorDataset(torch.randn(8, 2), torch.zeros(8, 1))
    generator = torch.Generator().manual_seed(5)
    return torch.utils.data.DataLoader(data, 2, shuffle=True, generator=generator)


class Run:
    """Fits of the same thing, one after the other, and what came of them."""

    def __init__(self, directory, **options):
        self.directory, self.options = directory, options

    def fit(self, end=None, every_steps=None, killed_in=None, **options):
        torch.manual_seed(0)
        task, train, ends = Net(), loader(), Ends()
        keep = Checkpoint("valid/loss", keep_last=2, every_steps=every_steps)
        plugins = [keep, EMA(0.9), Schedule(half_each_third_step), ends]
        wanted = {"epochs": EPOCHS, **self.options, **options}
        trainer = Trainer(seed=7, run_dir=self.directory, plugins=plugins, **wanted)
        if end is not None:
            hook, function = end
            trainer.on(hook)(function)
        if killed_in is not None:
            trainer.on(killed_in)(kill_in_epoch_1)
        run = trainer.fit(task, train, VALID, resume="auto")
        with JournalFile.open(run.dir / "journal.db") as journal:
            series = {
                name: list(zip(s.steps, s.values, strict=True))
                for name in ("train/loss", "train/loss_epoch", "train/lr", "valid/loss")
                for s in [journal.series(name)]
            }
        weights = {name: value.tolist() for name, value in task.state_dict().items()}
        rate = task.optimizer.param_groups[0]["lr"]
        best = [name for _, name in keep.best]
        return weights, rate, series, ends.counts, best, run.global_step, run.epoch


def at(moment, act, epoch=1):
    """A listener that acts once, in an epoch: (hook, number of the batch or None)."""
    hook, batch = moment
    done = []

    def listener(run):
        right_batch = batch is None or run.batch_index == batch
        if not done and run.epoch == epoch and right_batch:
            done.append(True)
            act(run)

    return hook, listener


def stop(run):
    run.stop("enough")


def raise_stop(run):
    raise StopRun("enough")


def interrupt(run):
    run.interrupt(KeyboardInterrupt())


MOMENTS = {
    "the epoch's start": ("epoch_start", None),
    "the pass's start": ("train_epoch_start", None),
    "the first batch": ("train_batch_end", 0),
    "before a step": ("after_backward", 1),
    "a batch's start": ("train_batch_start", 2),
    "the last batch": ("train_batch_end", BATCHES - 1),
    "the pass's end": ("train_epoch_end", None),
    "the validation's start": ("validation_start", None),
    "inside the validation": ("validation_batch_end", 0),
    "the validation's end": ("validation_end", None),
    "the epoch's end": ("epoch_end", None),
}


def ended(run, end):
    with contextlib.suppress(KeyboardInterrupt):
        run.fit(end=end)


@pytest.mark.parametrize("act", [stop, raise_stop, interrupt], ids=lambda act: act.__name__)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"accumulate": 3}, id="accumulate", marks=pytest.mark.slow),
        pytest.param({"validate_every": 0.5}, id="half epochs", marks=pytest.mark.slow),
        pytest.param({"validate_every": 2}, id="every second", marks=pytest.mark.slow),
        pytest.param({"validate_every": "3 steps"}, id="three steps", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_ended_goes_on_as_one_left_alone(tmp_path, moment, act, options):
    alone = Run(tmp_path / "alone", **options).fit()
    twice = Run(tmp_path / "twice", **options)
    ended(twice, at(MOMENTS[moment], act))

    assert twice.fit() == alone


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(step, marks=[] if step in (4, 6) else pytest.mark.slow)
        for step in range(1, BATCHES * EPOCHS)
    ],
)
@pytest.mark.parametrize("every", [1, 2, 0.5, "3 steps"])
def test_a_run_whose_steps_were_limited_goes_on_as_one_left_alone(tmp_path, steps, every):
    alone = Run(tmp_path / "alone", validate_every=every).fit()
    twice = Run(tmp_path / "twice", validate_every=every)
    twice.fit(max_steps=steps)

    assert twice.fit() == alone


@pytest.mark.parametrize("every", [1, 2, 3, 0.5, "3 steps"])
def test_a_run_that_gets_more_epochs_goes_on_as_one_left_alone(tmp_path, every):
    alone = Run(tmp_path / "alone", validate_every=every).fit()
    again = Run(tmp_path / "again", validate_every=every)
    for epochs in (1, 2):
        again.fit(epochs=epochs)

    assert again.fit() == alone


@pytest.mark.parametrize("batch", range(BATCHES))
def test_an_epoch_that_was_stopped_stays_stopped_when_the_run_is_killed_with_it(tmp_path, batch):
    def stop_epoch(run):
        raise StopEpoch

    alone = Run(tmp_path / "alone")
    whole = alone.fit(end=at(("train_batch_end", batch), stop_epoch))
    twice = Run(tmp_path / "twice")
    # The state of this very batch is the last one that is there.
    end = at(("train_batch_end", batch), stop_epoch)
    with contextlib.suppress(Killed):
        twice.fit(end=end, every_steps=1, killed_in="train_epoch_end")

    assert twice.fit() == whole


class Killed(BaseException):
    """Nobody catches it, and nothing is saved for it."""


@pytest.mark.parametrize("step", [1, 4, 6, 8])
def test_a_run_that_was_killed_goes_on_as_one_left_alone(tmp_path, step):
    def kill(run):
        if run.global_step == step:
            raise Killed

    alone = Run(tmp_path / "alone").fit()
    twice = Run(tmp_path / "twice")
    with contextlib.suppress(Killed):
        twice.fit(end=("train_batch_end", kill))

    assert twice.fit() == alone
