"""Ctrl-C and SIGTERM: the batch is finished, every end fires, the exit status tells."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from trainbus import Trainer

SCRIPT = """
import os, signal
from trainbus import Trainer
from trainbus.testing import Line, make_line_loader

class Slow(Line):
    def training_step(self, batch, run):
        if run.global_step == 2:
            for _ in range({times}):
                os.kill(os.getpid(), signal.{signal})
        return super().training_step(batch, run)

trainer = Trainer(epochs=100)
for event in ("train_batch_end", "train_epoch_end", "epoch_end", "fit_end"):
    trainer.on(event)(lambda run, event=event: print(event, run.global_step, flush=True))
trainer.on("exception")(lambda run, error: print("exception", type(error).__name__, flush=True))
trainer.on("run_end")(lambda run, status: print("run_end", status, flush=True))
trainer.fit(Slow(), make_line_loader(50), make_line_loader(1))
print("not reached")
"""


def run(number, times=1):
    script = textwrap.dedent(SCRIPT).format(signal=number.name, times=times)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("number", "exception", "codes"),
    [
        (signal.SIGINT, "KeyboardInterrupt", {130, -signal.SIGINT}),
        (signal.SIGTERM, "SystemExit", {143}),
    ],
)
def test_a_signal_ends_the_run_after_the_batch(number, exception, codes):
    result = run(number)
    assert result.stdout.splitlines()[-6:] == [
        "train_batch_end 3",
        "train_epoch_end 3",
        "epoch_end 3",
        "fit_end 3",
        f"exception {exception}",
        "run_end interrupted",
    ]
    assert result.returncode in codes
    assert f"{number.name}: the run ends after this batch" in result.stderr


def test_a_second_signal_ends_it_at_once():
    result = run(signal.SIGINT, times=2)
    assert result.stdout.splitlines()[-2:] == ["exception KeyboardInterrupt", "run_end interrupted"]
    assert "train_epoch_end" not in result.stdout


def test_the_handlers_of_before_are_put_back(line, loader):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("mine"))
    try:
        Trainer().fit(line, loader)
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == ["mine"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_in_a_thread_leaves_signals_alone(line, loader):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Trainer().fit, line, loader).result().status == "completed"


def sleep_long(started):
    started.set()
    time.sleep(60)


def test_a_child_that_was_forked_in_a_run_can_be_terminated(line, loader):
    import multiprocessing

    context = multiprocessing.get_context("fork")
    trainer = Trainer()
    codes = []

    @trainer.on("train_batch_end", once=True)
    def fork(run):
        started = context.Event()
        child = context.Process(target=sleep_long, args=(started,))
        child.start()
        started.wait(10)
        child.terminate()
        child.join(10)
        codes.append(child.exitcode)

    trainer.fit(line, loader)
    assert codes == [-signal.SIGTERM]
