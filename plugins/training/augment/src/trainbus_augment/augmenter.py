"""Augmenter: composes transforms, and does them to a batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import get_args

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.geometry import Flip
from trainbus_augment.kinds import check_kinds
from trainbus_augment.pieces import PIECE, in_pieces
from trainbus_augment.sampling import Motion, Padding, as_float, exchanged
from trainbus_augment.tones import Affine, applied, composed
from trainbus_augment.transforms import BatchTransform, Effect, Look, Size, Transform

_SHAPES = {
    "image": (4, "N x C x H x W"),
    "mask": (3, "N x H x W"),
    "points": (3, "N x K x 2"),
    "boxes": (3, "N x K x 4"),
}

#: How far images may be beyond [0, 1]: bicubic interpolation makes such at edges.
_OVERSHOOT = 0.2


class Augmenter:
    """Do random transforms to a whole batch, with parameters of its own for each image.

    All that moves pixels is composed into one interpolation, and all that changes colors into one
    pass; `BatchTransform`s (`Erase`, `MixUp`, ...) are done in their place in the list. An image
    that the draw leaves alone, or only mirrors, is not interpolated.

    Args:
        transforms: in order.
        padding: what is outside of an image: mirrored ("reflection"), the pixel at the edge
            ("border") or black, in masks 0 ("zeros").
        flip_pairs: points that are each other's left and right, by their places among the points
            of an image: [(0, 1)] for two eyes. They are exchanged where an image is mirrored.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        padding: Padding = "reflection",
        flip_pairs: Sequence[Sequence[int]] = (),
    ) -> None:
        given: Sequence[object] = transforms
        for each in given:
            if not isinstance(each, Transform):
                what = f"the class {each.__name__}" if isinstance(each, type) else repr(each)
                raise UsageError(
                    f"transforms: {what:.80} is no transform; give objects as Flip(), and put "
                    "foreign ones into Torchvision(...) or Kornia(...)"
                )
        if padding not in get_args(Padding):
            choices = ", ".join(map(repr, get_args(Padding)))
            raise UsageError(f"padding={padding!r}: it is one of {choices}")
        self.transforms = tuple(transforms)
        self.padding = padding
        self.flip_pairs = tuple((int(a), int(b)) for a, b in flip_pairs)
        self._to_check = any(each.in_range for each in self.transforms)

    def fitted(
        self, classes: int | None, flip_pairs: Sequence[Sequence[int]] | None, mirror: bool = True
    ) -> Augmenter:
        """The same for these data, where nothing else was said.

        Args:
            classes: how many the target has, for the transforms that mix.
            flip_pairs: of the points, if that is known.
            mirror: with the transforms that mirror, or without.
        """
        kept = [each for each in self.transforms if mirror or not isinstance(each, Flip)]
        made = [copy.copy(each) for each in kept]
        for each in made:
            if getattr(each, "classes", 0) is None:
                each.classes = classes  # type: ignore[attr-defined]
        return Augmenter(made, self.padding, self.flip_pairs or flip_pairs or ())

    @torch.no_grad()
    def __call__(
        self,
        batch: Sequence[Tensor],
        kinds: Sequence[str] = ("image",),
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, ...]:
        """The batch, augmented. The tensors of the given one are not written to.

        Args:
            batch: its parts. Images are N x C x H x W, uint8 or float in [0, 1]; they come out as
                float in [0, 1]. Masks are N x H x W of integers. Points are N x K x 2 as (x, y),
                and boxes N x K x 4 as (x1, y1, x2, y2), in pixels from the upper left corner, with
                pixel centers at 0.5; NaN stands for what is not there, or not any more.
            kinds: what the parts are, out of `KINDS`; parts beyond it are left as they are.
            generator: of the random numbers, on the CPU; torch's own by default.

        Raises:
            UsageError: a part is not what its kind says, or a transform cannot be done to it.
        """
        if not self.transforms:
            return tuple(batch)
        check_kinds(kinds)
        host.check_generator(generator)
        parts = list(batch[: len(kinds)])
        _check_parts(parts, kinds)
        if self._to_check:  # once: a device is waited for
            _check_range(parts, kinds)
            self._to_check = False
        device_type = parts[kinds.index("image")].device.type
        if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
            with torch.autocast(device_type, enabled=False):
                return self(batch, kinds, generator)
        if len(parts[kinds.index("image")]):
            mixed = groupby(self.transforms, lambda each: isinstance(each, BatchTransform))
            for of_batch, group in mixed:
                if of_batch:
                    _to_float(parts, kinds)
                    for each in group:
                        assert isinstance(each, BatchTransform)
                        each.apply(parts, kinds, generator)
                else:
                    self._per_image(list(group), parts, kinds, generator)
        _to_float(parts, kinds)
        return (*parts, *batch[len(kinds) :])

    def _per_image(
        self,
        transforms: list[Transform],
        parts: list[Tensor],
        kinds: Sequence[str],
        generator: torch.Generator | None,
    ) -> None:
        """Matrices into one interpolation, then tones into one pass."""
        image = parts[kinds.index("image")]
        before = size = Size(*image.shape[-2:])
        draw = host.uniform(len(image), sum(each.draws for each in transforms), generator)
        matrix: Tensor | None = None
        looks: list[Look] = []
        for each, own in zip(
            transforms, torch.split(draw, [each.draws for each in transforms], dim=1), strict=True
        ):
            if (new := each.matrix(own, size)) is not None:
                matrix = new if matrix is None else matrix @ new
                size = each.size(size)
            looks += each.looks(own, image.shape[1])
        motion = None
        if matrix is not None:
            motion = Motion(matrix, before, size, self.padding, image.device)
            motion = None if motion.nothing else motion
        ready = composed(looks, image.device)
        for place, kind in enumerate(kinds):
            part = parts[place]
            if kind == "image":
                parts[place] = _rendered(part, motion, ready, size)
            elif motion is not None and kind == "mask":
                parts[place] = motion.masks(part)
            elif motion is not None and kind == "points":
                parts[place] = exchanged(motion.points(part), motion.mirrored, self.flip_pairs)
            elif motion is not None and kind == "boxes":
                parts[place] = motion.boxes(part)

    def __repr__(self) -> str:
        return f"Augmenter([{', '.join(map(repr, self.transforms))}], padding={self.padding!r})"


def _rendered(
    images: Tensor, motion: Motion | None, looks: Sequence[Affine | Effect], size: Size
) -> Tensor:
    """Moved and colored images: on the CPU in pieces; a device gets the whole batch."""
    if motion is None and not looks:
        return as_float(images)

    def piece(old: Tensor, first: int) -> Tensor:
        new = as_float(old) if motion is None else motion.images(old, first)
        for look in looks:
            # What was converted or interpolated is a tensor of our own.
            new = applied(look, new, first, ours=new is not old)
        return new

    pixels = images.shape[1] * max(images.shape[2] * images.shape[3], size.height * size.width)
    if not images.is_cpu or 4 * pixels * len(images) <= PIECE:
        return piece(images, 0)
    dtype = images.dtype if images.is_floating_point() else torch.float32
    new = torch.empty(*images.shape[:2], *size, dtype=dtype)

    def work(first: int, behind: int) -> None:
        new[first:behind] = piece(images[first:behind], first)

    in_pieces(len(images), 4 * pixels, work)
    return new


def _check_parts(parts: Sequence[Tensor], kinds: Sequence[str]) -> None:
    """Refuse parts whose shape does not fit their kind, or each other."""
    if len(parts) < len(kinds):
        raise UsageError(
            f"a batch of {len(parts)} parts does not fit kinds={list(kinds)!r}; give one kind "
            "a part"
        )
    first: Tensor | None = None
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        if kind not in _SHAPES:
            continue
        where = f"part {place} of the batch, kind {kind!r},"
        if not isinstance(part, Tensor):
            raise UsageError(f"{where} is a {type(part).__name__}; give a tensor")
        dimensions, shape = _SHAPES[kind]
        last = {"points": 2, "boxes": 4}.get(kind, part.shape[-1] if part.ndim else 0)
        if part.ndim != dimensions or part.shape[-1] != last:
            raise UsageError(f"{where} is of shape {tuple(part.shape)}; it has to be {shape}")
        if kind == "image":
            if part.dtype != torch.uint8 and not part.is_floating_point():
                raise UsageError(
                    f"{where} is of {part.dtype}; give uint8, or float in [0, 1] "
                    "(16-bit images: divide by 65535)"
                )
            if part.shape[3] in (1, 3, 4) and part.shape[1] > 4:
                raise UsageError(
                    f"{where} is of shape {tuple(part.shape)}, which looks like N x H x W x C; it "
                    "has to be N x C x H x W: permute(0, 3, 1, 2)"
                )
            if first is not None and part.shape[-2:] != first.shape[-2:]:
                raise UsageError(
                    f"{where} is of {tuple(part.shape[-2:])} pixels, another image of "
                    f"{tuple(first.shape[-2:])}; images that are augmented together have one size"
                )
            first = part if first is None else first
        if kind == "mask" and part.is_floating_point():
            raise UsageError(f"{where} is of {part.dtype}; a mask holds whole numbers (int64)")
        if kind in ("points", "boxes") and not part.is_floating_point():
            raise UsageError(f"{where} is of {part.dtype}; give pixels as float32")
    assert first is not None
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        if kind != "other" and isinstance(part, Tensor) and len(part) != len(first):
            raise UsageError(
                f"part {place} of the batch, kind {kind!r}, has {len(part)} samples, and there are "
                f"{len(first)} images"
            )


def _check_range(parts: Sequence[Tensor], kinds: Sequence[str]) -> None:
    """Refuse images that are not in [0, 1]: colors would be cut to it.

    What interpolation adds at an edge is allowed.
    """
    for place, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
        known = kind == "image" and part.is_floating_point() and part.numel() and not part.is_meta
        if not known:
            continue
        low, high = host.numbers(torch.stack(part.aminmax()).to("cpu", host.FLOAT))
        if not (low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT):
            cure = (
                "divide them by 255"
                if low >= 0
                else "normalize after the augmentation, in the model, as trainbus_vision.Normalize "
                "does"
            )
            raise UsageError(
                f"part {place} of the batch, kind 'image', is from {low:.4g} to {high:.4g}; images "
                f"that change their colors are floats in [0, 1], or uint8: {cure}"
            )


def _to_float(parts: list[Tensor], kinds: Sequence[str]) -> None:
    """Scale images of whole numbers."""
    for place, kind in enumerate(kinds):
        if kind == "image":
            parts[place] = as_float(parts[place])
