"""A task and its data, stacks that seem to be installed, and the real one where it is."""

import os
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from trainbus import Loader, Task
from trainbus.testing.fixtures import own_directory  # noqa: F401

HAS_TORCH_XLA = find_spec("torch_xla") is not None and "PJRT_DEVICE" in os.environ
if HAS_TORCH_XLA:  # before autograd is at work elsewhere in this process
    import torch_xla

    torch_xla.device()


def pytest_collection_modifyitems(items):
    """Leave out what needs torch_xla, and say so."""
    reason = "needs torch_xla and PJRT_DEVICE=CPU: `make test-xla`"
    for item in items:
        if "torch_xla" in item.keywords and not HAS_TORCH_XLA:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_configure(config):
    config.addinivalue_line("markers", "torch_xla: needs torch_xla with PJRT_DEVICE=CPU")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that makes a package seem installed: found, with a version, and never imported."""

    def install(name, version):
        place = tmp_path / "packages"
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("raise AssertionError('it was imported')\n")
        about = place / f"{name}-{version}.dist-info"
        about.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (about / "METADATA").write_text(text)
        monkeypatch.syspath_prepend(str(place))

    return install


class Classes(Task):
    """Eight numbers to one of three classes."""

    def __init__(self, dropout=0.0, lr=0.01):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 32), nn.Linear(32, 3)
        )
        self.lr = lr
        self.dtypes = set()

    def training_step(self, batch, run):
        inputs, target = batch
        scores = self.net(inputs)
        self.dtypes.add(scores.dtype)
        loss = functional.cross_entropy(scores, target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        inputs, target = batch
        scores = self.net(inputs)
        accuracy = (scores.argmax(dim=1) == target).float().mean()
        run.log(loss=functional.cross_entropy(scores, target), accuracy=accuracy)

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


@pytest.fixture
def make_task():
    """A function that makes the same task each time."""

    def make(**options):
        torch.manual_seed(0)
        return Classes(**options)

    return make


@pytest.fixture
def make_loader():
    """A function that makes a loader of eight batches of 32, shuffled."""

    def make():
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(256, 8, generator=generator)
        return Loader(TensorDataset(inputs, inputs[:, :3].argmax(dim=1)), 32, shuffle=True)

    return make


@pytest.fixture
def weights_of():
    """A function that gives the weights of a task, on the CPU."""

    def weights(task):
        return {name: tensor.cpu() for name, tensor in task.state_dict().items()}

    return weights
