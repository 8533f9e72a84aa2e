"""The scaler: what it skips, what others see of it, and its state."""

import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainbus import TrainbusError, Trainer, hookimpl
from trainbus.builtin import Checkpoint, Nonfinite
from trainbus_amp.scaling import HOPELESS


class Norms:
    """Notes the norm of the gradients before each step."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def on_before_optimizer_step(self, run):
        gradients = [p.grad for p in run.task.parameters()]
        self.seen.append(torch.nn.utils.get_total_norm(gradients).item())


def test_overflows_are_skipped_and_counted(trainer, amp, task, batches, quick):
    """A scale that is too high costs steps; the run counts them, and no listener sees them."""
    norms = Norms()
    runner = trainer("fp16", norms, accelerator=quick)
    run = runner.fit(task, batches)
    assert run.skipped_steps > 0
    assert run.global_step == len(batches) - run.skipped_steps == len(norms.seen)
    assert amp(runner).scaler.get_scale() < quick.first
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_listeners_see_unscaled_gradients(trainer, make_task, batches):
    """The norm before the first step is nearly that of fp32, also for one that comes first."""
    seen = {}
    for precision in ("fp32", "fp16"):
        norms = Norms()
        trainer(precision, norms, max_steps=1).fit(make_task(), batches)
        seen[precision] = norms.seen[0]
    assert seen["fp16"] == pytest.approx(seen["fp32"], rel=0.01)


def test_clipping_comes_after_unscaling(trainer, task, batches):
    """With `clip_norm`, the optimizer gets gradients of that norm."""
    norms = Norms()
    trainer("fp16", norms, clip_norm=1e-3, max_steps=2).fit(task, batches)
    assert norms.seen == pytest.approx([1e-3] * 2, rel=1e-3)


def test_the_scale_changes_once_in_a_window(trainer, amp, task, batches, quick):
    """Twelve batches in windows of four are three steps; all overflow at such a scale."""
    quick.first = 2.0**60
    runner = trainer("fp16", accumulate=4, accelerator=quick)
    run = runner.fit(task, batches)
    assert (run.global_step, run.skipped_steps) == (0, 3)
    assert amp(runner).state_dict()["scaler"]["scale"] == 2.0**57


@pytest.mark.parametrize("mode", ["warn", "stop", "skip"])
def test_nonfinite_does_not_see_overflows(trainer, amp, task, batches, quick, mode):
    """An overflow is the scaler's affair: it neither ends the run nor hides from the scaler."""
    runner = trainer("fp16", Nonfinite(mode), accelerator=quick)
    run = runner.fit(task, batches)
    assert run.status == "completed"
    assert run.skipped_steps > 0
    assert amp(runner).scaler.get_scale() < quick.first


def test_a_loss_that_stays_nan_ends_the_run(trainer, task, batches):
    """No scale can help; the message says what to do."""
    inputs, target = batches[0]
    with pytest.raises(TrainbusError, match=r"40 steps in a row.*precision='bf16' or 'fp32'"):
        trainer("fp16").fit(task, [(inputs * float("nan"), target)] * (HOPELESS + 2))


def test_oom_cuts_batches_as_without_a_scaler(trainer, make_task, batches):
    """In four parts the scaled gradients add up to nearly those of the whole batch."""
    from trainbus.builtin import OOM

    class Plain(type(make_task())):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Linear(32, 3))

    norms = [Norms(), Norms()]
    trainer("fp16", norms[0], max_steps=1).fit(make_task(Plain), batches)
    trainer("fp16", norms[1], OOM(parts=4), max_steps=1).fit(make_task(Plain), batches)
    assert norms[1].seen == pytest.approx(norms[0].seen, rel=0.01)


def test_a_fused_optimizer_skips_and_counts(trainer, task, batches, quick):
    """One that handles overflows inside its kernel is treated as all others."""
    task.configure_optimizer = lambda: torch.optim.AdamW(task.parameters(), fused=True)
    run = trainer("fp16", accelerator=quick).fit(task, batches)
    assert run.skipped_steps > 0
    assert run.global_step == len(batches) - run.skipped_steps


def test_a_scaler_that_is_off_is_left_out(trainer, amp, task, batches, quick):
    """A device that needs none returns one with `enabled=False`."""
    quick.scaler = lambda: torch.amp.GradScaler("cpu", enabled=False)
    runner = trainer("fp16", accelerator=quick)
    assert runner.fit(task, batches).global_step == len(batches)
    assert amp(runner).scaler is None


@pytest.fixture
def train(make_task, quick):
    """Three epochs with shuffling, dropout and a checkpoint each four steps; perhaps not all."""
    inputs = torch.randn(192, 8)
    data = TensorDataset(inputs, inputs[:, :3].argmax(dim=1))

    def fit(run_dir, killed=False):
        plugins = ["amp", Checkpoint(every_steps=4)]
        options = {"precision": "fp16", "accelerator": quick, "run_dir": run_dir}
        trainer = Trainer(epochs=3, seed=3, plugins=plugins, **options)
        if killed:

            @trainer.on("train_batch_end")
            def kill(run):
                if run.global_step == 14:
                    os.kill(os.getpid(), signal.SIGKILL)

        task, loader = make_task(), DataLoader(data, batch_size=16, shuffle=True)
        run = trainer.fit(task, loader, resume="auto")
        state = trainer.bus.plugins["amp"].state_dict()
        return task.state_dict(), (state, run.global_step, run.skipped_steps)

    return fit


def test_scaler_and_weights_survive_a_kill(train):
    """Killed inside an epoch and resumed, all is bit-identical to a run that was not."""
    weights, told = train("whole")
    assert told[2] > 0
    process = multiprocessing.get_context("fork").Process(target=train, args=("killed", True))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    again, told_again = train("killed")
    assert told_again == told
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


def test_a_run_may_go_on_in_another_precision(trainer, make_task, batches, caplog):
    """The checkpoint's scale is left aside, with a warning."""
    trainer("fp16", "checkpoint").fit(make_task(), batches)
    run = trainer("bf16", "checkpoint", epochs=2).fit(make_task(), batches, resume="auto")
    assert run.global_step == 2 * len(batches)
    assert "written with precision='fp16', the run goes on with 'bf16'" in caplog.text
