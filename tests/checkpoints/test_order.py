"""Which state is the newest: by a count of states, whatever the clocks say; and only whole ones."""

import datetime
import json
import shutil
from pathlib import Path

import pytest
import torch

from trainbus import CheckpointError, Trainer, hookimpl
from trainbus.builtin import EMA, Checkpoint
from trainbus.checkpoints import archive
from trainbus.storage import run_dir
from trainbus.testing import Line, make_line_loader


class Clock(datetime.datetime):
    """A clock that can be set."""

    shift = datetime.timedelta(0)

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.now(tz) + cls.shift


@pytest.fixture
def clock(monkeypatch):
    for module in (archive, run_dir):
        monkeypatch.setattr(module, "datetime", Clock)
    monkeypatch.setattr(Clock, "shift", datetime.timedelta(0))
    return Clock


def test_a_clock_that_is_set_back_in_a_run_changes_nothing(clock):
    trainer = Trainer(epochs=3, plugins=[Checkpoint(keep_last=3)])

    @trainer.on("epoch_start")
    def set_back(run):
        clock.shift = -datetime.timedelta(hours=run.epoch)

    trainer.fit(Line(), make_line_loader(4))
    starts = []
    trainer = Trainer(epochs=4, plugins=["checkpoint"])
    trainer.on("epoch_start")(lambda run: starts.append(run.epoch))
    trainer.fit(Line(), make_line_loader(4), resume="auto")
    assert starts == [3]


@pytest.mark.parametrize("kind", ["auto", "best"])
def test_of_several_runs_it_is_the_one_that_saved_last(clock, kind):
    def trainer(epochs):
        return Trainer(epochs=epochs, plugins=[Checkpoint(monitor="valid/loss")])

    loader = make_line_loader(4)
    trainer(1).fit(Line(), loader, loader)
    clock.shift = -datetime.timedelta(hours=5)
    second = trainer(2).fit(Line(), loader, loader)
    run = trainer(3).fit(Line(), loader, loader, resume=kind)
    assert run.resume_path.resolve().is_relative_to(second.dir.resolve())


def test_the_count_rises_with_each_state_of_each_run():
    for _ in range(2):
        Trainer(epochs=2, plugins=[Checkpoint(keep_last=9)]).fit(Line(), make_line_loader(3))
    found = sorted(
        json.loads(path.read_text())["about"]["order"] for path in Path().rglob("manifest.json")
    )
    assert found == [1, 2, 3, 4]


def test_a_run_that_was_set_back_goes_on_from_there():
    loader = make_line_loader(3)
    first = Trainer(epochs=3, plugins=[Checkpoint(keep_last=9)]).fit(Line(), loader)
    Trainer(epochs=2, plugins=[Checkpoint(keep_last=9)]).fit(
        Line(), loader, resume=first.dir / "checkpoints" / "step-00000003"
    )
    path = archive.newest_valid(first.dir / "checkpoints")
    assert path is not None
    assert path.name == "step-00000006"


class Fragile:
    """A plugin whose state cannot be taken up, for a while."""

    plugin_name = "fragile"
    broken = False

    @hookimpl
    def on_epoch_end(self):
        pass

    def state_dict(self):
        return {"n": 1}

    def load_state_dict(self, state):
        if self.broken:
            raise KeyError("renamed")


def test_a_run_that_was_restored_by_half_saves_no_state():
    def fit(where, epochs, broken=False, resume=None):
        average, fragile = EMA(decay=0.9), Fragile()
        fragile.broken = broken
        trainer = Trainer(
            epochs=epochs, plugins=[fragile, average, "checkpoint"], seed=1, run_dir=where
        )
        torch.manual_seed(0)
        trainer.fit(Line(), make_line_loader(4), resume=resume)
        return average.average

    def states():
        return sorted(path.name for path in Path().glob("cut/*/checkpoints/*-*"))

    whole = fit("whole", 3)
    fit("cut", 2)
    before = states()
    with pytest.raises(CheckpointError, match="fragile"):
        fit("cut", 3, broken=True, resume="auto")
    assert states() == before
    again = fit("cut", 3, resume="auto")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize(("step", "expected"), [(4, "step-00000004"), (5, "exception-00000004")])
def test_an_ordinary_state_goes_before_that_of_an_exception_at_the_same_step(step, expected):
    run = Trainer(plugins=["checkpoint"]).fit(Line(), make_line_loader(4))
    ordinary = run.dir / "checkpoints" / "step-00000004"
    later = shutil.copytree(ordinary, ordinary.with_name("exception-00000004"))
    manifest = json.loads((later / "manifest.json").read_text())
    manifest["about"].update(order=2, status="failed", global_step=step)
    (later / "manifest.json").write_text(json.dumps(manifest))
    assert archive.newest_valid(ordinary.parent).name == expected


def test_names_of_runs_tell_the_time_in_utc():
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    run = Trainer(plugins=["checkpoint"]).fit(Line(), make_line_loader(2))
    time = datetime.datetime.strptime(run.dir.name.split("Z_")[0], "%Y-%m-%d_%H-%M-%S")
    assert before <= time.replace(tzinfo=datetime.UTC) <= datetime.datetime.now(datetime.UTC)
