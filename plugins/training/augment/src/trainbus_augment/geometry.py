"""Transforms that move pixels: each gives a homography, and all are done in one interpolation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment.transforms import (
    Size,
    Transform,
    affine,
    between,
    check_probability,
    check_range,
)


class Flip(Transform):
    """Mirror left and right, or top and bottom.

    Boxes and points are mirrored with their image. What they mean is not: the label "left eye"
    stays at the eye that is now on the right.

    Args:
        p: the probability for each image.
        vertical: top and bottom.
    """

    draws = 1

    def __init__(self, p: float = 0.5, vertical: bool = False) -> None:
        self.p = check_probability("Flip", p)
        self.vertical = vertical

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """A change of one sign."""
        sign = torch.where(draw[:, 0] < self.p, -1.0, 1.0).to(draw)
        return affine(len(draw), yy=sign) if self.vertical else affine(len(draw), xx=sign)


class Rotate(Transform):
    """Turn the image about its middle; its size stays, and what comes in from outside is padded.

    Args:
        degrees: the largest angle, uniform in both directions; or the smallest and the largest,
            counter-clockwise.
        p: the probability for each image.
    """

    draws = 2

    def __init__(self, degrees: float | tuple[float, float] = 10.0, p: float = 0.75) -> None:
        self.p = check_probability("Rotate", p)
        self.degrees = (-degrees, degrees) if isinstance(degrees, (int, float)) else degrees
        for angle in self.degrees:
            check_range("Rotate", "degrees", angle, -360, 360)

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """The rotation back."""
        angle = torch.where(draw[:, 0] < self.p, between(draw[:, 1], *self.degrees), 0.0)
        return rotation(angle)


def rotation(degrees: Tensor) -> Tensor:
    """Where the pixels of an image come from that is turned counter-clockwise: N x 3 x 3."""
    angle = degrees * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    return affine(len(angle), xx=cos, xy=-sin, yx=sin, yy=cos)


class Zoom(Transform):
    """Enlarge, or shrink, about a random point.

    Args:
        largest: the largest factor; uniform.
        smallest: the smallest one; below 1 the image is seen whole, with padding around it.
        p: the probability for each image.
    """

    draws = 4

    def __init__(self, largest: float = 1.1, smallest: float = 1.0, p: float = 0.75) -> None:
        self.p = check_probability("Zoom", p)
        self.smallest = check_range("Zoom", "smallest", smallest, 0.05, 20)
        self.largest = check_range("Zoom", "largest", largest, smallest, 20)

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """A part of the image that lies anywhere in it."""
        factor = torch.where(
            draw[:, 0] < self.p, between(draw[:, 1], self.smallest, self.largest), 1.0
        )
        room = (1 - 1 / factor) / 2
        return affine(
            len(draw),
            xx=1 / factor,
            yy=1 / factor,
            x=between(draw[:, 2], -1, 1) * room * size.width,
            y=between(draw[:, 3], -1, 1) * room * size.height,
        )


class Warp(Transform):
    """Look at the image from a little to the side, and from a little above or below.

    The image is tilted about its vertical and then its horizontal axis. Both edges stay where they
    are; the near one becomes longer, the far one shorter, by sqrt((1 + m) / (1 - m)) for a tilt m,
    and what is between moves away from the near one. In coordinates from -1 to 1 the tilt by m is
    (x, y) -> (x + m, y sqrt(1 - m^2)) / (1 + m x), and that by -m undoes it.

    Args:
        magnitude: the largest tilt; uniform in both directions. 1 would be a view along the image.
        p: the probability for each image.
    """

    draws = 3

    def __init__(self, magnitude: float = 0.2, p: float = 0.75) -> None:
        self.p = check_probability("Warp", p)
        self.magnitude = check_range("Warp", "magnitude", magnitude, 0, 0.9)

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """Both tilts, in pixels."""
        tilt = torch.where(
            draw[:, :1] < self.p, between(draw[:, 1:3], -self.magnitude, self.magnitude), 0.0
        )
        a, b = tilt[:, 0], tilt[:, 1]
        across, down = (1 - a * a).sqrt(), (1 - b * b).sqrt()
        sideways = affine(len(draw), x=a, yy=across)
        sideways[:, 2, 0] = a
        upwards = affine(len(draw), xx=down, y=b)
        upwards[:, 2, 1] = b
        half = draw.new_tensor([size.width / 2, size.height / 2, 1.0])
        return half[:, None] * (sideways @ upwards) / half


class Crop(Transform):
    """Cut out a part of random size, shape and place, and resize it (Szegedy et al., 2015).

    "Going Deeper with Convolutions", section 6: a part of the area, between two ratios of width to
    height. It is an affine map as the others are, so that resizing costs no second interpolation.

    Args:
        size: of the new images, height and width, or one number for both.
        scale: the least and the largest part of the area.
        ratio: the least and the largest width : height, uniform in its logarithm.
        p: the probability for each image; the others are resized whole.
    """

    draws = 5

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if height < 1 or width < 1:
            raise UsageError(f"Crop: size={size!r}: give a height and a width of at least 1 pixel")
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UsageError(f"Crop: scale={scale!r}: give two parts of the area, as in (0.35, 1)")
        if not 0 < ratio[0] <= ratio[1]:
            raise UsageError(f"Crop: ratio={ratio!r}: give two ratios, as in (3 / 4, 4 / 3)")
        self.new_size = Size(height, width)
        self.scale = scale
        self.ratio = ratio
        self.p = check_probability("Crop", p)

    def size(self, size: Size) -> Size:
        """What was asked for."""
        return self.new_size

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """The part, enlarged to the new size."""
        area = between(draw[:, 1], *self.scale) * (size.height * size.width)
        ratio = between(draw[:, 2], *map(math.log, self.ratio)).exp()
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        # What is wider or higher than the image becomes smaller, and keeps its shape.
        fit = torch.minimum(size.width / width, size.height / height).clamp(max=1)
        coin = draw[:, 0] < self.p
        width = torch.where(coin, width * fit, float(size.width))
        height = torch.where(coin, height * fit, float(size.height))
        return affine(
            len(draw),
            xx=width / self.new_size.width,
            yy=height / self.new_size.height,
            x=between(draw[:, 3], -0.5, 0.5) * (size.width - width),
            y=between(draw[:, 4], -0.5, 0.5) * (size.height - height),
        )
