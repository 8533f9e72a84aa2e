"""Small networks, and training by hand."""

import copy
import functools

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory, from the same seed."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


class Net(nn.Module):
    """A convolution (channels last), an embedding-free body with norms, odd parameters."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Linear(144, 16)
        self.layer = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)
        self.scale = nn.Parameter(torch.tensor(0.7))  # 0-D
        self.none = nn.Parameter(torch.zeros(0, 3))  # empty
        self.sometimes = nn.Parameter(torch.randn(3))  # without a gradient in some steps
        self.frozen = nn.Parameter(torch.randn(5), requires_grad=False)

    def forward(self, x, with_all=True):
        x = self.norm(self.conv(x)).relu().flatten(1)
        x = self.head(self.layer(self.body(x)).relu()) * self.scale + self.none.sum()
        return x + self.sometimes if with_all else x


@pytest.fixture
def net():
    """A network, always with the same first weights."""
    torch.manual_seed(0)
    return Net()


def train(model, optimizer, steps=100, start=0, dtype=torch.float32):
    """Make steps on data that depend on the number of the step alone."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 1, 8, 8, generator=generator).to(dtype)
        optimizer.zero_grad()
        out = model(x, with_all=step % 7 != 3)
        (out - x.mean(dim=(1, 2, 3))[:, None]).square().mean().backward()
        optimizer.step()
    return [each.detach().clone() for each in model.parameters()]


@pytest.fixture
def trained():
    """`trained(model, optimizer, steps)` gives the parameters after the steps."""
    return train


@pytest.fixture
def twins(net):
    """Two networks with equal weights."""
    return net, copy.deepcopy(net)


SHAPES = [(), (0, 3), (7,), (5, 6), (4, 2, 3, 3), (257, 257)]


@functools.cache
def drawn(step, dtype):
    """Gradients of the shapes above, always the same."""
    generator = torch.Generator().manual_seed(step)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in SHAPES
    ]


def walk(make, dtype=torch.float32, steps=100):
    """A hundred steps with made gradients: many shapes and layouts, some absent now and then."""
    parameters = [nn.Parameter(each.clone()) for each in drawn(99, dtype)]
    parameters[4].data = parameters[4].data.to(memory_format=torch.channels_last)
    parameters += [nn.Parameter(torch.ones(3, dtype=dtype), requires_grad=False)]
    optimizer = make(parameters)
    for step in range(steps):
        made = zip(parameters, drawn(step % 9, dtype), strict=False)
        for index, (each, gradient) in enumerate(made):
            absent = index == 2 and step % 7 == 3
            each.grad = None if absent else torch.empty_like(each).copy_(gradient).detach()
        optimizer.step()
    return [each.detach().clone() for each in parameters]


@pytest.fixture
def walked():
    """`walked(make)` gives the parameters after a hundred steps of the optimizer made."""
    return walk
