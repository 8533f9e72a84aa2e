"""A tiny task, its data, a run as a logger sees it, and Trackio's own readers."""

import copy
import itertools
import json
import os
import subprocess
import sys

import pytest

from trainbus import RunInfo
from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import own_directory  # noqa: F401

_NUMBERS = itertools.count()
#: Nobody is logged in, and nothing may reach out.
_ALONE = {"HF_HUB_OFFLINE": "1", "BROWSER": "true"}
_UNSET = ["HF_TOKEN", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"]


@pytest.fixture(scope="session", autouse=True)
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


@pytest.fixture
def project():
    """The name of a project that no other test has."""
    return f"project {next(_NUMBERS)}"


@pytest.fixture(scope="session")
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


@pytest.fixture
def info(tmp_path):
    """A function that makes a run as a logger sees it, with what its journal remembers."""

    def make(state=None, **more):
        directory = tmp_path / "runs" / "first"
        directory.mkdir(parents=True, exist_ok=True)
        return RunInfo("Line", "first", directory, 1.7e9, {}, copy.deepcopy(state or {}), **more)

    return make


@pytest.fixture(scope="session")
def cli():
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
def read():
    """Read a project."""
    return Reader
