"""A U-Net on any body: from an image to outputs for each of its pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner.snapshots import evaluating
from trainbus_vision.body import Body

#: The most maps that the way up begins with: wide bodies have 2,048 and more.
_WIDEST = 512


class Unet(nn.Module):
    """The maps of a body, from the coarsest up, each joined with the maps of the next size.

    U-Net: Ronneberger et al. (2015). Where the body's maps change their size they are kept; on the
    way up the image is doubled by rearranged pixels (Shi et al., 2016), whose convolution begins so
    that neighbours are alike (Aitken et al., 2017). Images of any size, odd ones too: maps are
    brought to the size of the maps that they join, and the result to the size of the image. Each
    step up has half as many maps as go into it.

    Args:
        body: gives maps in several sizes.
        channels: of the images.
        outputs: numbers for each pixel.
        size: height and width of the images, to see what the body gives.

    Raises:
        UsageError: the body has one resolution only.
    """

    def __init__(self, body: Body, channels: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        with evaluating(body):
            found = body.maps(torch.zeros(1, channels, *size))
        if len(found) < 2 or any(each.ndim != 4 for each in found):
            raise UsageError(
                f"{body.name} gives no maps in several sizes, which a U-Net joins; take one that "
                "does: resnet34, convnext_tiny or swin_t for example"
            )
        self.body = body
        widths = [each.shape[1] for each in found]
        width = min(widths[-1], _WIDEST)
        self.bottom = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            _convolution(widths[-1], width),
            _convolution(width, width),
        )
        self.steps = nn.ModuleList()
        for skip in widths[-2::-1]:
            step = UpStep(width, skip)
            self.steps.append(step)
            width = step.width
        self.last = Doubled(width, width)
        self.mix = _convolution(width + channels, width)
        self.outputs = nn.Conv2d(width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images N x C x height x width -> N x outputs x height x width."""
        *skips, maps = self.body.maps(images)
        maps = self.bottom(maps)
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            maps = step(maps, skip)
        if maps.shape[2:] != images.shape[2:]:
            maps = _resized(self.last(maps), images.shape[2:])
        result: Tensor = self.outputs(self.mix(torch.cat((maps, images), dim=1)))
        return result


class UpStep(nn.Module):
    """Double the size of maps, and join them with those that the body had in that size."""

    def __init__(self, width: int, skip: int) -> None:
        super().__init__()
        half = max(width // 2, 8)
        self.width = max((half + skip) // 2, 16)
        self.upsample = Doubled(width, half)
        self.norm = nn.BatchNorm2d(skip)
        self.join = nn.Sequential(
            nn.ReLU(), _convolution(half + skip, self.width), _convolution(self.width, self.width)
        )

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """N x width x h x w and N x skip x H x W -> N x ... x H x W."""
        maps = _resized(self.upsample(maps), skip.shape[2:])
        joined: Tensor = self.join(torch.cat((maps, self.norm(skip)), dim=1))
        return joined


class Doubled(nn.Sequential):
    """Maps of twice the height and width, by a convolution whose outputs are rearranged."""

    def __init__(self, before: int, after: int) -> None:
        spread = nn.Conv2d(before, 4 * after, 1)
        nn.init.kaiming_normal_(spread.weight, nonlinearity="relu")
        with torch.no_grad():  # the four pixels that come of one begin alike: no checkerboard
            spread.weight.copy_(spread.weight[::4].repeat_interleave(4, 0))
        if spread.bias is not None:
            nn.init.zeros_(spread.bias)
        super().__init__(spread, nn.BatchNorm2d(4 * after), nn.ReLU(), nn.PixelShuffle(2))


def _convolution(before: int, after: int) -> nn.Sequential:
    layer = nn.Conv2d(before, after, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.ReLU())


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    if maps.shape[2:] == tuple(size):
        return maps
    return functional.interpolate(maps, tuple(size), mode="nearest")
