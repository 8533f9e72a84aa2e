"""Which modules are captured, and which calls are replayed: what needs no GPU to be decided."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from trainbus_cuda.graphs import Call, _traits, same_shapes, why_not

X = torch.ones(2, 4)
RUN = SimpleNamespace(manual=False, device=torch.device("cpu"))


def hooked():
    module = nn.Linear(4, 2)
    module.register_forward_hook(lambda *_: None)
    return module


def replaced():
    module = nn.Linear(4, 2)
    module.forward = lambda x: x
    return module


def test_a_module_that_is_called_once_with_tensors_is_captured():
    assert why_not(nn.Linear(4, 2), [Call((X,), {}, None)], RUN) is None


@pytest.mark.parametrize(
    ("module", "calls", "run", "reason"),
    [
        (nn.Linear(4, 2), [Call((X,), {}, None)] * 2, RUN, "called it 2 times"),
        (nn.Linear(4, 2), [Call((X, 3), {}, None)], RUN, "something else than tensors"),
        (nn.Linear(4, 2), [Call((), {"input": X}, None)], RUN, "something else than tensors"),
        (
            nn.Linear(4, 2),
            [Call((X,), {}, None)],
            SimpleNamespace(manual=False, device=torch.device("cuda", 0)),
            "not on cuda:0",
        ),
        (
            nn.Linear(4, 2),
            [Call((X,), {}, None)],
            SimpleNamespace(manual=True, device=RUN.device),
            "steps by itself",
        ),
        (hooked(), [Call((X,), {}, None)], RUN, "hooks"),
        (replaced(), [Call((X,), {}, None)], RUN, "replaced"),
        (nn.Linear(4, 2).eval(), [Call((X,), {}, None)], RUN, "training mode"),
    ],
)
def test_others_are_not_and_the_reason_is_told(module, calls, run, reason):
    assert reason in why_not(module, calls, run)


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ((torch.zeros(2, 4),), True),
        ((torch.zeros(1, 4),), False),
        ((torch.zeros(2, 4, dtype=torch.float64),), False),
        ((torch.zeros(2, 4, requires_grad=True),), False),
        ((X, X), False),
        ((None,), False),
    ],
    ids=["same", "shape", "type", "gradient", "number", "kind"],
)
def test_a_call_is_replayed_only_if_it_is_like_the_captured_one(arguments, same):
    assert same_shapes(arguments, (X,)) is same


@pytest.mark.parametrize(
    "change",
    [lambda m: m[0].requires_grad_(False), lambda m: m[1].eval()],
    ids=["frozen", "evaluation mode"],
)
def test_a_module_that_changed_is_known(change):
    module = nn.Sequential(nn.Linear(4, 2), nn.Dropout())
    before = _traits(module)
    assert _traits(module) == before
    change(module)
    assert _traits(module) != before
