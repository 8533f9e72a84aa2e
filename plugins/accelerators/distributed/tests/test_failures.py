"""Whoever wants to end, all end at the same step; whoever fails is named."""

import os
import signal
import time

import pytest

from trainbus import StopEpoch, StopRun, TrainbusError, Trainer, hookimpl
from trainbus.builtin import Checkpoint
from trainbus.testing.processes import RankFailed, ranks
from trainbus_distributed import Distributed

from .conftest import Small, fit, loader


class At:
    """Does something at one step of one process."""

    def __init__(self, what, rank=1, step=4):
        self.what, self.rank, self.step = what, rank, step

    @hookimpl
    def on_train_batch_end(self, run):
        if run.rank == self.rank and run.global_step == self.step:
            self.what(run)


def _ends(what, plugins=(), **options):
    def train():
        try:
            told = fit(Small(), loader(400), plugins=[At(what), Checkpoint(), *plugins], **options)
        except (SystemExit, KeyboardInterrupt) as end:
            return type(end).__name__, getattr(end, "code", None)
        return told["status"], told["steps"], told["digest"]

    first, second = ranks(2, train)
    assert first == second
    return first


def test_a_stop_of_one_is_a_stop_of_all():
    status, steps, _ = _ends(lambda run: run.stop("enough"), epochs=20)
    assert status == "stopped"
    assert 4 <= steps < 4 + 70


def test_a_listener_of_one_that_raises_stop():
    def stop(run):
        raise StopRun("enough")

    assert _ends(stop, epochs=20)[0] == "stopped"


def test_sigterm_to_one_ends_all_with_one_state_and_its_exit_status():
    from pathlib import Path

    assert _ends(lambda run: os.kill(os.getpid(), signal.SIGTERM), epochs=20) == ("SystemExit", 143)
    (states,) = Path("runs").glob("*/checkpoints")
    assert len([each for each in states.iterdir() if each.name.startswith("step-")]) == 1


def test_ctrl_c_to_one_ends_all():
    end = _ends(lambda run: os.kill(os.getpid(), signal.SIGINT), epochs=20)
    assert end == ("KeyboardInterrupt", None)


def test_time_that_is_over_in_one_is_over_for_all():
    status, steps, _ = _ends(lambda run: time.sleep(1.2), epochs=200, max_time=1.0)
    assert status == "completed"
    assert steps < 300


def test_an_epoch_that_one_ends_is_ended_by_all():
    def stop(run):
        raise StopEpoch

    status, steps, _ = _ends(stop, epochs=2)
    assert status == "completed"
    assert steps < 100  # two whole epochs


@pytest.mark.slow
def test_early_stopping_is_by_the_metric_of_all():
    def train():
        trainer = Trainer(epochs=30, seed=1, plugins=[Distributed(), "early_stopping", "-journal"])
        run = trainer.fit(Small(), loader(40), loader(12))
        return run.status, run.epoch, run.metrics["valid/loss"]

    first, second = ranks(2, train)
    assert first == second


def test_validation_by_the_clock_is_at_the_same_step():
    def train():
        made = []

        class Note:
            @hookimpl
            def on_validation_end(self, run):
                made.append(run.global_step)
                time.sleep(0.01 * run.rank)

        fit(Small(), loader(800), loader(12), [Note()], epochs=3, validate_every="0.2 s")
        return made

    first, second = ranks(2, train)
    assert first == second
    assert first


@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_of_one_ends_all_and_is_told_by_all(rank):
    def fail(run):
        raise ValueError("a bad batch")

    def train():
        started = time.monotonic()
        try:
            fit(Small(), loader(400), plugins=[At(fail, rank)])
        except ValueError:
            assert Distributed().provide_peers().rank == rank
            raise
        except TrainbusError as error:
            assert "a bad batch" in str(error)
            assert f"rank {rank} failed" in str(error)
            assert "in fail" in str(error)  # its own traceback
            return time.monotonic() - started
        raise AssertionError("nothing was raised")

    told = ranks(2, train, survive=True)
    assert "ValueError: a bad batch" in told[rank]
    assert told[1 - rank] < 10, told[1 - rank]


def test_a_process_that_is_killed_ends_the_others():
    def train():
        fit(Small(), loader(400), plugins=[At(lambda run: os.kill(os.getpid(), signal.SIGKILL))])

    started = time.monotonic()
    told = ranks(2, train, survive=True)
    assert "exit code -9" in told[1]
    assert "another process of this run is gone" in told[0]
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_who_does_not_come_is_named_and_where_it_is():
    def dawdle(run):
        if run.rank == 1:
            time.sleep(5)

    def train():
        trainer = Trainer(epochs=1, plugins=[Distributed(timeout=2.5), At(dawdle)])
        trainer.fit(Small(), loader(400))

    told = ranks(2, train, survive=True)
    assert "rank 1 has not come" in told[0]
    assert "in dawdle" in told[0]
    assert "step 4" in told[0]


def test_a_disk_that_is_full_for_the_first_is_an_error_in_all(monkeypatch):
    from trainbus.checkpoints import archive

    def full(*arguments):
        raise archive.CheckpointError("cannot write the checkpoint: no space left")

    monkeypatch.setattr(archive, "write", full)

    def train():
        with pytest.raises(TrainbusError, match="no space left"):
            fit(Small(), loader(40), plugins=[Checkpoint()])

    ranks(2, train)


def test_a_disk_that_is_full_may_be_gone_on_with(monkeypatch):
    from trainbus.checkpoints import archive

    def full(*arguments):
        raise archive.CheckpointError("cannot write the checkpoint: no space left")

    monkeypatch.setattr(archive, "write", full)
    first, second = ranks(
        2, lambda: fit(Small(), loader(40), plugins=[Checkpoint(on_error="warn")])["status"]
    )
    assert first == second == "completed"


def test_the_first_that_failed_is_named_by_the_test_helper():
    with pytest.raises(RankFailed, match="rank 1"):
        ranks(2, _fails)


def _fails():
    if os.environ["RANK"] == "1":
        raise ValueError("no")
