"""Ctrl-C, SIGTERM and SIGHUP: the batch and its state are finished, every end fires."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from trainbus import Trainer
from trainbus.checkpoints import archive
from trainbus.testing import make_line_loader

SCRIPT = """
import os, signal, time
from trainbus import Trainer
from trainbus.testing import Line, make_line_loader

class Slow(Line):
    def training_step(self, batch, run):
        if run.global_step == 2:
            for name, pause in {signals}:
                os.kill(os.getpid(), getattr(signal, name))
                time.sleep(pause)
        return super().training_step(batch, run)

trainer = Trainer(epochs=100, plugins=["checkpoint"])
for event in ("train_batch_end", "train_epoch_end", "epoch_end", "fit_end"):
    trainer.on(event)(lambda run, event=event: print(event, run.global_step, flush=True))
trainer.on("exception")(lambda run, error: print("exception", type(error).__name__, flush=True))
trainer.on("run_end")(lambda run, status: print("run_end", status, flush=True))
trainer.fit(Slow(), make_line_loader(50), make_line_loader(1))
print("not reached")
"""
WHOLE = ["train_batch_end 3", "train_epoch_end 3", "epoch_end 3", "fit_end 3"]
#: Copies of one signal, as a shell, a wrapper and a scheduler pass it on.
SOON, LATER = 0.002, 0.3


def states():
    return sorted(path.name for path in Path("runs").glob("*/checkpoints/*-*"))


@pytest.mark.parametrize(
    ("number", "exception", "codes"),
    [
        (signal.SIGINT, "KeyboardInterrupt", {130, -signal.SIGINT}),
        (signal.SIGTERM, "SystemExit", {143}),
        (signal.SIGHUP, "SystemExit", {129}),
    ],
)
def test_a_signal_ends_the_run_after_the_batch(forked, number, exception, codes):
    result = forked(SCRIPT.format(signals=[(number.name, 0)]))
    assert result.stdout.splitlines()[-6:] == [
        *WHOLE,
        f"exception {exception}",
        "run_end interrupted",
    ]
    assert result.returncode in codes
    assert f"{number.name}: the run ends after this batch" in result.stderr
    assert states() == ["step-00000003"]


@pytest.mark.parametrize(
    "signals",
    [
        [("SIGTERM", SOON)] * 2,
        [("SIGTERM", SOON)] * 3,
        [("SIGINT", SOON)] * 2,
        [("SIGHUP", SOON), ("SIGTERM", SOON)],
        [("SIGTERM", LATER)] * 2,
        [("SIGHUP", LATER), ("SIGTERM", SOON)],
    ],
)
def test_what_comes_twice_within_a_moment_is_one_request(forked, signals):
    lines = forked(SCRIPT.format(signals=signals)).stdout.splitlines()
    assert lines[-6:-2] == WHOLE
    assert states() == ["step-00000003"]


@pytest.mark.parametrize(
    "signals",
    [
        [("SIGINT", LATER)] * 2,
        [("SIGTERM", LATER), ("SIGINT", LATER)],
        [("SIGTERM", LATER)] * 3,
        [("SIGTERM", 5.1), ("SIGTERM", 0)],
    ],
)
def test_who_insists_ends_it_at_once(forked, signals):
    lines = forked(SCRIPT.format(signals=signals)).stdout.splitlines()
    assert lines[-2].startswith("exception ")
    assert lines[-1] == "run_end interrupted"
    assert not {"train_batch_end 3", "train_epoch_end 3"} & set(lines)
    assert states() == []


def test_a_state_that_is_being_written_is_finished(forked):
    result = forked("""
        import os, signal, time
        from trainbus import Trainer, hookimpl
        from trainbus.testing import Line, make_line_loader

        class Impatient:
            plugin_name, trained = "impatient", False

            @hookimpl
            def on_train_batch_end(self, run):
                self.trained = run.global_step == 5

            def state_dict(self):
                for _ in range(4 * self.trained):
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.3)
                return {}

            def load_state_dict(self, state):
                pass

        Trainer(plugins=[Impatient(), "checkpoint"]).fit(Line(), make_line_loader(5))
    """)
    assert "KeyboardInterrupt" in result.stderr
    (state,) = Path("runs").glob("*/checkpoints/*-*")
    archive.check(state)
    assert state.name == "step-00000005"


@pytest.mark.parametrize("event", ["fit_end", "run_end"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_what_comes_when_all_is_done_is_raised_behind_fit(forked, event, name):
    result = forked(f"""
        import os, signal
        from trainbus import Trainer
        from trainbus.testing import Line, make_line_loader

        trainer = Trainer()
        trainer.on("{event}")(lambda run: os.kill(os.getpid(), signal.{name}))
        try:
            trainer.fit(Line(), make_line_loader(2))
        except BaseException as error:
            print(type(error).__name__)
    """)
    assert result.stdout.splitlines() == ["KeyboardInterrupt" if name == "SIGINT" else "SystemExit"]


def test_with_nohup_a_run_outlives_its_terminal():
    script = """
        import os, signal
        from trainbus import Trainer
        from trainbus.testing import Line, make_line_loader

        trainer = Trainer()
        trainer.on("train_batch_end")(lambda run: os.kill(os.getpid(), signal.SIGHUP))
        print(trainer.fit(Line(), make_line_loader(2)).status)
    """
    command = ["nohup", sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "completed\n")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["training_step", "on_train_batch_end"])
def test_what_a_step_or_a_listener_raises_leaves_a_state(line, kind, where):
    trainer = Trainer(epochs=2, plugins=["checkpoint"])

    def leave(run):
        if run.global_step == 3:
            raise kind

    if where == "training_step":
        before = line.training_step
        line.training_step = lambda batch, run: (leave(run), before(batch, run))[1]
    else:
        trainer.on("train_batch_end")(leave)
    with pytest.raises(kind):
        trainer.fit(line, make_line_loader(5))
    assert states() == ["exception-00000003"]


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
