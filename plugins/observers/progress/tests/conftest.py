"""A tiny task, its data, and places to show progress in."""

import io
import os
import pty
import re
import sys
from threading import Thread
from time import monotonic, sleep

import pytest
from rich.console import Console

from trainbus import testing
from trainbus.testing.fixtures import own_directory  # noqa: F401
from trainbus_progress import Progress


@pytest.fixture(autouse=True)
def no_colour(monkeypatch):
    """Rich is told nothing by the environment."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class Line(testing.Line):
    """A line whose validation has an accuracy."""

    def validation_step(self, batch, run):
        loss = super().validation_step(batch, run)
        run.log(accuracy=0.5)
        return loss


@pytest.fixture
def line():
    """A new `Line`."""
    return Line()


@pytest.fixture
def make_line():
    """The class `Line`, to subclass."""
    return Line


@pytest.fixture
def batches():
    """Four batches of two samples."""
    return list(testing.make_line_loader(4))


@pytest.fixture
def endless(batches):
    """The same batches, from a loader that does not tell its length."""

    class Stream:
        def __iter__(self):
            return iter(batches)

    return Stream()


class Plain:
    """A file that progress is written to."""

    def __init__(self):
        self.file = io.StringIO()

    def progress(self, **options):
        plugin = Progress(**options)
        plugin.console = Console(file=self.file)
        return plugin

    @property
    def text(self):
        return self.file.getvalue()

    @property
    def lines(self):
        return self.text.splitlines()


@pytest.fixture
def plain():
    """No terminal."""
    return Plain()


@pytest.fixture
def fetch():
    """Make a trainer fetch what was logged after every step, which it else does once a second."""

    def every_step(trainer):
        trainer.on("train_batch_end")(lambda run: run.metrics)

    return every_step


class Terminal:
    """A pseudo-terminal, drawn on after every batch."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self._master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", buffering=1, encoding="utf-8")
        self._output = b""
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def progress(self, **options):
        """A plugin that draws here, where all standard output goes from now on."""
        # Not in the fixture: pytest sets the streams anew when the test itself begins.
        self._monkeypatch.setattr(sys, "stdout", self.stream)
        self._monkeypatch.setattr(sys, "stderr", self.stream)
        plugin = Progress(refresh=1e9, **options)
        plugin.console = Console(
            file=self.stream, force_terminal=True, width=100, color_system=None, _environ={}
        )
        return plugin

    def _read(self):
        try:
            while data := os.read(self._master, 4096):
                self._output += data
        except OSError:  # what Linux says when the other side is closed
            pass

    def wait_for(self, text, seconds=60):
        """Until it was written, by another process."""
        end = monotonic() + seconds
        while text.encode() not in self._output:
            assert monotonic() < end, f"{text!r} did not come, only {self._output.decode()}"
            sleep(0.05)

    def close(self):
        """End the reading."""
        if not self.stream.closed:
            self.stream.close()
            self._reader.join()
            os.close(self._master)

    @property
    def output(self):
        """All that was written; nothing can be written afterwards."""
        self.close()
        return self._output.decode()


@pytest.fixture
def terminal(monkeypatch):
    """A terminal to draw in."""
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.close()


@pytest.fixture
def screen():
    """What a terminal shows in the end, line by line, and whether its cursor is visible."""

    def show(output):
        rows, row, visible = [""], 0, True
        for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", output):
            if token == "\n":
                row += 1
                rows += [""] * (row + 1 - len(rows))
            elif token.startswith("\x1b[?25"):
                visible = token.endswith("h")
            elif token.startswith("\x1b") and token.endswith("A"):
                row -= int(token[2:-1])
            elif token.startswith("\x1b") and token.endswith("K"):
                rows[row] = ""
            elif not token.startswith("\x1b") and token != "\r":
                rows[row] += token
        return [line.rstrip() for line in rows if line], visible

    return show
