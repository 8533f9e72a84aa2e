"""A first layer for another number of channels, with what the pretrained one knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainbus import UsageError


def adapt_channels(model: nn.Module, channels: int, name: str) -> None:
    """Make a model take this many channels, in place; its first convolution keeps what it knows.

    For one channel the kernels of red, green and blue are added up: a grey image gives what it gave
    as three equal channels. For more, the kernels are repeated (red, green, blue, red, ...) and
    scaled by 3 / channels, so that activations keep their size. The bias is kept.

    Raises:
        UsageError: it has no convolution, or one in groups, where its images come in.
    """
    place = next(
        ((path, layer) for path, layer in model.named_modules() if isinstance(layer, nn.Conv2d)),
        None,
    )
    if place is None:
        raise UsageError(
            f"{name} has no convolution that could be made to take {channels} channels"
        )
    path, layer = place
    if layer.in_channels == channels:
        return
    if layer.groups != 1:
        raise UsageError(
            f"{name}: its first convolution works in {layer.groups} groups, and cannot be made to "
            f"take {channels} channels instead of {layer.in_channels}"
        )
    fresh = nn.Conv2d(
        channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )
    with torch.no_grad():
        fresh.weight.copy_(adapted(layer.weight, channels))
        if layer.bias is not None and fresh.bias is not None:
            fresh.bias.copy_(layer.bias)
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, fresh)


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Kernels out x in x height x width for another number of input channels."""
    if channels == 1:
        return weight.sum(1, keepdim=True)
    had = weight.shape[1]
    repeated = weight[:, [channel % had for channel in range(channels)]]
    return repeated * (had / channels)
