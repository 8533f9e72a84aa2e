"""Whether a copy of a model fits into each process."""

from __future__ import annotations

import torch
from torch import nn

#: Of the memory of a device, for what is no activation.
_SHARE = 0.6


def bytes_of(model: nn.Module) -> int:
    """What parameters, gradients and the two moments of Adam take, in bytes."""
    return sum(
        each.numel() * each.element_size() * (4 if each.requires_grad else 1)
        for each in model.parameters()
    )


def fits(model: nn.Module, device: torch.device) -> tuple[bool, str]:
    """Whether a whole copy leaves room for activations, and that in words."""
    needed = bytes_of(model) / 2**30
    if device.type == "cpu":
        return True, f"a copy with gradients and two moments takes {needed:.2f} GiB"
    total = torch.get_device_module(device).get_device_properties(device).total_memory / 2**30
    does = needed <= _SHARE * total
    return does, (
        f"a copy with gradients and two moments takes {needed:.2f} of {total:.0f} GiB of a device"
    )
