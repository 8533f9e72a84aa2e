"""A tiny task, its data, and a reader of Neptune's offline files."""

import threading
from pathlib import Path

import pytest

from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

environment = clean_environment("NEPTUNE_", scope="module")


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    """Neptune's client finds no configuration, and writes to an empty place."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HOME", str(home))
        patch.chdir(home)
        yield


@pytest.fixture(scope="session")
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


class Offline:
    """One offline run, read with the queue that `neptune sync` reads."""

    def __init__(self, path):
        from neptune.core.components.queue.disk_queue import DiskQueue
        from neptune.internal.operation import Operation

        self.path = path
        lock = threading.RLock()
        queue = DiskQueue(path, lambda operation: operation.to_dict(), Operation.from_dict, lock)
        self.operations = [element.obj for element in queue.get_batch(10**6)]
        queue.close()

    def of(self, name):
        """The operations on a path."""
        return [each for each in self.operations if "/".join(each.path) == name]

    def value(self, name):
        """The newest value of a field."""
        return self.of(name)[-1].value

    def names(self):
        return {"/".join(each.path) for each in self.operations}

    def points(self, name):
        """The values of a series, with step and time."""
        return [value for each in self.of(name) for value in each.values]

    def series(self, name):
        return [(point.step, point.value) for point in self.points(name)]

    def file(self, name):
        """The content of an uploaded file."""
        operation = self.of(name)[-1]
        if operation.file_path:
            return Path(operation.file_path).read_bytes()
        return (self.path / "upload_path" / operation.tmp_file_name).read_bytes()


@pytest.fixture(scope="session")
def parts():
    """The offline runs in a directory, the oldest first."""

    def read(directory):
        found = Path(directory).glob("offline/run__*")
        return [Offline(path) for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    return read
