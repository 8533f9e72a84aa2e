"""Small tensors of the host: what is drawn for each image, read without asking a device.

What is random is drawn on the CPU, a few numbers an image, and sent to the device once: the same
seed gives the same images on every device, and what there is nothing to do for is known before
the device has begun.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from trainbus import UsageError

#: What parameters are computed in, before they are sent to a device.
FLOAT = torch.float64


def uniform(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    """Numbers in [0, 1), rows x columns, on the CPU."""
    return torch.rand(rows, columns, dtype=FLOAT, generator=generator)


def check_generator(generator: torch.Generator | None) -> None:
    """Refuse a generator of a device: reading what it drew would wait for that device."""
    if generator is not None and generator.device.type != "cpu":
        raise UsageError(
            f"the generator is on {generator.device}; augmentation draws on the CPU, whatever "
            "device the images are on: give a torch.Generator()"
        )


def true_rows(mask: Tensor) -> list[int]:
    """The indices at which a mask of N on the CPU is true.

    It is copied into memory that Python reads: nothing here could wait for a device.
    """
    assert mask.is_cpu
    if not len(mask):
        return []
    flags = bytearray(len(mask))
    torch.frombuffer(flags, dtype=torch.bool).copy_(mask)
    return [row for row, flag in enumerate(flags) if flag]


def numbers(values: Tensor) -> list[float]:
    """The numbers of a tensor of N on the CPU, read in the same way."""
    assert values.is_cpu
    if not len(values):
        return []
    memory = bytearray(8 * len(values))
    torch.frombuffer(memory, dtype=torch.float64).copy_(values)
    return list(struct.unpack(f"{len(values)}d", memory))


def send(values: Tensor, device: torch.device) -> Tensor:
    """The same as float32 on a device."""
    return values.to(torch.float32).to(device, non_blocking=True)


def index(rows: Sequence[int], like: Tensor) -> Tensor:
    """Indices on the device of `like`."""
    return torch.tensor(rows, dtype=torch.int64).to(like.device, non_blocking=True)
