"""Effects of the policies that are no affine map of the colors: each in a pass of its own.

All take images, k x C x H x W in [0, 1], and amounts, k on the CPU. Where the originals work on
bytes, so do these.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainbus_augment import host


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each byte."""
    step = _per_image(2 ** (8 - bits.round()), images)
    return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at least as bright as the threshold, in [0, 1]."""
    return torch.where(images >= _per_image(threshold, images), 1 - images, images)


def autocontrast(images: Tensor, _amount: Tensor) -> Tensor:
    """Stretch each channel to the whole range; one of a single color stays."""
    low = images.amin(dim=(2, 3), keepdim=True)
    span = images.amax(dim=(2, 3), keepdim=True) - low
    return torch.where(span > 0, (images - low) / span, images)


def equalize(images: Tensor, _amount: Tensor) -> Tensor:
    """Make all levels of each channel about equally frequent, as Pillow does."""
    levels = (images * 255).round_().long().flatten(2)
    count = torch.zeros(*levels.shape[:2], 256, device=images.device)
    count.scatter_add_(2, levels, torch.ones_like(levels, dtype=count.dtype))
    below = count.cumsum(dim=2)
    # Pillow: steps of all pixels but the ones at the highest level that is there.
    highest = levels.amax(dim=2, keepdim=True)
    step = ((below[..., -1:] - count.gather(2, highest)) / 255).floor()
    table = ((step / 2).floor() + below - count) / step
    table = torch.where(step > 0, table.floor().clamp(0, 255) / 255, torch.nan)
    new = table.gather(2, levels).view(images.shape)
    return torch.where(new.isnan(), images, new)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image: below 1 smoother, above 1 sharper. The border stays."""
    weights = torch.tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = host.send(weights, images.device).to(images.dtype)
    channels = images.shape[1]
    smooth = functional.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    new = images.clone()
    inner = new[..., 1:-1, 1:-1]
    inner.copy_(torch.lerp(smooth, inner, _per_image(factor, images)))
    return new.clamp_(0, 1)


def _per_image(amounts: Tensor, images: Tensor) -> Tensor:
    return host.send(amounts, images.device)[:, None, None, None]
