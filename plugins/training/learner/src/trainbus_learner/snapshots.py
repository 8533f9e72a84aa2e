"""What a look at a model changes and puts back: modes, weights, positions, random states."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import Accelerator
from trainbus.batches import innermost, parts
from trainbus.engine.snapshot import same_modes


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every module has its mode again."""
    with same_modes(model), torch.no_grad():
        for module in model.modules():
            module.training = False
        yield


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Afterwards the random states of the host are what they were before."""
    host = Accelerator()
    state = host.random_state()
    try:
        yield
    finally:
        host.set_random_state(state)


@contextmanager
def kept(
    model: nn.Module, loaders: Iterable[Any] = (), plugins: Iterable[object] = ()
) -> Iterator[None]:
    """Put back, whatever happens: weights, buffers, gradients, modes, loaders and plugins' states.

    The random states of the host are put back, too. Copies are kept on the CPU, so that a
    measurement of the device's memory does not see them.

    Args:
        model: parameters and buffers get their values in place.
        loaders: counters of epochs and positions, and their random generators.
        plugins: those with `state_dict` and `load_state_dict` (a scaler of gradients, the
            generator of an augmentation).
    """
    # By name: buffers become other tensors when a module moves to another device.
    values = {name: each.detach().to("cpu", copy=True) for name, each in _tensors(model)}
    gradients = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    positions = [_position(part) for loader in loaders for part in _parts(innermost(loader))]
    states = [
        (plugin, copy.deepcopy(plugin.state_dict()))
        for plugin in plugins
        if hasattr(plugin, "state_dict") and hasattr(plugin, "load_state_dict")
    ]
    for parameter in model.parameters():  # those that are here belong to the caller
        parameter.grad = None
    with same_modes(model), random_states_kept():
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _tensors(model):
                    tensor.copy_(values[name])
            for parameter, gradient, trained in gradients:
                parameter.requires_grad_(trained)
                parameter.grad = gradient
            for part, counters, generator in positions:
                _set_position(part, counters, generator)
            for plugin, state in states:
                plugin.load_state_dict(state)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _parts(loader: Any) -> list[Any]:
    """A loader, its samplers, and what they hold their order in."""
    found = [*parts(loader), getattr(loader, "order", None)]
    return list({id(part): part for part in found if hasattr(part, "__dict__")}.values())


def _position(part: Any) -> tuple[Any, dict[str, Any], Tensor | None]:
    counters = {name: value for name, value in vars(part).items() if type(value) is int}
    generator = getattr(part, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    return part, counters, state


def _set_position(part: Any, counters: dict[str, int], generator: Tensor | None) -> None:
    for name, value in counters.items():
        if vars(part).get(name) != value:  # a DataLoader lets some be set once only
            setattr(part, name, value)
    if generator is not None:
        part.generator.set_state(generator)
