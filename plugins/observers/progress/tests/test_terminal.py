"""In a terminal: bars that are drawn over, and lines that stay."""

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from io import StringIO

import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from trainbus import Run, Trainer
from trainbus.testing import make_line_loader
from trainbus_progress import Progress


def test_the_lines_stay_and_the_bars_go(terminal, screen, line, batches):
    Trainer(epochs=2, plugins=[terminal.progress()]).fit(line, batches, batches)
    rows, visible = screen(terminal.output)
    words = [row.split()[0] for row in rows]
    assert words == [
        "task", "device", "precision", "plugins", "directory", "epoch", "1/2", "2/2", "training",
    ]  # fmt: skip
    assert "it/s" not in "".join(rows)
    assert visible


def test_the_cursor_is_hidden_while_bars_are_drawn(terminal, line, batches):
    Trainer(plugins=[terminal.progress()]).fit(line, batches)
    before, bars = terminal.output.split("\x1b[?25l")
    assert "it/s" not in before
    bars, after = bars.split("\x1b[?25h")
    assert "it/s" in bars
    assert "it/s" not in after


def test_the_bars_of_training_and_validation(terminal, line, batches, fetch):
    trainer = Trainer(epochs=2, plugins=[terminal.progress()])
    fetch(trainer)
    trainer.fit(line, batches, batches)
    number = r"[\d.]+"
    assert re.search(
        rf"epoch 2/2 ━+ +2/4  {number} it/s  0:00<0:00  run 0:00 left  loss {number}",
        terminal.output,
    )
    assert re.search(rf"valid ━+ +2/4  {number} it/s  0:00<0:00", terminal.output)


def test_validation_inside_an_epoch_has_its_bar_below(terminal, line, batches):
    trainer = Trainer(validate_every=0.5, plugins=[terminal.progress()])
    trainer.fit(line, batches, batches[:1])
    assert re.search(r"epoch 1/1 ━+ +2/4 [^\n]*\r\nvalid     ━* +0/1 ", terminal.output)


def test_a_loader_without_length_has_no_bar(terminal, line, endless):
    Trainer(plugins=[terminal.progress()]).fit(line, endless)
    assert re.search(r"epoch 1/1 3 batches  [\d.]+ it/s  0:00\r", terminal.output)
    assert "━" not in terminal.output


def test_a_narrow_terminal_cuts_the_details(terminal, line, batches):
    progress = terminal.progress()
    progress.console = Console(
        file=terminal.stream, force_terminal=True, width=40, color_system=None, _environ={}
    )
    Trainer(epochs=2, plugins=[progress]).fit(line, batches)
    plain = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\r", terminal.output)
    bars = [part for part in re.split(r"[\r\n]+", plain) if re.match(r"epoch \d", part)]
    assert bars
    assert max(map(len, bars)) == 37, "with room for the ^C that a terminal echoes"


def test_what_others_print_and_log_stays_whole(terminal, screen, make_line, batches):
    progress = terminal.progress()
    early = logging.StreamHandler(sys.stderr)
    logger = logging.getLogger("trainbus")
    logger.addHandler(early)

    class Talking(make_line):
        def training_step(self, batch, run):
            if run.batch_index == 2:
                print("a print")
                print("a part and ", end="")
                print("its rest")
                logger.warning("a warning")
            return super().training_step(batch, run)

    streams = sys.stdout, sys.stderr
    try:
        Trainer(plugins=[progress]).fit(Talking(), batches)
        assert early.stream is terminal.stream, "put back"
    finally:
        logger.removeHandler(early)
    assert (sys.stdout, sys.stderr) == streams
    rows, _ = screen(terminal.output)
    assert rows[5:8] == ["a print", "a part and its rest", "a warning"]


def test_a_stream_that_leads_elsewhere_is_left_alone(terminal, line, batches, monkeypatch):
    file = StringIO()
    trainer = Trainer(plugins=[terminal.progress()])
    monkeypatch.setattr(sys, "stderr", file)
    trainer.on("train_batch_end")(lambda run: print("problem", file=sys.stderr))
    trainer.fit(line, batches)
    assert file.getvalue() == "problem\n" * 4
    assert "problem" not in terminal.output


def interrupt(run):
    signal.raise_signal(signal.SIGINT)


def fail(run):
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("event", "what", "error", "status"),
    [
        ("train_batch_start", interrupt, KeyboardInterrupt, "interrupted"),
        ("validation_batch_start", interrupt, KeyboardInterrupt, "interrupted"),
        ("train_batch_start", fail, RuntimeError, "failed"),
        ("validation_batch_start", fail, RuntimeError, "failed"),
    ],
)
def test_the_terminal_is_given_back_after(
    event, what, error, status, terminal, screen, line, batches
):
    trainer = Trainer(plugins=[terminal.progress()])
    streams = sys.stdout, sys.stderr
    trainer.on(event)(what)
    with pytest.raises(error):
        trainer.fit(line, batches, batches)
    assert (sys.stdout, sys.stderr) == streams
    rows, visible = screen(terminal.output)
    assert rows[-1].startswith(f"training {status} ")
    assert "it/s" not in "".join(rows)
    assert visible


def test_others_that_tell_of_the_error_find_the_terminal_given_back(terminal, line, batches):
    trainer = Trainer(plugins=[terminal.progress()])
    trainer.on("train_batch_end")(fail)
    seen = []
    trainer.on("exception")(lambda run, error: seen.append(sys.stdout))
    with pytest.raises(RuntimeError):
        trainer.fit(line, batches)
    assert seen == [terminal.stream]


def test_the_terminal_is_given_back_when_predictions_are_abandoned(terminal, screen, line, batches):
    predictions = Trainer(plugins=[terminal.progress()]).predict(line, batches)
    next(predictions)
    next(predictions)
    assert sys.stdout is not terminal.stream
    del predictions
    assert sys.stdout is terminal.stream
    rows, visible = screen(terminal.output)
    assert rows == ["prediction stopped after 0.0s: 2 batches"]
    assert visible


class Waits(TorchDispatchMode):
    """Fails when a number is fetched from a tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function is not torch.ops.aten._local_scalar_dense.default, (
            "the device is waited for"
        )
        return function(*args, **(kwargs or {}))


class Away(torch.Tensor):
    """A tensor that says that it is not in the host's memory, as those of a GPU do."""

    is_cpu = False


def test_no_number_is_fetched_to_be_shown(terminal, line, batches, monkeypatch):
    def metrics(run):
        raise AssertionError("the device is waited for")

    monkeypatch.setattr(Run, "metrics", property(metrics))
    trainer = Trainer(epochs=2, plugins=[terminal.progress(), "-nonfinite"])
    batches = [[part.as_subclass(Away) for part in batch] for batch in batches]
    with Waits():
        run = trainer.fit(line, batches, batches)
    assert run.errors == []
    assert "4/4" in terminal.output


def test_at_the_usual_rate_few_batches_are_drawn(terminal, line):
    progress = terminal.progress()
    progress.refresh = Progress().refresh
    Trainer(plugins=[progress]).fit(line, make_line_loader(200))
    assert terminal.output.count("it/s") < 100


SCRIPT = """
    import sys
    from trainbus import Trainer, testing

    class Line(testing.Line):
        def validation_step(self, batch, run):
            if run.batch_index == 2:
                print("ready")
                sys.stdin.readline()

    line, batches = Line(), testing.make_line_loader()
    trainer = Trainer(plugins=["progress"])
"""


def run_in_terminal(terminal, code, on_ready=None):
    """Run a script on a terminal until it ends; `on_ready` gets the process when it says so."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + code],
        stdin=subprocess.PIPE,
        stdout=terminal.stream,
        stderr=terminal.stream,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
        text=True,
    )
    if on_ready is not None:
        terminal.wait_for("ready")
        on_ready(process)
    process.communicate()
    return process.returncode


def test_ctrl_c_from_outside(terminal, screen):
    def press(process):
        process.send_signal(signal.SIGINT)
        process.stdin.write("\n")

    code = run_in_terminal(terminal, "trainer.validate(line, batches)\n", press)
    rows, visible = screen(terminal.output)
    assert code == -signal.SIGINT
    assert "SIGINT: the run ends after this batch; once more ends it at once" in rows
    ending = next(row for row in rows if row.startswith("validation interrupted"))
    assert ending.endswith(": 3 batches")
    assert "it/s" not in "".join(rows)
    assert visible


def test_the_cursor_is_shown_again_when_the_program_ends_in_mid_stream(terminal, screen):
    run_in_terminal(terminal, "stream = trainer.predict(line, batches)\nnext(stream)\n")
    assert "\x1b[?25l" in terminal.output
    _, visible = screen(terminal.output)
    assert visible
