"""Random erasing, and the boxes that it shares with CutMix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.transforms import BatchTransform, Size, between, check_probability


class Erase(BatchTransform):
    """Paint over a random rectangle (Zhong et al., 2017, "Random Erasing Data Augmentation").

    The part of a mask under it stays: what is there is hidden, not gone.

    Args:
        p: the probability for each image.
        scale: the least and the largest part of the area.
        ratio: the least and the largest width : height, uniform in its logarithm.
        value: the color, in [0, 1]; by default the mean of each channel of the image.
    """

    def __init__(
        self,
        p: float = 0.25,
        scale: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 1 / 0.3),
        value: float | None = None,
    ) -> None:
        self.p = check_probability("Erase", p)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(
                f"Erase: scale={scale!r}: give two parts of the area, as in (0.02, 0.3)"
            )
        if not 0 < ratio[0] <= ratio[1]:
            raise UsageError(f"Erase: ratio={ratio!r}: give two ratios, as in (0.3, 3.3)")
        if value is not None:
            check_probability("Erase", value, "value")
        self.scale, self.ratio, self.value = scale, ratio, value

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Erase in the images that the coin chose."""
        image = parts[kinds.index("image")]
        size = Size(*image.shape[-2:])
        draw = host.uniform(len(image), 5, generator)
        rows = host.true_rows(draw[:, 0] < self.p)
        if not rows:
            return
        draw = draw[rows]
        area = between(draw[:, 1], *self.scale) * (size.height * size.width)
        ratio = between(draw[:, 2], *map(math.log, self.ratio)).exp()
        width = (area * ratio).sqrt().clamp(max=size.width)
        height = (area / ratio).sqrt().clamp(max=size.height)
        left, top = draw[:, 3] * (size.width - width), draw[:, 4] * (size.height - height)
        box = torch.stack([left, top, left + width, top + height], dim=1).round()
        for place, kind in enumerate(kinds):
            if kind == "image":
                where = host.index(rows, parts[place])
                part = parts[place][where]
                fill = part.mean(dim=(2, 3), keepdim=True) if self.value is None else self.value
                part = torch.where(inside(box, part), fill, part)
                parts[place] = parts[place].index_copy(0, where, part)


def inside(box: Tensor, images: Tensor) -> Tensor:
    """Which pixels have their center in boxes, N x 4 in pixels on the CPU: N x 1 x H x W."""
    height, width = images.shape[-2:]
    left, top, right, bottom = host.send(box, images.device)[:, :, None, None, None].unbind(dim=1)
    xs = torch.arange(width, device=images.device) + 0.5
    ys = (torch.arange(height, device=images.device) + 0.5)[:, None]
    return (xs > left) & (xs < right) & (ys > top) & (ys < bottom)
