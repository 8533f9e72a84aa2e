"""A tiny task, its data, a database of MLflow's, and its server."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

from trainbus import RunInfo
from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
environment = clean_environment("MLFLOW_", **ENVIRONMENT)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Each test has a home of its own."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A database with MLflow's tables, which take seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(empty_database, tmp_path):
    """The tracking URI of an empty database."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


class Server:
    """MLflow's own server on a database, in a process group of its own."""

    def __init__(self, directory, database, port=None):
        self.directory = directory
        self.database = directory / "server.db"
        if not self.database.exists():
            shutil.copy(database, self.database)
        if port is None:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.port = port
        self.uri = f"http://127.0.0.1:{port}"
        self.start()

    def start(self):
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.database}",
            "--artifacts-destination", str(self.directory / "artifacts"),
        ]  # fmt: skip
        environment = {**os.environ, **ENVIRONMENT, "HOME": str(self.directory)}
        with (self.directory / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True,
                cwd=self.directory,
            )  # fmt: skip

    def wait(self, seconds=90):
        """Wait until it answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                with opener.open(f"{self.uri}/health", timeout=5):
                    return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                assert self.process.poll() is None, (self.directory / "server.log").read_text()
                time.sleep(0.1)
        raise TimeoutError((self.directory / "server.log").read_text())

    def kill(self):
        """SIGKILL to all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory, empty_database):
    """A server for all tests that leave it running."""
    server = Server(tmp_path_factory.mktemp("server"), empty_database)
    yield server.wait()
    server.kill()


@pytest.fixture
def own_server(tmp_path, empty_database):
    """A server that a test may kill and start again."""
    server = Server(tmp_path, empty_database)
    yield server.wait()
    server.kill()


class Reader:
    """What MLflow's own client reads of a run."""

    def __init__(self, uri, run_id=None):
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        if run_id is None:
            (run_id,) = [run.info.run_id for run in self.runs()]
        self.run = self.client.get_run(run_id)
        self.info, self.id = self.run.info, run_id
        self.params, self.tags = self.run.data.params, self.run.data.tags
        self.names = sorted(self.run.data.metrics)

    def runs(self):
        experiments = [each.experiment_id for each in self.client.search_experiments()]
        return self.client.search_runs(experiments)

    def series(self, name):
        """(step, value) in the order of their times."""
        points = self.client.get_metric_history(self.id, name)
        return [(point.step, point.value) for point in sorted(points, key=lambda p: p.timestamp)]

    def files(self, folder=None):
        """The paths of all artifacts."""
        found = self.client.list_artifacts(self.id, folder)
        nested = [self.files(each.path) if each.is_dir else [each.path] for each in found]
        return sorted(path for paths in nested for path in paths)

    def load(self, path):
        """The bytes of an artifact."""
        from pathlib import Path

        Path("downloads").mkdir(exist_ok=True)
        return Path(self.client.download_artifacts(self.id, path, "downloads")).read_bytes()


@pytest.fixture
def read():
    """Read a run back: `read(uri, run_id)`; without an id there is one run only."""
    return Reader


@pytest.fixture
def info(tmp_path):
    """Make a run as a logger sees it: for hooks that are called one by one."""

    def make(**more):
        return RunInfo("Line", "line-1", tmp_path, 1_700_000_000.0, {}, **more)

    return make


@pytest.fixture
def begun(info, database):
    """A plugin that began a run in a database: `begun(option=...)` gives it, the run, the URI."""
    from trainbus_mlflow import MLflow

    def begin(uri=database, **options):
        plugin, run = MLflow(uri, **options), info()
        plugin.on_log_start(run)
        return SimpleNamespace(plugin=plugin, run=run, uri=uri)

    return begin
