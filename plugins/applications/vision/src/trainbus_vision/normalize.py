"""Normalize: the first layer of every model of this package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainbus import UsageError

#: Mean and standard deviation of ImageNet's channels, in [0, 1]: what most weights know.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalize(nn.Module):
    """Images as they are stored, to numbers around 0: `(x - mean) / std` for each channel.

    uint8 is scaled by 1/255 first; floats are taken as being in [0, 1]. As part of the model it
    travels with the weights, and a batch stays in bytes until it is on the device.

    Args:
        mean: of each channel, in [0, 1].
        std: of each channel, greater than 0.
    """

    #: A learner hands it bytes as they are.
    scales_bytes = True
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std, default=0) <= 0:
            raise UsageError(
                f"Normalize(mean={list(mean)}, std={list(std)}): give one mean and one standard "
                "deviation above 0 for each channel"
            )
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """N x C x H x W in uint8 or floats -> the same in the type of the buffers."""
        scale = 1 / self.std
        shift = -self.mean * scale
        if not images.is_floating_point():
            scale = scale / 255
        images = images.to(self.mean.dtype)
        return images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    def extra_repr(self) -> str:
        """Its numbers, as `print(model)` shows them."""
        return f"mean={_short(self.mean)}, std={_short(self.std)}"


def channel_stats(batches: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in [0, 1], of batches N x C x H x W."""
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for images in batches:
        values = images.double() if images.is_floating_point() else images.double() / 255
        count += values.numel() // values.shape[1]
        total = total + values.sum((0, 2, 3)).cpu()
        squares = squares + values.square().sum((0, 2, 3)).cpu()
    mean = total / count
    # A channel that is the same everywhere has no deviation: it is left at its scale.
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < 1e-4, torch.ones_like(std), std)
    return _rounded(mean), _rounded(std)


def for_channels(
    stats: Sequence[Sequence[float]], channels: int
) -> tuple[list[float], list[float]]:
    """Statistics of three channels for another number: their mean for one, else repeated."""
    mean, std = stats
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    return (
        [mean[channel % len(mean)] for channel in range(channels)],
        [std[channel % len(std)] for channel in range(channels)],
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


def _short(values: Tensor) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values.tolist()) + "]"
