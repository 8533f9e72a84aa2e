"""A tiny task, its data, and a reader of Comet's offline archives."""

import json
import os
import tempfile
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task

# Nothing of Comet's client leaves this machine: no reports of its errors, and a closed port
# instead of its server. It reads some of these when it is imported.
KEPT = {
    "COMET_ERROR_TRACKING_ENABLE": "0",
    "COMET_URL_OVERRIDE": "http://127.0.0.1:9/clientlib/",
    "COMET_HTTP_SESSION_RETRY_TOTAL": "0",
    "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "0",
    "COMET_GET_OR_ADD_EXPERIMENT_RETRY_CONNECT": "0",
}
os.environ.update(KEPT)


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    """Comet's client finds no configuration, no API key, and an empty place to write to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("COMET_") and name not in KEPT:
                patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setattr(tempfile, "tempdir", str(home))
        patch.chdir(home)
        yield


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory, with the same random numbers."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


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
    return list(torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1)))


class Archive:
    """What `comet upload` would send from an archive."""

    def __init__(self, path):
        self.path = Path(path)
        self.zip = ZipFile(path)
        self.about = json.loads(self.zip.read("experiment.json"))
        self.messages = [json.loads(line) for line in self.zip.read("messages.json").splitlines()]

    def of(self, kind):
        return [each["payload"] for each in self.messages if each["type"] == kind]

    def series(self, name):
        """The steps and values of a metric."""
        metrics = [each["metric"] for each in self.of("metric_msg")]
        return [(m["step"], m["metricValue"]) for m in metrics if m["metricName"] == name]

    def names(self):
        """The names of all metrics."""
        return {each["metric"]["metricName"] for each in self.of("metric_msg")}

    def params(self):
        params = [each.get("param") or each["params"] for each in self.of("parameter_msg")]
        return {p["paramName"]: p["paramValue"] for p in params if p["paramName"] != "curr_step"}

    def others(self):
        return {each["key"]: each["value"] for each in self.of("log_other")}

    def uploads(self, upload_type):
        """The uploaded files of a type, as (what Comet is told of it, content)."""
        return [
            (each["additional_params"] | (each["metadata"] or {}), self.zip.read(each["file_path"]))
            for each in self.of("file_upload")
            if each["upload_type"] == upload_type
        ]


@pytest.fixture(scope="session")
def archives():
    """The archives in a directory, the oldest first."""

    def read(directory):
        found = sorted(Path(directory).glob("*.zip"), key=lambda path: path.stat().st_mtime)
        return [Archive(path) for path in found]

    return read
