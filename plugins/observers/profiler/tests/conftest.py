"""A tiny task, and loaders and plugins that take a known time."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, hookimpl
from trainbus.testing.fixtures import own_directory  # noqa: F401


@pytest.fixture(autouse=True)
def nothing_slept():
    """Each test has its own sleeps."""
    SLEPT.clear()


#: How long each sleep really took, by how long it was asked to: more on a busy machine.
SLEPT = {}


def rest(seconds):
    """Sleep; not at all for 0 seconds, which would let other processes run."""
    if seconds:
        began = time.perf_counter()
        time.sleep(seconds)
        SLEPT.setdefault(round(seconds * 1e3), []).append(time.perf_counter() - began)


@pytest.fixture
def sleep():
    """Sleep so many seconds, so that `takes` knows of it."""
    return rest


@pytest.fixture
def takes():
    """Whether a part took, in the mean, what its sleeps really took: both in milliseconds."""

    def check(measured, asked):
        usual = SLEPT[asked][1:]  # the first batch is told apart
        really = sum(usual) / len(usual) * 1e3
        return 0.95 * really <= measured < 1.1 * really + 1

    return check


class Line(Task):
    """Four numbers to one, by least squares; each pass may take a known time."""

    def __init__(self, forward=0.0, backward=0.0, step=0.0):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.seconds = forward
        self.step_seconds = step
        if backward:
            self.linear.weight.register_hook(lambda _gradient: rest(backward))

    def training_step(self, batch, run):
        rest(self.seconds)
        loss = functional.mse_loss(self.linear(batch), batch[:, :1])
        run.log(loss=loss)
        return loss

    validation_step = training_step

    def configure_optimizer(self):
        return SlowSGD(self.parameters(), self.step_seconds)


class SlowSGD(torch.optim.SGD):
    """Gradient descent whose step takes a known time."""

    def __init__(self, parameters, seconds):
        super().__init__(parameters, lr=0.01)
        self.seconds = seconds

    def step(self, closure=None):
        rest(self.seconds)
        return super().step(closure)


class Batches:
    """So many batches of two samples, each of which takes a known time to read."""

    def __init__(self, count=20, seconds=0.0):
        self.count = count
        self.seconds = seconds

    def __len__(self):
        return self.count

    def __iter__(self):
        for _ in range(self.count):
            rest(self.seconds)
            yield torch.randn(2, 4)


class Sleeper:
    """A plugin that takes its time after each batch."""

    plugin_name = "sleeper"

    def __init__(self, seconds):
        self.seconds = seconds

    @hookimpl
    def on_train_batch_end(self):
        rest(self.seconds)


@pytest.fixture
def make_line():
    """The class `Line`."""
    return Line


@pytest.fixture
def make_batches():
    """The class `Batches`."""
    return Batches


@pytest.fixture
def make_sleeper():
    """The class `Sleeper`."""
    return Sleeper
