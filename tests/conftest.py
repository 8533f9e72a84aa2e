"""What all tests share: a tiny task, its data, and a guard against what a test leaves behind."""

import random
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus import Task


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path, monkeypatch):
    """Each test works in a directory of its own and leaves the process as it found it."""
    monkeypatch.chdir(tmp_path)
    for name in ("TRAINBUS_PLUGINS",):
        monkeypatch.delenv(name, raising=False)
    torch.manual_seed(0)
    random.seed(0)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


class Line(Task):
    """Four numbers to one, by least squares."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.linear(self.dropout(x))

    def training_step(self, batch, run):
        x, y = batch
        loss = functional.mse_loss(self(x), y)
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        x, y = batch
        loss = functional.mse_loss(self(x), y)
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def line():
    """A new `Line`."""
    return Line()


@pytest.fixture
def make_line():
    """The class `Line`, to subclass or to make with arguments."""
    return Line


@pytest.fixture
def make_loader():
    """A loader of `batches` batches of `size` samples of the same line, and `rest` samples more."""

    def make(batches=5, size=2, rest=0, **options):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(batches * size + rest, 4, generator=generator)
        y = x @ torch.tensor([[1.0], [-2.0], [3.0], [0.5]])
        return DataLoader(TensorDataset(x, y), batch_size=size, **options)

    return make


@pytest.fixture
def loader(make_loader):
    """Five batches of two."""
    return make_loader()


class Recorder:
    """A plugin that notes each event of a run, and its step and batch."""

    def __init__(self, hooks):
        from trainbus import hookimpl

        self.events = []
        for name, hook in hooks.items():
            if hook.kind == "event":
                scope = {"events": self.events}
                arguments = ", ".join(hook.arguments)
                exec(f"def {name}({arguments}): events.append({name.removeprefix('on_')!r})", scope)
                setattr(self, name, hookimpl(scope[name]))


@pytest.fixture
def record():
    """Give a trainer a recorder of all events; returns the list of their names, without `on_`."""

    def start(trainer):
        recorder = Recorder(trainer.bus.hooks)
        trainer.bus.register(recorder, "recorder")
        return recorder.events

    return start
