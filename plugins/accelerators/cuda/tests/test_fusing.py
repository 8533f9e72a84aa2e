"""Optimizers become fused ones in place, where their maker has not chosen."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, AdamW

from trainbus_cuda.fusing import fuse


def model():
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def steps(module, optimizer, number=3):
    generator = torch.Generator().manual_seed(2)
    for _ in range(number):
        module(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return module.state_dict()


@pytest.mark.parametrize(
    "make",
    [Adam, AdamW, lambda p: AdamW(p, amsgrad=True), lambda p: SGD(p, lr=0.1, momentum=0.9)],
)
def test_a_fused_optimizer_computes_the_same(make):
    plain, fused = model(), model()
    optimizer = make(fused.parameters())
    assert fuse(optimizer, "cpu")
    assert all(group["fused"] for group in optimizer.param_groups)
    expected = steps(plain, make(plain.parameters()))
    torch.testing.assert_close(steps(fused, optimizer), expected)


def test_one_that_has_stepped_goes_on_from_its_state():
    plain, fused = model(), model()
    one, other = AdamW(plain.parameters()), AdamW(fused.parameters())
    for module, optimizer in ((plain, one), (fused, other)):
        steps(module, optimizer)
    assert fuse(other, "cpu")
    torch.testing.assert_close(steps(fused, other), steps(plain, one))


def test_one_that_loads_the_state_of_another_is_fused_again():
    module = model()
    optimizer = AdamW(module.parameters())
    fuse(optimizer, "cpu")
    other = model()
    saved = AdamW(other.parameters())
    steps(other, saved)
    optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert not optimizer.param_groups[0]["fused"]
    assert fuse(optimizer, "cpu")
    module.load_state_dict(other.state_dict())
    torch.testing.assert_close(steps(module, optimizer), steps(other, saved))


def test_groups_that_come_later_are_fused_too():
    module = model()
    optimizer = AdamW([module.weight])
    fuse(optimizer, "cpu")
    optimizer.add_param_group({"params": [module.bias]})
    assert optimizer.param_groups[1]["fused"]


class Own(AdamW):
    """Computes what it likes."""


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(model().parameters(), fused=False),
        AdamW(model().parameters(), foreach=True),
        AdamW(model().parameters(), differentiable=True),
        AdamW([nn.Parameter(torch.zeros(2, dtype=torch.complex64))]),
        Adagrad(model().parameters()),
        Own(model().parameters()),
    ],
    ids=["fused=False", "foreach", "differentiable", "complex", "another", "a subclass"],
)
def test_what_cannot_be_fused_or_was_chosen_stays(optimizer):
    before = copy.deepcopy(optimizer.param_groups)
    assert not fuse(optimizer, "cpu")
    assert [group["fused"] for group in optimizer.param_groups] == [g["fused"] for g in before]


def test_parameters_elsewhere_are_left_alone():
    assert not fuse(AdamW(model().parameters()), "cuda")
