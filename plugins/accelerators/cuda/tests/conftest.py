"""A directory of its own for each test, something to train, and whether there is a GPU."""

import pytest
import torch
from torch import nn

from trainbus import Task
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

environment = clean_environment()


class Net(Task):
    """Four numbers to three classes, with dropout and a norm."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3)
        )

    def training_step(self, batch, run):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@pytest.fixture
def make_net():
    """The class `Net`, to make or to subclass."""
    return Net


@pytest.fixture
def batches():
    """Six batches of eight."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(48, 4, generator=generator)
    y = (x.sum(1) > 0).long() + (x[:, 0] > 1).long()
    return list(zip(x.split(8), y.split(8), strict=True))
