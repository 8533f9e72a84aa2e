"""Tiny tasks and their data; each test compiles anew."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task
from trainbus.testing.fixtures import own_directory  # noqa: F401


@pytest.fixture(autouse=True)
def compile_anew():
    """No test takes what another one compiled."""
    torch.compiler.reset()


class Block(nn.Module):
    """A layer with a shortcut."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, inputs):
        return inputs + torch.relu(self.linear(inputs))


class Deep(nn.Module):
    """Some blocks of one class, and a head."""

    def __init__(self, blocks=4):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(4, 3)

    def forward(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)


class Net(Task):
    """Four numbers to one of three classes, by `net`."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, run):
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        run.log(loss=functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture
def make_net():
    """A function that makes the same task each time, of a module if one is given."""

    def make(net=None):
        torch.manual_seed(0)
        return Net(net)

    return make


@pytest.fixture
def make_deep():
    """A function that makes the same module of blocks each time."""

    def make(blocks=4):
        torch.manual_seed(0)
        return Deep(blocks)

    return make


@pytest.fixture
def make_batches():
    """A function that makes batches of the sizes that are given."""

    def make(*sizes):
        generator = torch.Generator().manual_seed(1)
        inputs = [torch.randn(size, 4, generator=generator) for size in sizes]
        return [(each, each[:, :3].argmax(dim=1)) for each in inputs]

    return make


@pytest.fixture
def batches(make_batches):
    """Four batches of four samples."""
    return make_batches(4, 4, 4, 4)
