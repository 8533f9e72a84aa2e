"""What cannot be meant is told before it costs a run."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus import (
    Accelerator,
    SkipBatch,
    SkipStep,
    StopRun,
    Task,
    Trainer,
    UsageError,
    hookimpl,
)
from trainbus.engine.step import MAX_IDLE

PAIRS = TensorDataset(torch.randn(8, 4), torch.randn(8, 1))


def pairs(**options):
    return DataLoader(PAIRS, **{"batch_size": 4, **options})


# --- a step that is made twice -------------------------------------------------------------------


class Stepper:
    """Steps, and returns what its test says."""

    def __init__(self, result):
        self.result = result

    @hookimpl
    def optimizer_step(self, run):
        run.optimizer.step()
        return self.result


def test_a_listener_that_steps_and_returns_nothing_is_named(line, loader):
    with pytest.raises(UsageError, match=r"SGD has stepped 2 times for one step.*'stepper' listen"):
        Trainer(plugins=[Stepper(None)]).fit(line, loader)


def test_a_listener_that_steps_and_says_that_it_did_not_is_named(line, loader):
    with pytest.raises(UsageError, match="stepped 1 times for one step of the run"):
        Trainer(plugins=[Stepper(False)]).fit(line, loader)


def test_a_listener_that_steps_and_returns_true_is_right(line, loader):
    assert Trainer(plugins=[Stepper(True)]).fit(line, loader).global_step == 5


class ByItself(Task):
    """Calls its optimizer, or that of the run, and returns a loss."""

    def __init__(self, by_run):
        super().__init__()
        self.net = nn.Linear(4, 1)
        self.by_run = by_run

    def training_step(self, batch, run):
        loss = self.net(batch[0]).pow(2).mean()
        if self.by_run:
            run.backward(loss)
            run.optimizer_step(run.optimizer)
            return None
        loss.backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        return self.net(batch[0]).pow(2).mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_a_task_that_steps_by_itself_and_returns_a_loss_is_told(loader):
    with pytest.raises(UsageError, match=r"calls run.backward.loss. and run.optimizer_step"):
        Trainer().fit(ByItself(by_run=False), loader)


def test_a_task_that_steps_through_the_run_is_right(loader):
    assert Trainer().fit(ByItself(by_run=True), loader).global_step == 5


def test_after_the_first_steps_nobody_looks_any_more(line, loader):
    run = Trainer(epochs=2).fit(line, loader)
    assert run.stray is None
    assert not run.optimizer._optimizer_step_post_hooks


def test_nobody_looks_when_a_run_ended_early(line, loader):
    trainer = Trainer()
    trainer.on("train_batch_end")(lambda run: run.stop())
    assert not trainer.fit(line, loader).optimizer._optimizer_step_post_hooks


# --- a run in which no step is made --------------------------------------------------------------


@pytest.mark.parametrize(
    ("hook", "control"),
    [
        ("before_optimizer_step", SkipStep),
        ("train_batch_start", SkipBatch),
        ("after_loss", SkipBatch),
        ("after_backward", SkipStep),
    ],
)
def test_a_run_whose_steps_are_all_called_off_ends_and_names_who_did(line, hook, control):
    trainer = Trainer(max_steps=5, plugins=["-journal", "-manifest"])

    @trainer.on(hook)
    def veto(run):
        raise control

    run = trainer.fit(line, [next(iter(pairs()))] * 20)
    assert (run.status, run.global_step) == ("stopped", 0)
    assert run.stop_reason == (
        f"{MAX_IDLE} steps in a row were called off, the last one by plugin 'veto' (trainer.on)"
    )


def test_a_task_that_skips_each_batch_ends_the_run_and_is_named(make_line):
    class Picky(make_line):
        def training_step(self, batch, run):
            raise SkipBatch

    trainer = Trainer(max_steps=5, plugins=["-journal", "-manifest"])
    run = trainer.fit(Picky(), [next(iter(pairs()))] * 20)
    assert (run.status, run.global_step) == ("stopped", 0)
    assert "called off, the last one by the task Picky" in run.stop_reason


def test_a_window_that_a_stop_calls_off_before_its_step_is_made_again(line):
    trainer = Trainer(accumulate=2)

    @trainer.on("before_optimizer_step")
    def stop(run):
        if run.batch_index == 3:
            raise StopRun("enough")

    run = trainer.fit(line, list(pairs(batch_size=1)))
    assert (run.global_step, run.batches_done) == (1, 2)


def test_an_action_that_makes_no_step_ends_the_run_too(line):
    trainer = Trainer(max_steps=5, plugins=["-journal", "-manifest"])
    trainer.on("optimizer_step")(lambda run: False)
    run = trainer.fit(line, [next(iter(pairs()))] * 20)
    assert run.stop_reason.endswith("the last one by the action optimizer_step")


def test_one_step_in_between_is_enough(line):
    trainer = Trainer(max_steps=3, plugins=["-journal", "-manifest"])
    batches = []

    @trainer.on("before_optimizer_step")
    def veto(run):
        batches.append(1)
        if len(batches) % (MAX_IDLE // 2):
            raise SkipStep

    assert trainer.fit(line, [next(iter(pairs()))] * 20).global_step == 3


# --- several processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_several_processes_that_nobody_joins_are_refused(monkeypatch, line, loader, verb):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"WORLD_SIZE=2: a launcher .*unset WORLD_SIZE"):
        getattr(Trainer(), verb)(line, loader)


@pytest.mark.parametrize("told", ["1", "", "many"])
def test_one_process_is_no_matter(monkeypatch, line, loader, told):
    monkeypatch.setenv("WORLD_SIZE", told)
    assert Trainer().fit(line, loader).status == "completed"


# --- predictions that wait -----------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 2])
@pytest.mark.parametrize("verb", ["fit", "validate", "predict", "open"])
def test_predictions_that_wait_hold_up_no_other_run(line, loader, taken, verb):
    trainer = Trainer()
    predictions = trainer.predict(line, loader)
    for _ in range(taken):
        next(predictions)
    assert line.training
    if verb == "predict":
        assert len(list(trainer.predict(line, loader))) == 5
    elif verb == "open":
        with trainer.open(line) as run:
            assert run.status == "running"
    else:
        getattr(trainer, verb)(line, loader)
    assert line.training


def test_predictions_that_were_ended_say_so(line, loader):
    trainer = Trainer()
    predictions = trainer.predict(line, loader)
    next(predictions)
    trainer.validate(line, loader)
    with pytest.raises(UsageError, match="ended when their trainer began another run"):
        next(predictions)


def test_predictions_that_are_ended_fire_their_ends(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    predictions = trainer.predict(line, loader)
    next(predictions)
    trainer.validate(line, loader)
    assert events[: events.index("validation_start")].count("predict_end") == 1
    assert predictions is not None


def test_a_consumer_may_train_the_model_between_two_predictions(line, loader):
    for _ in Trainer().predict(line, loader):
        assert line.training
        line.eval()
        line.train()
    assert line.training


# --- loaders -------------------------------------------------------------------------------------


def is_refused_before_the_first_batch(task, place, loader, message):
    train, valid = (loader, None) if place == "train" else (pairs(), loader)
    started = []
    trainer = Trainer()
    trainer.on("train_batch_start")(lambda run: started.append(1))
    with pytest.raises(UsageError, match=message):
        trainer.fit(task, train, valid)
    assert not started


def test_a_list_of_batches_is_a_loader(line):
    assert Trainer().fit(line, list(pairs()), list(pairs())).global_step == 2


@pytest.mark.parametrize("loader", [3, None, object()])
def test_what_is_no_loader_is_told(line, loader):
    with pytest.raises(UsageError, match="give an iterable of batches"):
        Trainer().validate(line, loader)


@pytest.mark.parametrize("empty", [[], pairs(batch_size=64, drop_last=True)], ids=["list", "drop"])
@pytest.mark.parametrize("place", ["train", "valid"])
def test_a_loader_that_says_that_it_is_empty_is_told_before_the_first_batch(line, empty, place):
    is_refused_before_the_first_batch(line, place, empty, f"the {place} loader gave no batch")


# --- values and copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_trainer_is_not_copied(copied):
    with pytest.raises(UsageError, match="make another one of the same arguments"):
        copied(Trainer())


def logged(line, loader, value):
    trainer = Trainer()
    trainer.on("train_batch_end")(lambda run: run.log(value=value))
    return trainer.fit(line, loader)


def test_a_number_that_is_too_large_is_told_by_its_name(line, loader):
    with pytest.raises(UsageError, match=r"run.log\(train/value=...\): 10+... is too large"):
        logged(line, loader, 10**400)


@pytest.mark.parametrize(
    "value",
    [torch.ones(1).to_sparse(), torch.ones(1, 1).to_sparse(), torch.tensor(1.0).to_sparse()],
)
def test_a_sparse_tensor_of_one_number_is_logged(line, loader, value):
    assert logged(line, loader, value).metrics["train/value"] == 1.0


class Chip(Accelerator):
    name, priority = "chip", 50

    def __init__(self):
        super().__init__("cpu")


class Offers:
    @hookimpl
    def provide_accelerator(self):
        return Chip()


@pytest.mark.parametrize("asked", ["auto", "chip"])
def test_the_header_names_the_accelerator_with_its_device(line, loader, asked):
    run = Trainer(plugins=[Offers()], accelerator=asked).fit(line, loader)
    assert run.header["device"].startswith("chip, cpu (")
