"""What can be counted: frames, calls and device synchronisations."""

import cProfile
import inspect
import pstats

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from trainbus import Trainer, hookimpl
from trainbus.builtin import Journal

QUIET = ["-journal", "-manifest", "-nonfinite"]


def test_at_most_six_frames_from_fit_to_training_step(make_line, loader):
    depths = []

    class Deep(make_line):
        def training_step(self, batch, run):
            names = [frame.function for frame in inspect.stack(0)]
            depths.append(names.index("fit"))
            return super().training_step(batch, run)

    class Listening:
        @hookimpl
        def on_train_batch_start(self, run):
            pass

    Trainer(plugins=[Listening()]).fit(Deep(), loader)
    assert set(depths) == {2}, "fit, the action, the task"


class NoSynchronisation(TorchDispatchMode):
    """Fails on whatever brings a value of a tensor to Python."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        assert not any(
            word in name for word in ("_local_scalar_dense", "item", "is_nonzero", "nonzero")
        ), f"{name} waits for the device"
        return function(*args, **(kwargs or {}))


class Away(torch.Tensor):
    """A tensor that says that it is not in the host's memory, as those of a GPU do."""

    is_cpu = False


class AwayBatches:
    """Puts each batch there."""

    @hookimpl(tryfirst=True)
    def on_train_batch_start(self, run):
        run.batch = [each.as_subclass(Away) for each in run.batch]


def test_no_step_waits_for_the_device(line, make_loader):
    """Ten listeners, logging, clipping and accumulation: nothing between first and last step."""
    trainer = Trainer(clip_norm=1.0, accumulate=2, plugins=["checkpoint", AwayBatches()])
    mode = NoSynchronisation()
    active = []

    @trainer.on("train_batch_start", once=True)
    def guard(run):
        active.append(mode.__enter__())

    @trainer.on("train_batch_end")
    def release(run):
        run.log(half=run.loss / 2, count=run.loss > 0)
        if run.batch_index == 19:
            active.pop().__exit__(None, None, None)

    try:
        run = trainer.fit(line, make_loader(20))
    finally:
        for left in active:  # not to fail every test that follows
            left.__exit__(None, None, None)
    assert not active
    assert isinstance(run.loss, Away)
    assert run.metrics["train/half"] == pytest.approx(run.metrics["train/loss"] / 2)


def test_the_guard_against_waiting_does_catch_it(line, make_loader):
    trainer = Trainer()
    mode = NoSynchronisation()

    @trainer.on("train_batch_end")
    def read(run):
        with mode:
            run.loss.item()

    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        trainer.fit(line, make_loader(1))


def calls_per_step(run_steps):
    """Function calls per step as cProfile counts them: the slope between two lengths.

    The least of three counts each: what a clock makes happen now and then is no part of a step.
    """

    def counted(steps):
        profile = cProfile.Profile()
        profile.enable()
        run_steps(steps)
        profile.disable()
        return pstats.Stats(profile).total_calls

    def calls(steps):
        return min(counted(steps) for _ in range(3))

    run_steps(5)
    return (calls(300) - calls(100)) / 200


def bare(task, batch):
    def steps(count):
        optimizer = task.configure_optimizer()
        for x, y in [batch] * count:
            optimizer.zero_grad()
            loss = functional.mse_loss(task.linear(x), y)
            loss.backward()
            optimizer.step()

    return steps


class Silent:
    """The same step as `bare`, as a task."""

    logs = 0

    def training_step(self, batch, run):
        x, y = batch
        loss = functional.mse_loss(self.linear(x), y)
        if self.logs:
            run.log({f"loss{i}": loss for i in range(self.logs)})
        return loss


class Counting:
    """A plugin that listens to three hooks of each batch."""

    @hookimpl
    def on_train_batch_start(self, run):
        pass

    @hookimpl
    def on_after_backward(self, run):
        pass

    @hookimpl
    def on_train_batch_end(self, run):
        pass


@pytest.mark.parametrize("logs", [0, 1, 5])
def test_calls_per_step_over_a_hand_written_loop(make_line, logs):
    task = type("Task", (Silent, make_line), {"logs": logs})()
    batch = (torch.randn(2, 4), torch.randn(2, 1))
    over = calls_per_step(
        lambda count: Trainer(plugins=QUIET).fit(task, [batch] * count)
    ) - calls_per_step(bare(task, batch))
    assert over <= 14 + 8 * logs


def test_calls_per_step_with_the_default_plugins_and_one_logged_number(make_line):
    class Logging(make_line):
        def training_step(self, batch, run):
            x, y = batch
            loss = functional.mse_loss(self.linear(x), y)
            run.log(loss=loss)
            return loss

    task = Logging()
    batch = (torch.randn(2, 4), torch.randn(2, 1))

    def fit(count):  # numbers are fetched by their count, however slow the machine is
        Trainer(plugins=[Journal(seconds=60.0)]).fit(task, [batch] * count)

    assert calls_per_step(fit) - calls_per_step(bare(task, batch)) <= 28


def test_each_listener_costs_one_call(make_line):
    task = type("Task", (Silent, make_line), {})()
    batch = (torch.randn(2, 4), torch.randn(2, 1))

    def fit(plugins):
        return lambda count: Trainer(plugins=[*QUIET, *plugins]).fit(task, [batch] * count)

    named = [type(f"Counting{i}", (Counting,), {})() for i in range(10)]
    extra = calls_per_step(fit(named)) - calls_per_step(fit([]))
    assert extra == pytest.approx(3 * 10 + 3, abs=0.5), (
        "one for each listener and one for each hook"
    )
