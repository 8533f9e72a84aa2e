"""From what a task is given to its optimizer: a name, a factory, or one that is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from trainbus.errors import PluginError, UsageError, nearest
from trainbus.events.plugin import Plugin
from trainbus.plugins.discovery import Installed

#: Entry points of functions that make an optimizer of a model, or of groups and `model=`.
GROUP = "trainbus.optimizers"

Factory = Callable[..., Optimizer]

#: Devices that torch has fused kernels for.
_FUSED = ("cpu", "cuda", "mps", "xpu")


def make_optimizer(
    factory: Factory | str, model: nn.Module, groups: Iterable[Any] | None = None
) -> Optimizer:
    """The optimizer that a factory makes, or the one that is installed under a name.

    Args:
        factory: called with parameters, as `torch.optim.SGD` is; one with a true attribute
            `takes_model`, or a name, is called with the model, or with groups and `model=`.
        model: whose parameters are trained.
        groups: parameters, or groups of them; by default those of the model.

    Raises:
        UsageError: nothing that is installed has the name.
    """
    if isinstance(factory, str):
        factory = optimizer_named(factory)
    inner = factory.func if isinstance(factory, partial) else factory
    if not getattr(inner, "takes_model", False):
        return factory(model.parameters() if groups is None else groups)
    return factory(model) if groups is None else factory(groups, model=model)


def optimizer_named(name: str) -> Factory:
    """The factory that is installed under a name. Raises `UsageError`."""
    known = Installed().group(GROUP)
    if name not in known:
        hint = nearest(name, known) if known else "; pip install trainbus-optim brings some"
        raise UsageError(f"there is no optimizer {name!r}{hint}")
    try:
        factory: Factory = known[name].load()
    except PluginError as error:
        raise UsageError(f"optimizer {name!r}: {error}") from error
    return factory


def usual(model: nn.Module) -> Optimizer:
    """AdamW with a rate of 1e-3, in one kernel where torch has one for these parameters."""
    parameters = list(model.parameters())
    fused = all(p.device.type in _FUSED and torch.is_floating_point(p) for p in parameters)
    return torch.optim.AdamW(parameters, lr=1e-3, fused=fused or None)


def listeners_of(optimizers: Sequence[Optimizer]) -> list[Plugin]:
    """What optimizers bring to the bus of a run, as `optimizer`, `optimizer_1`, ...: an attribute
    `listener` (one whose weights are averaged exchanges them for validation)."""
    return [
        Plugin(f"optimizer_{number}" if number else "optimizer", listener, type(each).__name__)
        for number, each in enumerate(optimizers)
        if (listener := getattr(each, "listener", None)) is not None
    ]
