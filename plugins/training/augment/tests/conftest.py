"""Images to augment, and a small classifier of images."""

import matplotlib
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainbus import Task

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory, from the same seed."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def generator():
    """Random numbers, always the same."""
    return torch.Generator().manual_seed(3)


@pytest.fixture
def images():
    """Eight smooth images of 3 x 24 x 32 bytes: waves, different in each."""
    ys = torch.linspace(0, 3, 24)[:, None]
    xs = torch.linspace(0, 4, 32)
    waves = [
        torch.sin(xs * (1 + number / 8) + channel) * torch.cos(ys + number)
        for number in range(8)
        for channel in range(3)
    ]
    return ((torch.stack(waves).view(8, 3, 24, 32) + 1) * 127.5).to(torch.uint8)


class Calls(TorchFunctionMode):
    """Counts the calls of functions of torch by name."""

    def __init__(self):
        super().__init__()
        self.count = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        self.count[name] = self.count.get(name, 0) + 1
        return function(*args, **(kwargs or {}))


@pytest.fixture
def calls():
    """A context in which calls of torch are counted."""
    return Calls()


class Classifier(Task):
    """Images of 3 x 8 x 8 to one of three classes; keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        self.trained, self.validated = [], []

    def training_step(self, batch, run):
        self.trained.append(batch)
        x, y = batch.values() if isinstance(batch, dict) else batch
        loss = functional.cross_entropy(self.net(x), y)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        self.validated.append(batch)
        x, y = batch
        scores = self.net(x)
        run.log(loss=functional.cross_entropy(scores, y))
        return scores

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def loader(batches=5):
    """Batches of four images and their classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(4 * batches, 3, 8, 8, generator=generator)
    y = x.mean(dim=(2, 3)).argmax(dim=1)
    data = torch.utils.data.TensorDataset(x, y)
    return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)


@pytest.fixture
def make_loader():
    """`make_loader(batches)`."""
    return loader


@pytest.fixture
def make_task():
    """A classifier with always the same first weights."""

    def make(kind=Classifier):
        torch.manual_seed(1)
        return kind()

    return make
