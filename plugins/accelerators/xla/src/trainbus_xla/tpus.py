"""What both stacks know of TPUs."""

from __future__ import annotations

import re

import torch

#: Types that a TPU multiplies matrices in: float16 it would compute in float32.
DTYPES = frozenset({torch.float32, torch.float64, torch.bfloat16})

#: Operations in bfloat16 per second and device, by generation: "peak compute per chip" on Google's
#: pages docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}; a chip of TPU7x is two devices.
_PEAK = {
    "v4": 275e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "v6e": 918e12,
    "v7": 2307e12 / 2,
}

#: How the runtimes call them: `TPU v5 lite`, `TPU v5e`, `TPU7x`.
_NAMES = (
    (r"v?7x?", "v7"),
    (r"v6 ?(lite|e)", "v6e"),
    (r"v5 ?(lite|e)", "v5e"),
    (r"v5p?", "v5p"),
    (r"v4", "v4"),
)


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """Operations per second of a TPU of this name, or None for another name or type."""
    if dtype is not torch.bfloat16:
        return None
    for pattern, generation in _NAMES:
        if re.fullmatch(rf"TPU ?{pattern}", name):
            return _PEAK[generation]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is the runtime's word for too little memory."""
    return isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
