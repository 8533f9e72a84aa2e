"""A tiny task, its data, a run as a logger sees it, and TensorBoard's own reader."""

import copy

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainbus import RunInfo
from trainbus.testing import make_line_loader
from trainbus.testing.fixtures import own_directory  # noqa: F401


@pytest.fixture
def batches():
    """Five batches of two samples."""
    return list(make_line_loader())


class Reader(EventAccumulator):
    """All that is in an event directory."""

    def __init__(self, path):
        super().__init__(str(path), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        self.Reload()

    def points(self):
        """All scalars: step and value by name."""
        return {name: self.series(name) for name in self.names()}

    def names(self):
        return self.Tags()["scalars"]

    def series(self, name):
        return [(event.step, event.value) for event in self.Scalars(name)]

    def text(self, name):
        """The texts of one name, in the order they were written."""
        events = self.Tensors(f"{name}/text_summary")
        return [event.tensor_proto.string_val[0].decode() for event in events]


@pytest.fixture
def info(tmp_path):
    """A function that makes a run as a logger sees it, with what its journal remembers."""

    def make(state=None):
        directory = tmp_path / "runs" / "first"
        directory.mkdir(parents=True, exist_ok=True)
        return RunInfo("Line", "first", directory, 1.7e9, {}, copy.deepcopy(state or {}))

    return make


@pytest.fixture
def read():
    """Read a directory with event files."""
    return Reader
