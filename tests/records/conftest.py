"""Loggers of the tests' own, and what a run's journal holds."""

import threading
import time

import pytest

from trainbus import JournalFile, RecordRejected, hookimpl


class Memory:
    """A logger that keeps what it is given; a test says how it fails, and how slow it is."""

    observer = True

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.calls = []
        #: Raised by each call from now on, until it is None.
        self.error = None
        self.rejects = None
        self.threads = set()
        self.states = []
        self.flushed = []

    def _note(self, what, *values):
        self.threads.add(threading.current_thread().name)
        if self.seconds:
            time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.calls.append((what, *values))

    @hookimpl
    def on_log_start(self, run):
        self.states.append(dict(run.state))
        run.state["starts"] = run.state.get("starts", 0) + 1
        run.header["memory"] = "kept in memory"
        self._note("start")

    @hookimpl
    def on_params(self, run, params):
        self._note("params", params)

    @hookimpl
    def on_tags(self, run, tags):
        self._note("tags", tags)

    @hookimpl
    def on_metrics(self, run, step, metrics, time):
        if self.rejects in metrics:
            raise RecordRejected(f"{self.rejects} is not wanted")
        self._note("metrics", step, dict(metrics))

    @hookimpl
    def on_artifact(self, run, artifact):
        self._note("artifact", artifact)

    @hookimpl
    def on_log_flush(self, run):
        self.flushed.append(run.record)

    @hookimpl
    def on_log_end(self, run, status):
        self._note("end", status)

    def of(self, what):
        """The calls of one kind, without its name."""
        return [call[1:] for call in self.calls if call[0] == what]

    def steps(self, name):
        return [step for step, metrics in self.of("metrics") if name in metrics]


@pytest.fixture
def memory():
    """A `Memory`."""
    return Memory()


@pytest.fixture
def make_memory():
    """The class `Memory`."""
    return Memory


@pytest.fixture
def read():
    """Open the journal of a run, or of a directory, until the test is over."""
    opened = []

    def open_journal(run):
        opened.append(JournalFile.open(getattr(run, "dir", run) / "journal.db"))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()
