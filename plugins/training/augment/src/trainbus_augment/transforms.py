"""What a transform is: matrices, tones, or a function of the whole batch.

Transforms are plain values. `Augmenter` gives each its random numbers, composes what can be
composed, and does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host


class Size(NamedTuple):
    """Of an image, in pixels."""

    height: int
    width: int


@dataclass
class Tone:
    """One affine map of the colors for each image: `gain * matrix @ color + offset`, then clamped.

    Each row of `matrix` has the sum 1, so that grey stays grey; that is why it and `offset`, which
    is the same for all channels, can be composed in any order.

    Args:
        gain: N.
        offset: N.
        matrix: N x 3 x 3, or None for one that changes nothing.
    """

    gain: Tensor
    offset: Tensor
    matrix: Tensor | None = None

    def then(self, later: Tone) -> Tone:
        """This one, and a later one after it, as one."""
        matrix = later.matrix
        if self.matrix is not None:
            matrix = self.matrix if matrix is None else matrix @ self.matrix
        return Tone(later.gain * self.gain, later.gain * self.offset + later.offset, matrix)


@dataclass
class Effect:
    """What is no affine map of the colors, for some images of the batch.

    Args:
        function: of images (k x C x H x W, in [0, 1]) and amounts (k): the new images.
        rows: which images.
        amounts: k numbers on the CPU.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    rows: list[int]
    amounts: Tensor


#: What changes colors, in order.
Look = Tone | Effect


class Transform:
    """Something random that is done to each image of a batch, with numbers of its own for each."""

    #: Whether it mixes items, or changes their targets: not for a look at one item.
    mixes = False

    #: Random numbers for each image, uniform in [0, 1).
    draws = 0

    @property
    def in_range(self) -> bool:
        """Whether it needs images in [0, 1], as what changes colors does."""
        return type(self).looks is not Transform.looks

    def size(self, size: Size) -> Size:
        """The size that images have after it."""
        return size

    def matrix(self, draw: Tensor, size: Size) -> Tensor | None:
        """Where each pixel comes from: N x 3 x 3, or None for a transform that moves nothing.

        Homographies from points of the new image to points of the old one, both in pixels from the
        middle of their image, x to the right and y down.

        Args:
            draw: N x `draws`, on the CPU.
            size: of the images before it.
        """
        return None

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """What it does to the colors of images with this many channels."""
        return ()

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({options})"


class BatchTransform(Transform):
    """A transform that needs the finished images: those before it are done first."""

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Replace parts of the batch in the list. Tensors in it are not written to.

        Args:
            parts: the parts of the batch that have a kind; images in float, in [0, 1].
            kinds: what each of them is.
            generator: on the CPU; what it does is to depend on nothing else that is random.
        """
        raise NotImplementedError


def between(draw: Tensor, low: float, high: float) -> Tensor:
    """Uniform numbers from `low` to `high`, of such in [0, 1)."""
    return low + draw * (high - low)


def affine(
    rows: int,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """Matrices, rows x 3 x 3, of [[xx, xy, x], [yx, yy, y], [0, 0, 1]]."""
    made = torch.zeros(rows, 3, 3, dtype=host.FLOAT)
    made[:, 2, 2] = 1.0
    made[:, 0, 0], made[:, 0, 1], made[:, 0, 2] = xx, xy, x
    made[:, 1, 0], made[:, 1, 1], made[:, 1, 2] = yx, yy, y
    return made


def check_probability(who: str, p: float, name: str = "p") -> float:
    """A probability, or an error that says whose it is."""
    if not 0 <= p <= 1:
        raise UsageError(f"{who}: {name}={p!r}: give a probability, from 0 to 1")
    return float(p)


def check_range(
    who: str, name: str, value: float, low: float, high: float, unit: str = ""
) -> float:
    """A number in a range, or an error that says whose it is."""
    if not low <= value <= high:
        raise UsageError(f"{who}: {name}={value!r}: give a number from {low:g} to {high:g}{unit}")
    return float(value)
