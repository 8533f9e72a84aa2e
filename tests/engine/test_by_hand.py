"""A loop of one's own fires the same events, and leaves the same weights, as `fit`."""

import contextlib
import copy

import pytest
import torch
from torch.nn import functional

from trainbus import Trainer


def loop(run, model, loader, epochs=2):
    for x, y in run.batches(loader, epochs=epochs):
        loss = functional.mse_loss(model(x), y)
        run.log(loss=loss)
        run.step(loss)


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.01)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_events_metrics_and_weights_equal_those_of_fit(line, loader, record, accumulate):
    model = copy.deepcopy(line)
    fitting = Trainer(epochs=2, accumulate=accumulate)
    fit_events = record(fitting)
    fitted = fitting.fit(line, loader)
    trainer = Trainer(accumulate=accumulate)
    events = record(trainer)
    with trainer.open(model, sgd(model)) as run:
        loop(run, model, loader)
    assert events == fit_events
    assert run.metrics == fitted.metrics
    assert (run.global_step, run.epoch, run.status) == (fitted.global_step, 2, "completed")
    assert torch.equal(model.linear.weight, line.linear.weight)


def test_wrappers_of_the_training_step_are_open_in_the_body(line, loader):
    trainer = Trainer()
    events = []

    @trainer.on("training_step", wrapper=True)
    def autocast(run):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = yield
        events.append(torch.is_autocast_enabled("cpu"))
        return loss

    trainer.on("after_loss")(lambda run: events.append(torch.is_autocast_enabled("cpu")))
    with trainer.open(line, sgd(line)) as run:
        for x, y in run.batches(loader):
            output = line.linear(x)
            assert output.dtype == torch.bfloat16
            run.step(functional.mse_loss(output.float(), y))
    assert events == [False, False] * 5
    assert not torch.is_autocast_enabled("cpu")


def test_a_body_that_makes_no_step_leaves_the_batch_out(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    with trainer.open(line, sgd(line)) as run:
        for x, y in run.batches(loader):
            if run.batch_index % 2:
                continue
            run.step(functional.mse_loss(line(x), y))
    assert run.global_step == 3
    assert events.count("train_batch_start") == events.count("train_batch_end") == 5


def test_leaving_the_loop_early_still_fires_the_ends(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    with trainer.open(line, sgd(line)) as run:
        for x, y in run.batches(loader, epochs=3):
            run.step(functional.mse_loss(line(x), y))
            break
    assert events[-4:] == ["train_epoch_end", "epoch_end", "fit_end", "run_end"]
    assert run.status == "completed"


def test_an_error_in_the_body_reaches_open_wrappers_and_listeners(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    seen = []

    @trainer.on("training_step", wrapper=True)
    def watch(run):
        try:
            return (yield)
        except ValueError as error:
            seen.append(str(error))
            raise

    with pytest.raises(ValueError, match="body"), trainer.open(line, sgd(line)) as run:
        for _ in run.batches(loader):
            raise ValueError("body")
    assert seen == ["body"]
    assert events[-2:] == ["exception", "run_end"]
    assert run.status == "failed"


def test_epochs_and_validation_by_hand(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    with trainer.open(line, sgd(line)) as run:
        for _ in run.epochs(2):
            loop(run, line, loader, epochs=None)
            for x, y in run.evaluation_batches(loader):
                assert not torch.is_grad_enabled() and not line.training
                run.log(loss=functional.mse_loss(line(x), y))
    assert events.count("validation_batch_end") == 10
    assert events.count("epoch_end") == 2
    assert "valid/loss" in run.metrics
    assert line.training


def test_stop_ends_the_loop(line, loader):
    with Trainer().open(line, sgd(line)) as run:
        for x, y in run.batches(loader, epochs=100):
            run.step(functional.mse_loss(line(x), y))
            if run.global_step == 7:
                run.stop("seven")
    assert (run.global_step, run.status, run.stop_reason) == (7, "stopped", "seven")


def test_two_optimizers_by_hand(line, loader):
    optimizers = [
        torch.optim.SGD([line.linear.weight], lr=0.01),
        torch.optim.SGD([line.linear.bias], lr=0.01),
    ]
    before = [p.detach().clone() for p in line.parameters()]
    with Trainer().open(line, optimizers) as run:
        for x, y in run.batches(loader):
            run.backward(functional.mse_loss(line(x), y))
            for optimizer in run.optimizers:
                run.optimizer_step(optimizer)
            run.step()
    assert run.global_step == 5
    assert all(not torch.equal(a, b) for a, b in zip(before, line.parameters(), strict=True))


def test_epochs_are_those_of_the_trainer_by_default_and_one_in_a_dry_run(line, loader):
    for trainer, epochs in ((Trainer(epochs=3), 3), (Trainer(epochs=3, dry_run=2), 1)):
        with trainer.open(line, sgd(line)) as run:
            for _ in run.epochs():
                loop(run, line, loader, epochs=None)
        assert run.epoch == epochs


def test_wrappers_of_the_validation_step_are_open_in_the_body(line, loader):
    trainer = Trainer()
    seen = []

    @trainer.on("validation_step", wrapper=True)
    def watch(run):
        seen.append("open")
        result = yield
        seen.append("closed")
        return result

    with trainer.open(line) as run:
        for _ in run.evaluation_batches([torch.ones(1)]):
            seen.append("body")
    assert seen == ["open", "body", "closed"]


def test_a_batch_left_by_break_still_ends(line, loader, record):
    trainer = Trainer()
    events = record(trainer)
    with trainer.open(line, sgd(line)) as run:
        for _ in run.batches(loader):
            break
    assert events.count("train_batch_end") == 1
    assert run.global_step == 0


def test_a_step_without_an_optimizer_is_told(line, loader):
    model = line.linear
    with pytest.raises(ValueError, match="no optimizer to step"), Trainer().open(model) as run:
        for x, y in run.batches(loader):
            run.step(functional.mse_loss(model(x), y))


def test_a_step_without_a_batch_of_the_run_is_refused(line, loader):
    with (
        pytest.raises(ValueError, match=r"take batches from run.batches\(loader\)"),
        Trainer().open(line, sgd(line)) as run,
    ):
        for x, y in loader:
            run.step(functional.mse_loss(line(x), y))


def test_the_optimizer_given_with_a_task_is_the_one(line, loader):
    given = sgd(line)
    with Trainer().open(line, given) as run:
        assert run.optimizers == [given]


def test_the_prepared_model_can_be_called(line, loader):
    model = line.linear
    with Trainer().open(model, sgd(model)) as run:
        assert run.model(torch.ones(1, 4)).shape == (1, 1)


def test_a_signal_stays_the_reason_though_the_body_fails_because_of_it(line, loader):
    import os
    import signal

    trainer = Trainer()
    status = []
    trainer.on("run_end")(lambda run, status_=status: status_.append(run.status))
    with pytest.raises(KeyboardInterrupt), trainer.open(line, sgd(line)) as run:
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyError("valid/accuracy")
    assert run.status == "interrupted"


def leave_after(line, loader, how, batch=2):
    """The run that a loop of one's own is left in after a step; its states of checkpoints."""
    import os
    import signal

    with (
        contextlib.suppress(KeyboardInterrupt),
        Trainer(plugins=["checkpoint"]).open(line, sgd(line)) as run,
    ):
        for index, (x, y) in enumerate(run.batches(loader, epochs=2)):
            run.step(functional.mse_loss(line.linear(x), y))
            if index == batch and how == "break":
                break
            if index == batch and how == "stop":
                run.stop()
            if index == batch and how == "signal":
                os.kill(os.getpid(), signal.SIGINT)
    return run, sorted(each.name for each in run.dir.glob("checkpoints/*"))


@pytest.mark.parametrize("how", ["break", "stop", "signal"])
@pytest.mark.parametrize("batch", [0, 2, 4, 6])
def test_a_loop_that_is_left_after_a_step_leaves_its_state(line, loader, how, batch):
    run, states = leave_after(line, loader, how, batch)
    assert states[-1] == f"step-{batch + 1:08d}"
    assert run.global_step == batch + 1


@pytest.mark.parametrize("how", ["break", "stop", "signal"])
def test_a_loop_that_was_left_goes_on_where_it_was(make_line, loader, how):
    whole = make_line()
    parts = copy.deepcopy(whole)
    with Trainer().open(whole, sgd(whole)) as run:
        for x, y in run.batches(loader, epochs=2):
            run.step(functional.mse_loss(whole.linear(x), y))
    left, states = leave_after(parts, loader, how)
    with Trainer().open(parts, sgd(parts)) as run:
        run.load_checkpoint(left.dir / "checkpoints" / states[-1])
        for x, y in run.batches(loader, epochs=2):
            run.step(functional.mse_loss(parts.linear(x), y))
    assert run.global_step == 10
    assert torch.equal(whole.linear.weight, parts.linear.weight)
