"""Optimizers that update all parameters in one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer

#: Those whose fused kernels torch has on each device. A subclass may compute something else.
_FUSED = (Adam, AdamW, SGD)


def fuse(optimizer: Optimizer, device_type: str) -> bool:
    """Fuse an optimizer, in place; False when it cannot be, or when its maker has chosen.

    The update is the same up to rounding. An optimizer that was loaded from a checkpoint is fused
    with its state.

    Args:
        optimizer: any one.
        device_type: where its parameters have to be.
    """
    if type(optimizer) not in _FUSED:
        return False
    if not all(_can_be(group, device_type) for group in optimizer.param_groups):
        return False
    optimizer.defaults["fused"] = True  # for groups that are added later
    for group in optimizer.param_groups:
        group["fused"] = True
        for parameter in group["params"]:
            # The counter of steps: on the host for the others, on the device for a fused one.
            step = optimizer.state.get(parameter, {}).get("step")
            if isinstance(step, torch.Tensor):
                optimizer.state[parameter]["step"] = step.to(parameter.device, torch.float32)
    return True


def _can_be(group: dict[str, Any], device_type: str) -> bool:
    chosen = group["fused"] is False or group["foreach"] is not None
    if chosen or group["differentiable"]:
        return False
    return all(
        parameter.device.type == device_type and torch.is_floating_point(parameter)
        for parameter in group["params"]
    )
