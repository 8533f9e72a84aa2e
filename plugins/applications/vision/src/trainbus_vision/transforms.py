"""Transforms of items with images: masks, points and boxes follow their image."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainbus.errors import nearest
from trainbus_data.errors import DataError
from trainbus_data.transforms import ItemTransform, Kinds, Parts, Transform
from trainbus_vision.framing import checked_pairs, cut, exchanged, flipped, image_size, view

logger = logging.getLogger("trainbus")
Size = int | Sequence[int]


class Resize(ItemTransform):
    """Bring images to one size.

    Args:
        size: of a square, or (height, width), in pixels.
        method: "crop" scales until the size is filled and cuts what is over; "pad" scales until
            all is inside and fills the rest with black; "squish" changes the proportions.
        position: where "crop" cuts in training: "random" along the longer side, or "center". In
            validation it is the centre.
        mask_fill: the code that "pad" gives to the pixels of masks outside of the image.
    """

    def __init__(
        self, size: Size, method: str = "crop", position: str = "random", mask_fill: int = 0
    ) -> None:
        self.size = _pair(size)
        self.method = _one_of("method", method, ("crop", "pad", "squish"))
        self.position = _one_of("position", position, ("random", "center"))
        self.mask_fill = mask_fill

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """Scale, and cut or fill."""
        height, width = image_size(parts, kinds)
        out_height, out_width = self.size
        if self.method == "squish":
            frame = (0.0, 0.0, float(height), float(width))
        else:
            fits = min if self.method == "crop" else max
            scale = fits(height / out_height, width / out_width)
            part = (out_height * scale, out_width * scale)
            at = random.random() if self.method == "crop" and self.position == "random" else 0.5
            frame = ((height - part[0]) * at, (width - part[1]) * at, *part)
        return view(parts, kinds, frame, self.size, self.mask_fill)

    def for_validation(self) -> Transform | None:
        """The same, from the centre."""
        if self.method != "crop" or self.position == "center":
            return self
        return Resize(self.size, self.method, "center", self.mask_fill)

    @property
    def fits_memory(self) -> bool:
        """It does: only the place of its cut is random, which may be the centre."""
        return True

    def options(self) -> dict[str, Any]:
        """Size, method, position and fill."""
        return {
            "size": list(self.size),
            "method": self.method,
            "position": self.position,
            "mask_fill": self.mask_fill,
        }


class RandomResizedCrop(ItemTransform):
    """A random part of the image, scaled to one size (Szegedy et al. 2014).

    In validation: the centre of the image, scaled to the size.

    Args:
        size: of a square, or (height, width), in pixels.
        scale: the least and the greatest part of the area.
        ratio: the least and the greatest width over height.
    """

    def __init__(
        self,
        size: Size,
        scale: Sequence[float] = (0.35, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
    ) -> None:
        self.size = _pair(size)
        self.scale = (float(scale[0]), float(scale[1]))
        self.ratio = (float(ratio[0]), float(ratio[1]))

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """Cut and scale."""
        height, width = image_size(parts, kinds)
        for _ in range(10):
            area = height * width * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            cut_height, cut_width = math.sqrt(area / ratio), math.sqrt(area * ratio)
            if cut_height <= height and cut_width <= width:
                top = random.uniform(0, height - cut_height)
                left = random.uniform(0, width - cut_width)
                return view(parts, kinds, (top, left, cut_height, cut_width), self.size)
        return Resize(self.size, position="center")(parts, kinds)  # a very long image

    def for_validation(self) -> Transform:
        """`Resize` from the centre."""
        return Resize(self.size, position="center")

    def options(self) -> dict[str, Any]:
        """Size, scale and ratio."""
        return {"size": list(self.size), "scale": list(self.scale), "ratio": list(self.ratio)}


class RandomCrop(ItemTransform):
    """A part of this size at a random place, not scaled; in validation at the centre.

    An image that is smaller is filled with black around it.
    """

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """Cut."""
        return cut(parts, kinds, self.size, (random.random(), random.random()))

    def for_validation(self) -> Transform:
        """`CenterCrop`."""
        return CenterCrop(self.size)

    def options(self) -> dict[str, Any]:
        """The size."""
        return {"size": list(self.size)}


class CenterCrop(ItemTransform):
    """The centre of the image, not scaled; around a smaller image it is filled with black."""

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """Cut."""
        return cut(parts, kinds, self.size, (0.5, 0.5))

    def options(self) -> dict[str, Any]:
        """The size."""
        return {"size": list(self.size)}


class RandomFlip(ItemTransform):
    """Left and right exchanged for a part of the items; nothing in validation.

    Args:
        p: for which part.
        flip_pairs: points that are each other's left and right; by default those of `Points`.
    """

    def __init__(self, p: float = 0.5, flip_pairs: Sequence[Sequence[int]] | None = None) -> None:
        self.p = p
        self.flip_pairs = None if flip_pairs is None else checked_pairs(flip_pairs)

    def for_blocks(self, blocks: Sequence[Any]) -> Transform:
        """With the pairs that the points have."""
        points = [block for block in blocks if block.kind == "points"]
        if self.flip_pairs is not None or not points:
            return self
        if points[-1].flip_pairs is None:
            logger.warning(
                "RandomFlip mirrors points, and a left one is then called right; "
                "flip_pairs=[(0, 1)] of the points says which are exchanged, flip_pairs=[] that "
                "none are"
            )
        return RandomFlip(self.p, points[-1].flip_pairs or ())

    def __call__(self, parts: Parts, kinds: Kinds) -> Parts:
        """Flip, or not."""
        if random.random() >= self.p:
            return parts
        width = image_size(parts, kinds)[1]
        pairs = self.flip_pairs or ()
        return tuple(
            exchanged(flipped(part, kind, width), pairs) if kind == "points" else
            flipped(part, kind, width) for part, kind in zip(parts, kinds, strict=True)
        )  # fmt: skip

    def for_validation(self) -> Transform | None:
        """Nothing."""
        return None

    def options(self) -> dict[str, Any]:
        """How often, and the pairs if there are any."""
        pairs = {"flip_pairs": list(map(list, self.flip_pairs))} if self.flip_pairs else {}
        return {"p": self.p, **pairs}


def _pair(size: Size) -> tuple[int, int]:
    pair = (size, size) if isinstance(size, int) else size
    whole = isinstance(pair, (tuple, list, torch.Size)) and len(pair) == 2
    if not whole or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in pair):
        raise DataError(f"size={size!r:.60}; give pixels, 224, or (height, width)")
    return int(pair[0]), int(pair[1])


def _one_of(option: str, value: str, values: Sequence[str]) -> str:
    if value not in values:
        raise DataError(
            f"{option}={value!r} is none of {', '.join(values)}{nearest(value, values)}"
        )
    return value
