"""Runs of every kind, which a plugin is to survive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from trainbus.engine.run import Run
from trainbus.engine.trainer import Trainer
from trainbus.errors import SkipBatch, SkipStep, StopEpoch
from trainbus.testing.bench import Bench


class Scenario(NamedTuple):
    """A kind of run; `records` says that it has something for a plugin that only logs."""

    play: Callable[[Bench], None]
    records: bool


class Mishap(Exception):
    """What goes wrong on purpose."""


#: By name, in the order in which they are tested.
SCENARIOS: dict[str, Scenario] = {}
_Play = Callable[[Bench], None]


def _scenario(name: str, records: bool = False) -> Callable[[_Play], _Play]:
    def add(play: _Play) -> _Play:
        SCENARIOS[name] = Scenario(play, records)
        return play

    return add


def _fits(name: str, records: bool = False, valid: bool = True, **settings: Any) -> None:
    """Add a fit to its end, by a trainer with these settings."""

    @_scenario(name, records)
    def play(lab: Bench) -> None:
        lab.fit(lab.trainer(**settings), valid=valid)
        lab.ended("completed")


_fits("fit", records=True)
_fits("validation inside epochs", validate_every=0.4)
_fits("no validation", valid=False)
_fits("accumulated batches", accumulate=2)
_fits("max_steps inside an epoch", epochs=None, max_steps=7)
_fits("a dry run", records=True, dry_run=2)


@_scenario("a loader without a length")
def _no_length(lab: Bench) -> None:
    batches = list(lab.loader())

    class Stream:
        def __iter__(self) -> Iterator[Any]:
            return iter(batches)

    lab.trainer().fit(lab.task(), Stream(), Stream())
    lab.ended("completed")


@_scenario("a task that steps by itself")
def _manual(lab: Bench) -> None:
    trainer = lab.trainer()

    @trainer.on("training_step")
    def step(run: Run) -> Any:
        loss = run.task.training_step(run.batch, run)
        run.backward(loss)
        run.optimizer_step()
        return loss.detach()

    lab.fit(trainer)
    lab.ended("completed")


@_scenario("test", records=True)
def _test(lab: Bench) -> None:
    lab.trainer().test(lab.task(), lab.loader())
    lab.ended("completed")


@_scenario("validate")
def _validate(lab: Bench) -> None:
    lab.trainer().validate(lab.task(), lab.loader())
    lab.ended("completed")


@_scenario("predict")
def _predict(lab: Bench) -> None:
    assert list(lab.trainer().predict(lab.task(), lab.loader()))
    lab.ended("completed")


@_scenario("predictions that are left")
def _left_predictions(lab: Bench) -> None:
    predictions = lab.trainer().predict(lab.task(), lab.loader())
    next(predictions)
    predictions.close()  # type: ignore[attr-defined]
    lab.ended("stopped")


@_scenario("a loop by hand", records=True)
def _by_hand(lab: Bench) -> None:
    task = lab.task()
    with lab.trainer().open(task) as run:
        for _ in run.epochs(2):
            for batch in run.batches(lab.loader()):
                run.step(task.training_step(batch, run))
            for batch in run.evaluation_batches(lab.loader()):
                run.output = task.validation_step(batch, run)
    lab.ended("completed")


@_scenario("a loop by hand that breaks off")
def _by_hand_broken(lab: Bench) -> None:
    task = lab.task()
    with lab.trainer(epochs=None, max_steps=10).open(task) as run:
        for batch in run.batches(lab.loader()):
            run.step(task.training_step(batch, run))
            if run.global_step == 2:
                break
        for _ in run.batches(lab.loader()):
            break
    lab.ended("completed")


@_scenario("a step that fails", records=True)
def _failing_step(lab: Bench) -> None:
    _fails_at(lab, "training_step", Mishap("this step fails"))


@_scenario("a validation that fails")
def _failing_validation(lab: Bench) -> None:
    _fails_at(lab, "validation_step", Mishap("this step fails"))


@_scenario("Ctrl-C twice")
def _interrupt_at_once(lab: Bench) -> None:
    _fails_at(lab, "training_step", KeyboardInterrupt())


def _fails_at(lab: Bench, action: str, error: BaseException) -> None:
    trainer = lab.trainer()

    @trainer.on(action)
    def fail(run: Run) -> None:
        if run.batch_index == 2:
            raise error

    caught = lab.fit_ending(trainer, type(error), f"in {action} of its third batch")
    if caught is not error:
        lab.subject.fail(f"made {error!r} of the run into {caught!r}")
    lab.ended("failed" if isinstance(error, Mishap) else "interrupted")


@_scenario("Ctrl-C", records=True)
def _interrupt(lab: Bench) -> None:
    trainer = lab.trainer()

    @trainer.on("train_batch_start")
    def ask(run: Run) -> None:
        if run.batch_index == 2:
            run.interrupt(KeyboardInterrupt())

    lab.fit_ending(trainer, KeyboardInterrupt, "after its third batch")
    lab.ended("interrupted")


@_scenario("skipped batches")
def _skipped_batches(lab: Bench) -> None:
    trainer = lab.trainer()
    for event, batch in {"train_batch_start": 1, "after_loss": 2, "after_backward": 3}.items():
        _raises_at(trainer, event, batch, SkipBatch)
    lab.fit(trainer)
    lab.ended("completed")


@_scenario("skipped steps")
def _skipped_steps(lab: Bench) -> None:
    trainer = lab.trainer(accumulate=2)
    _raises_at(trainer, "before_optimizer_step", 1, SkipStep)
    lab.fit(trainer)
    lab.ended("completed")


@_scenario("an epoch that is ended early")
def _stopped_epoch(lab: Bench) -> None:
    trainer = lab.trainer()
    _raises_at(trainer, "train_batch_end", 2, StopEpoch)
    _raises_at(trainer, "validation_batch_end", 2, StopEpoch)
    lab.fit(trainer)
    lab.ended("completed")


def _raises_at(trainer: Trainer, event: str, batch: int, control: type[Exception]) -> None:
    @trainer.on(event)
    def direct(run: Run) -> None:
        if run.batch_index == batch:
            raise control


@_scenario("a run that is stopped", records=True)
def _stopped_run(lab: Bench) -> None:
    trainer = lab.trainer()

    @trainer.on("after_optimizer_step")
    def stop(run: Run) -> None:
        if run.global_step == 3:
            run.stop("it is enough")

    lab.fit(trainer)
    lab.ended("stopped")


@_scenario("a run that fails before it begins", records=True)
def _no_start(lab: Bench) -> None:
    trainer = lab.trainer()

    @trainer.on("run_start", tryfirst=True)
    def fail() -> None:
        raise Mishap("this run does not begin")

    with pytest.raises(Mishap):
        lab.fit(trainer)
    lab.ended("failed")


@_scenario("several runs of one trainer", records=True)
def _several(lab: Bench) -> None:
    trainer = lab.trainer()
    lab.fit(trainer)
    with suppress(Mishap):
        _failing_fit(lab, trainer)
    trainer.test(lab.task(), lab.loader())
    lab.fit(trainer)
    lab.ended("completed", "failed", "completed", "completed")


def _failing_fit(lab: Bench, trainer: Trainer) -> None:
    class Failing:
        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[Any]:
            yield next(iter(lab.loader()))
            raise Mishap("the data is not there")

    trainer.fit(lab.task(), Failing())


@_scenario("a checkpoint that is saved and loaded")
def _checkpoint(lab: Bench) -> None:
    trainer = lab.trainer()
    saved: list[Path] = []

    @trainer.on("epoch_end", trylast=True)
    def save_and_load(run: Run) -> None:
        saved.append(run.dir / f"saved-{run.epoch}")
        run.save_checkpoint(saved[-1])

    @trainer.on("fit_end", tryfirst=True)
    def load(run: Run) -> None:
        run.load_checkpoint(saved[0])

    lab.fit(trainer)
    lab.ended("completed")


@_scenario("another thread")
def _thread(lab: Bench) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            lab.fit(lab.trainer())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    lab.ended("completed")
