"""Transforms of colors: each gives an affine map, and all are done in one pass.

Images are in [0, 1], as stored (gamma-encoded), and are clamped once at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.transforms import (
    Look,
    Tone,
    Transform,
    between,
    check_probability,
    check_range,
)

#: How bright red, green and blue seem (ITU-R BT.601).
LUMA = (0.299, 0.587, 0.114)
#: From red, green and blue to brightness and two axes of color (YIQ, as in NTSC).
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


class _Factor(Transform):
    """A random factor, as often above 1 as below: uniform in its logarithm."""

    draws = 2

    def __init__(self, magnitude: float = 0.2, p: float = 0.75) -> None:
        who = type(self).__name__
        self.magnitude = check_range(who, "magnitude", magnitude, 0, 0.99)
        self.p = check_probability(who, p)

    def factor(self, draw: Tensor) -> Tensor:
        """From 1 - magnitude to 1 / (1 - magnitude), and 1 where nothing is to be done."""
        most = -math.log1p(-self.magnitude)
        return torch.where(draw[:, 0] < self.p, between(draw[:, 1], -most, most).exp(), 1.0)


class Brightness(_Factor):
    """Multiply by a random factor.

    Args:
        magnitude: the factor is from 1 - magnitude to 1 / (1 - magnitude).
        p: the probability for each image.
    """

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """x f."""
        gain = self.factor(draw)
        return [Tone(gain, torch.zeros_like(gain))]


class Contrast(_Factor):
    """Multiply the distance to mid-grey, 0.5, by a random factor.

    Not the distance to the mean of the image: no pass over the pixels is needed to know it.

    Args:
        magnitude: the factor is from 1 - magnitude to 1 / (1 - magnitude).
        p: the probability for each image.
    """

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """(x - 1/2) f + 1/2."""
        gain = self.factor(draw)
        return [Tone(gain, (1 - gain) / 2)]


class Saturation(_Factor):
    """Multiply the distance of each color to the grey that is as bright, by a random factor.

    Args:
        magnitude: the factor is from 1 - magnitude to 1 / (1 - magnitude).
        p: the probability for each image.
    """

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """A matrix of f on the diagonal, and brightness for the rest."""
        check_channels("Saturation", channels)
        factor = self.factor(draw)
        return [Tone(torch.ones_like(factor), torch.zeros_like(factor), saturation(factor))]


class Hue(Transform):
    """Turn the colors about the grey axis, in YIQ (Haeberli, 1993, "Matrix Operations").

    It is a matrix, and keeps the brightness. Turning the H of HSV, as others do, is not linear:
    that keeps the saturation, and changes how bright saturated colors seem.

    Args:
        degrees: the largest angle, uniform in both directions, up to 180.
        p: the probability for each image.
    """

    draws = 2

    def __init__(self, degrees: float = 18.0, p: float = 0.75) -> None:
        self.degrees = check_range("Hue", "degrees", degrees, 0, 180)
        self.p = check_probability("Hue", p)

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """A rotation of the two axes of color."""
        check_channels("Hue", channels)
        angle = torch.where(
            draw[:, 0] < self.p, between(draw[:, 1], -self.degrees, self.degrees), 0.0
        ) * (math.pi / 180)
        to_yiq = torch.tensor(_YIQ, dtype=host.FLOAT)
        turned = torch.zeros(len(draw), 3, 3, dtype=host.FLOAT)
        turned[:, 0, 0] = 1.0
        turned[:, 1, 1] = turned[:, 2, 2] = angle.cos()
        turned[:, 2, 1] = angle.sin()
        turned[:, 1, 2] = -angle.sin()
        matrix = torch.linalg.inv(to_yiq) @ turned @ to_yiq
        identity = torch.eye(3, dtype=host.FLOAT)
        matrix = torch.where((angle == 0)[:, None, None], identity, matrix)
        one = torch.ones_like(angle)
        return [Tone(one, torch.zeros_like(one), matrix)]


def saturation(factor: Tensor) -> Tensor:
    """Matrices, N x 3 x 3, that multiply the distance to grey."""
    grey = torch.tensor(LUMA, dtype=factor.dtype).expand(3, 3)
    factor = factor[:, None, None]
    return factor * torch.eye(3, dtype=factor.dtype) + (1 - factor) * grey


def check_channels(who: str, channels: int) -> None:
    """Colors need three channels."""
    if channels != 3:
        raise UsageError(
            f"{who} needs images of 3 channels, red, green and blue; these have {channels}: leave "
            "it out"
        )
