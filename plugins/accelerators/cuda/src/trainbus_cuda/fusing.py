"""Optimizers that update all parameters in one kernel."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

#: Those whose fused kernels torch has on each device. A subclass may compute something else.
_FUSED = (Adam, AdamW, SGD)


def fuse(optimizer: Optimizer, device_type: str, but: Collection[torch.nn.Parameter] = ()) -> bool:
    """Fuse an optimizer, in place; False when it cannot be, or when its maker has chosen.

    The update is the same up to rounding. An optimizer that was loaded from a checkpoint is fused
    with its state.

    Args:
        optimizer: any one.
        device_type: where its parameters have to be.
        but: parameters whose gradients are sparse, which no fused kernel takes.
    """
    if type(optimizer) not in _FUSED:
        return False
    if not all(_can_be(group, device_type) for group in optimizer.param_groups):
        return False
    sparse = {id(each) for each in but}
    if any(id(p) in sparse for group in optimizer.param_groups for p in group["params"]):
        return False
    optimizer.defaults["fused"] = True  # for groups that are added later
    for group in optimizer.param_groups:
        group["fused"] = True
        for parameter in group["params"]:
            # The counter of steps: on the host for the others, on the device for a fused one.
            state = optimizer.state.get(parameter, {})
            if isinstance(step := state.get("step"), torch.Tensor):
                state["step"] = step.to(parameter.device, torch.float32)
            for key, value in state.items():
                if _is_laid_out_otherwise(value, parameter):
                    state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
    return True


def _is_laid_out_otherwise(value: Any, parameter: torch.Tensor) -> bool:
    """Whether a moment has other strides than its weight: fused kernels want the same."""
    return (
        isinstance(value, torch.Tensor)
        and value.shape == parameter.shape
        and value.stride() != parameter.stride()
    )


def with_sparse_gradients(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The weights of embeddings whose gradients are sparse."""
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, (torch.nn.Embedding, torch.nn.EmbeddingBag)) and module.sparse
    ]


def _can_be(group: dict[str, Any], device_type: str) -> bool:
    chosen = group["fused"] is False or group["foreach"] is not None
    if chosen or group["differentiable"]:
        return False
    return all(
        parameter.device.type == device_type and torch.is_floating_point(parameter)
        for parameter in group["params"]
    )
