"""A tiny task, its data, a run as a logger sees it, and Trackio's own readers."""

import copy
import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import RunInfo, Task

_NUMBERS = itertools.count()
#: Nobody is logged in, and nothing may reach out.
_ALONE = {"HF_HUB_OFFLINE": "1", "BROWSER": "true"}
_UNSET = ["HF_TOKEN", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """Where Trackio has its projects; it reads that once, when it is imported."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in _UNSET:
            patch.delenv(name, raising=False)
        patch.setenv("HF_HOME", str(home / "hub"))
        patch.setenv("TRACKIO_DIR", str(home / "trackio"))
        for name, value in _ALONE.items():
            patch.setenv(name, value)
        import trackio  # noqa: F401

        yield home / "trackio"


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch, place):
    """Each test works in an empty directory, with the same random numbers."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def project():
    """The name of a project that no other test has."""
    return f"project {next(_NUMBERS)}"


class Line(Task):
    """Four numbers to one, by least squares."""

    def __init__(self, **hparams):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.hparams = hparams

    def training_step(self, batch, run):
        loss = functional.mse_loss(self.linear(batch), batch[:, :1])
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        loss = functional.mse_loss(self.linear(batch), batch[:, :1])
        run.log(loss=loss)

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture(scope="session")
def make_line():
    """The class `Line`: its arguments are the task's hparams."""
    return Line


@pytest.fixture(scope="session")
def batches():
    """Five batches of two samples."""
    return list(torch.randn(5, 2, 4))


@pytest.fixture
def info(tmp_path):
    """A function that makes a run as a logger sees it, with what its journal remembers."""

    def make(state=None, **more):
        directory = tmp_path / "runs" / "first"
        directory.mkdir(parents=True, exist_ok=True)
        return RunInfo("Line", "first", directory, 1.7e9, {}, copy.deepcopy(state or {}), **more)

    return make


@pytest.fixture(scope="session")
def cli(place):
    """A function that calls the `trackio` command and returns the JSON that it prints."""

    def call(*arguments):
        command = [sys.executable, "-m", "trackio.cli", *arguments, "--json"]
        program = "import sys; from trackio.cli import main; sys.argv[0] = 'trackio'; main()"
        command[1:3] = ["-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


class Reader:
    """A project as Trackio's own storage reads it."""

    def __init__(self, project):
        import trackio

        self.project = project
        self.runs = list(trackio.Api().runs(project))

    @property
    def run(self):
        (run,) = self.runs
        return run

    def logs(self, run=None):
        from trackio.sqlite_storage import SQLiteStorage

        run = run or self.run
        return SQLiteStorage.get_logs(self.project, run.name, run_id=run.id)

    def series(self, name, run=None):
        return [(row["step"], row[name]) for row in self.logs(run) if name in row]


@pytest.fixture
def read(place):
    """Read a project."""
    return Reader
