"""A tiny task, its data, and a reader of Comet's offline archives."""

import json
import os
import tempfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

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


environment = clean_environment("COMET_", scope="module", **KEPT)


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    """Comet's client finds no configuration, and an empty place to write to."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.setattr(tempfile, "tempdir", str(home))
        patch.chdir(home)
        yield


@pytest.fixture(scope="session")
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


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
