"""The options and the state of an optimizer in a file: whether a step can be made with them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainbus.errors import CheckpointError

#: Options that choose a kernel, and not what is kept.
_FAST = ("capturable", "foreach", "fused")


def check_described(
    descriptions: Sequence[Mapping[str, Any]], saved: Sequence[dict[str, Any]], source: str
) -> None:
    """Refuse optimizers, or groups of them, that are described as others. Raises
    `CheckpointError`."""
    counts = [
        (len(about["names"]), len(about["given"]), len(state["param_groups"]))
        for about, state in zip(descriptions, saved, strict=False)
    ]
    if len(descriptions) != len(saved) or any(len({*each}) > 1 for each in counts):
        raise CheckpointError(f"{source} holds other optimizers or groups than it describes")


def check(optimizer: Optimizer, state: dict[str, Any], what: str) -> None:
    """Raise `CheckpointError` for options and tensors that no step could be made with."""
    place = 0
    for fresh, group in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in fresh.items():
            # What is not there came with a later version: it is what it is without a checkpoint.
            saved = group.setdefault(key, value)
            if key != "params" and not _is_like(saved, value):
                raise CheckpointError(
                    f"{what}: {key} is {saved!r:.60}, where the task has {value!r:.60}"
                )
        needed = _kept_by(optimizer, group)
        for parameter in fresh["params"]:
            kept = state["state"].get(place, {})
            if kept and (missing := sorted(set(needed) - set(kept))):
                raise CheckpointError(f"{what} has no {missing[0]} for one of its parameters")
            for key, value in kept.items():
                if not _may_belong_to(value, needed.get(key), parameter, optimizer):
                    raise CheckpointError(
                        f"{what}: {key} is {_form(value)}, and its parameter {_form(parameter)}"
                    )
            place += 1


def _kept_by(optimizer: Optimizer, options: dict[str, Any]) -> dict[str, Any]:
    """What an optimizer of torch keeps for a parameter of one row and one column, as one with
    these options shows."""
    kind = type(optimizer)
    if not kind.__module__.startswith("torch.optim"):
        return {}
    known = inspect.signature(kind).parameters
    given = {key: value for key, value in options.items() if key in known and key != "params"}
    parameter = torch.zeros(1, 1, requires_grad=True)
    parameter.grad = torch.zeros(1, 1)
    try:
        one = kind([parameter], **{**given, **{key: False for key in _FAST if key in known}})
        one.step()
    except Exception:  # it wants a closure, or another parameter: then it is not known
        return {}
    return {key: value for key, value in one.state[parameter].items() if value is not None}


def _is_like(saved: Any, value: Any) -> bool:
    """Whether an option of a file can stand for one that is given."""
    if saved is None or value is None or type(saved) is type(value):
        both = isinstance(saved, (list, tuple)) and isinstance(value, (list, tuple))
        return not both or (len(saved) == len(value) and all(map(_is_like, saved, value)))
    if isinstance(saved, (list, tuple)) and isinstance(value, (list, tuple)):
        return len(saved) == len(value) and all(map(_is_like, saved, value))
    return _is_number(saved) and _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (
        isinstance(value, Tensor) and value.numel() == 1
    )


def _may_belong_to(value: Any, example: Any, parameter: Tensor, optimizer: Optimizer) -> bool:
    """Whether an optimizer may keep it for a parameter: what is larger than it is none of torch's.

    Those of torch, but for two, keep numbers, and tensors of the parameter's shape.

    Args:
        value: what a file has.
        example: what such an optimizer keeps for one of one row and one column, if that is known.
        parameter: the parameter at hand.
        optimizer: the optimizer at hand.
    """
    if isinstance(value, Tensor) and value.shape == parameter.shape:
        return True
    if isinstance(example, Tensor) and example.ndim:
        if not isinstance(value, Tensor):
            return False
    elif example is not None:
        return _is_number(value)
    elif not isinstance(value, Tensor) or value.numel() <= 1:
        return True
    name = type(optimizer).__name__
    if name == "LBFGS" or not type(optimizer).__module__.startswith("torch.optim"):
        return True
    return name == "Adafactor" and value.numel() <= parameter.numel()


def _form(value: Any) -> str:
    shape = "x".join(map(str, value.shape)) if isinstance(value, Tensor) else repr(value)[:60]
    return f"of shape {shape}" if isinstance(value, Tensor) else shape
