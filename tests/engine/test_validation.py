"""Passes without training: what they compute, and that they leave no trace."""

import random
import time
from datetime import timedelta

import numpy
import pytest
import torch
from torch import nn

from trainbus import StopRun, Task, Trainer, UsageError


class Noisy(Task):
    """Draws from every random generator in validation."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.norm = nn.BatchNorm1d(4)
        self.norm.eval()

    def training_step(self, batch, run):
        return self.linear(batch[0]).mean()

    def validation_step(self, batch, run):
        random.random(), numpy.random.rand(), torch.rand(1)
        self.seen = (self.training, self.norm.training, torch.is_grad_enabled(), run.stage)

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def draws():
    return random.random(), numpy.random.rand(), torch.rand(1).item()


def test_validation_gives_back_random_states_modes_and_gradients(make_loader):
    after = []
    for valid in (None, make_loader(2, shuffle=True)):
        trainer = Trainer(seed=3)
        task = Noisy()

        @trainer.on("epoch_end")
        def note(run):
            after.append((draws(), run.task.training, torch.is_grad_enabled(), run.stage))

        trainer.fit(task, make_loader(2), valid)
    assert after[0] == after[1]
    assert after[0][1:] == (True, True, "train")
    assert task.seen == (False, False, False, "valid")


def test_validation_gives_back_the_mode_of_each_module(make_loader):
    task = Noisy()
    modes = []
    trainer = Trainer(validate_every=0.5)

    @trainer.on("train_batch_end")
    def freeze(run):
        run.task.norm.eval()

    @trainer.on("train_batch_start")
    def note(run):
        modes.append((run.task.linear.training, run.task.norm.training))

    trainer.fit(task, make_loader(4), make_loader(1))
    assert modes[1:] == [(True, False)] * 3


def test_what_validation_changed_is_put_back_after_an_error(make_line, make_loader):
    class Broken(make_line):
        def validation_step(self, batch, run):
            raise RuntimeError("broken")

    task = Broken()
    task.train()
    with pytest.raises(RuntimeError, match="broken"):
        Trainer().validate(task, make_loader(1))
    assert task.training and task.linear.training


def test_the_mean_is_weighted_by_samples(line, make_loader):
    uneven = make_loader(2, size=4, rest=1)
    x, y = uneven.dataset.tensors
    metrics = Trainer().validate(line, uneven)
    assert metrics == {"valid/loss": pytest.approx(((line(x) - y) ** 2).mean().item(), rel=1e-5)}


def test_the_batch_size_can_be_said_where_the_guess_is_wrong(make_line):
    class Weighted(make_line):
        def validation_step(self, batch, run):
            run.batch_size = batch["count"]
            run.log(value=batch["value"])

    batches = [{"count": 1, "value": 1.0}, {"count": 3, "value": 5.0}]
    assert Trainer().validate(Weighted(), batches) == {"valid/value": 4.0}


def test_test_step_defaults_to_validation_step_and_logs_under_test(line, loader):
    valid = Trainer().validate(line, loader)
    test = Trainer().test(line, loader)
    assert test == {"test/loss": valid["valid/loss"]}


def test_predictions_come_in_order_and_only_when_asked_for(line, make_loader):
    batches = list(make_loader(5))
    read = []

    def stream():
        for i, batch in enumerate(batches):
            read.append(i)
            yield batch

    predictions = Trainer().predict(line, stream())
    assert read == []
    first = next(predictions)
    assert read == [0]
    rest = list(predictions)
    expected = [line(x).detach() for x, _ in batches]
    assert torch.equal(torch.cat([first, *rest]), torch.cat(expected))


def test_an_abandoned_prediction_ends_its_run(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    predictions = trainer.predict(line, loader)
    next(predictions)
    predictions.close()
    assert events[-2:] == ["predict_end", "run_end"]
    assert trainer.validate(line, loader), "the trainer is free for another run"


def test_between_predictions_gradients_are_on_and_the_model_is_left_alone(line, loader):
    line.train()
    for output in Trainer().predict(line, loader):
        assert torch.is_grad_enabled()
        assert not output.requires_grad
    assert line.training


def test_a_plain_module_predicts(loader):
    model = nn.Linear(4, 3)
    outputs = list(Trainer().predict(model, loader))
    assert [tuple(output.shape) for output in outputs] == [(2, 3)] * 5


def test_validate_every_counts_epochs(line, loader):
    trainer = Trainer(epochs=5, validate_every=2)
    at = []
    trainer.on("validation_start")(lambda run: at.append(run.epoch))
    trainer.fit(line, loader, loader)
    assert at == [1, 3, 4], "every second, and the last weights"


def steps_of_validations(trainer, *given):
    at = []
    trainer.on("validation_start")(lambda run: at.append(run.global_step))
    trainer.fit(*given)
    return at


@pytest.mark.parametrize(
    ("options", "at"),
    [
        ({"validate_every": "2 steps"}, [2, 4, 6, 8, 10]),
        ({"validate_every": "3 steps"}, [3, 6, 9, 10]),
        ({"validate_every": "7 steps"}, [7, 10]),
        ({"validate_every": "20 steps"}, [10]),
        ({"validate_every": "2 steps", "accumulate": 2}, [2, 4, 6]),
        ({"validate_every": "1 epoch"}, [5, 10]),
        ({"validate_every": 2.0}, [10]),
        ({"validate_every": "1 h"}, [10]),
        ({"validate_every": timedelta(hours=1)}, [10]),
    ],
)
def test_steps_and_time_are_counted_across_epochs(options, at, line, make_loader):
    trainer = Trainer(epochs=2, **options)
    assert steps_of_validations(trainer, line, make_loader(5), make_loader(1)) == at


def test_time_is_counted_from_the_end_of_the_last_validation(line, make_loader):
    trainer = Trainer(validate_every="0.001 s")
    trainer.on("train_batch_start")(lambda: time.sleep(0.002))
    at = steps_of_validations(trainer, line, make_loader(3), make_loader(1))
    assert at == [1, 2, 3]


def test_steps_are_counted_over_a_loader_that_tells_no_length(line, make_loader):
    stream = (batch for batch in make_loader(5))
    trainer = Trainer(validate_every="2 steps")
    assert steps_of_validations(trainer, line, stream, make_loader(1)) == [2, 4, 5]


@pytest.mark.parametrize("every", ["", "5", "steps", "0 steps", "1.5 steps", "0 min", "-1 h"])
def test_a_text_that_says_no_cadence_is_refused(every):
    with pytest.raises(UsageError, match="validate_every must be whole epochs"):
        Trainer(validate_every=every)


def test_limit_batches_by_number_and_by_fraction(line, make_loader):
    assert Trainer(limit_batches=2).fit(line, make_loader(5)).global_step == 2
    assert Trainer(limit_batches=0.4).fit(line, make_loader(5)).global_step == 2
    assert len(list(Trainer(limit_batches=3).predict(line, make_loader(5)))) == 3


def test_limited_loaders_are_read_no_further(line, make_loader):
    stream = iter(list(make_loader(5)))
    Trainer(limit_batches=2).fit(line, stream)
    assert len(list(stream)) == 3


def test_overfit_trains_on_the_same_batches_in_every_epoch(make_line, make_loader):
    seen = []

    class Watching(make_line):
        def training_step(self, batch, run):
            seen.append(batch[0])
            return super().training_step(batch, run)

    Trainer(epochs=2, overfit=2).fit(Watching(), make_loader(5, shuffle=True))
    assert len(seen) == 4
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


def test_supervised_makes_a_task_of_a_module(make_loader):
    from functools import partial

    def error(output, target):
        return (output - target).abs().mean()

    task = Task.supervised(
        nn.Linear(4, 1),
        loss=nn.functional.mse_loss,
        optimizer=partial(torch.optim.SGD, lr=0.05),
        metrics={"error": error},
    )
    run = Trainer(epochs=20).fit(task, make_loader(10), make_loader(2))
    assert run.metrics["valid/loss"] < 0.1
    assert 0 < run.metrics["valid/error"] < 0.5


def test_dry_run_runs_everything_briefly_and_leaves_nothing(line, make_loader, tmp_path):
    told = []
    trainer = Trainer(epochs=10, dry_run=3, validate_every=5, plugins=["checkpoint"])
    trainer.on("metrics")(lambda step, metrics: told.append(metrics))
    run = trainer.fit(line, make_loader(5), make_loader(5))
    assert (run.epoch, run.global_step) == (1, 3)
    assert "valid/loss" in run.metrics
    assert told == []
    assert list(tmp_path.iterdir()) == []


def test_limits_by_stage(line, make_loader):
    limits = {"train": 3, "valid": 1, "predict": 2}
    trainer, seen = Trainer(limit_batches=limits), []
    trainer.on("validation_batch_start")(lambda run: seen.append(run.batch_index))
    assert trainer.fit(line, make_loader(5), make_loader(5)).global_step == 3
    assert seen == [0]
    assert len(list(trainer.predict(line, make_loader(5)))) == 2


def test_an_endless_validation_loader_with_a_limit(line, make_loader):
    def endless():
        while True:
            yield from make_loader(2)

    run = Trainer(epochs=2, limit_batches={"valid": 3}).fit(line, make_loader(2), endless())
    assert run.status == "completed"


@pytest.mark.parametrize("limit", [{"training": 1}, {"valid": 1.5}, {"valid": "x"}, "x", 0, -1])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(UsageError, match="limit_batches must be"):
        Trainer(limit_batches=limit)


def test_nobody_stops_a_run_before_its_least(line, make_loader, caplog):
    trainer = Trainer(epochs=9, min_epochs=3)
    trainer.on("epoch_end")(lambda run: run.stop("enough"))
    assert trainer.fit(line, make_loader(2)).epoch == 3
    assert "not stopped (enough) before min_epochs=3" in caplog.text


def test_the_least_is_counted_in_steps_too(line, make_loader):
    trainer = Trainer(min_steps=3)

    @trainer.on("train_batch_start")
    def stop(run):
        raise StopRun

    run = trainer.fit(line, make_loader(5))
    assert (run.status, run.global_step) == ("stopped", 4)


def test_a_mistake_in_validation_shows_before_the_first_step(make_line, make_loader):
    class Broken(make_line):
        def validation_step(self, batch, run):
            raise RuntimeError("broken")

    trainer, steps = Trainer(sanity_batches=2), []
    trainer.on("train_batch_start")(lambda run: steps.append(1))
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Broken(), make_loader(3), make_loader(3))
    assert not steps


def test_a_rehearsal_leaves_no_trace(make_loader):
    class Logs(Noisy):
        def validation_step(self, batch, run):
            run.log(loss=self.linear(batch[0]).mean())

    def fit(**options):
        torch.manual_seed(0)
        trainer, events, values = Trainer(seed=1, **options), [], []
        trainer.on("validation_start")(lambda: events.append(1))
        trainer.on("metrics")(lambda run, step, metrics: values.append((step, dict(metrics))))
        task = Logs()
        trainer.fit(task, make_loader(3), make_loader(3))
        return len(events), values, task.linear.weight.tolist()

    assert fit(sanity_batches=2) == fit()


def test_a_validation_before_the_first_step(line, make_loader):
    trainer = Trainer(validate_first=True)
    assert steps_of_validations(trainer, line, make_loader(3), make_loader(1)) == [0, 3]
