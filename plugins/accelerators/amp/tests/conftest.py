"""A small classifier, its data, and a CPU whose scaler overflows and grows within a few steps."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Accelerator, Task, Trainer
from trainbus.testing.fixtures import own_directory  # noqa: F401


class Classifier(Task):
    """Eight numbers to one of three classes; notes the type that its last layer computed in."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 3)
        )
        self.seen = []

    def forward(self, inputs):
        output = self.net(inputs)
        self.seen.append(output.dtype)
        return output

    def training_step(self, batch, run):
        inputs, target = batch
        loss = functional.cross_entropy(self(inputs), target)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        self(batch[0])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture
def make_task():
    """A classifier with always the same first weights."""

    def make(kind=Classifier):
        torch.manual_seed(1)
        return kind()

    return make


@pytest.fixture
def task(make_task):
    """One such classifier."""
    return make_task()


@pytest.fixture
def batches():
    """Twelve batches of 16 samples that can be learned."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(192, 8, generator=generator)
    target = inputs[:, :3].argmax(dim=1)
    return [(inputs[i : i + 16], target[i : i + 16]) for i in range(0, 192, 16)]


class QuickScaler(Accelerator):
    """The CPU, with a scale that is too high at first and grows after three good steps."""

    first = 2.0**28
    interval = 3

    def scaler(self):
        return torch.amp.GradScaler("cpu", init_scale=self.first, growth_interval=self.interval)


@pytest.fixture
def quick():
    """A CPU with a scaler in a hurry."""
    return QuickScaler()


@pytest.fixture
def trainer():
    """`trainer(precision, **options)`, with the plugin and without files."""

    def make(precision, *plugins, amp="amp", **options):
        names = [amp, "-journal", "-manifest", *plugins]
        return Trainer(precision=precision, plugins=names, **{"seed": 3, **options})

    return make


@pytest.fixture
def amp():
    """The plugin of a trainer."""
    return lambda trainer: trainer.bus.plugins["amp"]
