"""The geometry of items: a frame of an image, scaled; masks, points and boxes go with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus_data.errors import DataError

Parts = tuple[Any, ...]
Kinds = tuple[str, ...]


def image_size(parts: Parts, kinds: Kinds) -> tuple[int, int]:
    """Height and width of the first image, or of the first mask."""
    for wanted in ("image", "mask"):
        for part, kind in zip(parts, kinds, strict=True):
            if kind == wanted:
                return part.shape[-2], part.shape[-1]
    raise DataError(f"no image among the parts ({', '.join(kinds)})")


def cut(parts: Parts, kinds: Kinds, size: tuple[int, int], at: tuple[float, float]) -> Parts:
    """A part of this size (height, width), not scaled, `at` being 0..1 from top and left."""
    height, width = image_size(parts, kinds)
    top, left = round((height - size[0]) * at[0]), round((width - size[1]) * at[1])
    return view(parts, kinds, (top, left, *size), size)


def view(
    parts: Parts,
    kinds: Kinds,
    frame: tuple[float, float, float, float],
    size: tuple[int, int],
    mask_fill: int = 0,
) -> Parts:
    """What is inside a frame (top, left, height, width), scaled to a size (height, width).

    The frame may reach over the image; there it is black. Points and boxes outside become NaN.
    """
    full = image_size(parts, kinds)
    down = _Span(frame[0], frame[2], full[0], size[0])
    right = _Span(frame[1], frame[3], full[1], size[1])
    out: list[Any] = []
    for part, kind in zip(parts, kinds, strict=True):
        if kind in ("image", "mask"):
            if part.shape[-2:] != full:
                raise DataError(
                    f"the {kind} has {part.shape[-2]} x {part.shape[-1]} pixels, but the first "
                    f"image of the item {full[0]} x {full[1]}"
                )
            inner = part[..., down.start : down.stop, right.start : right.stop]
            scale = _resized if kind == "image" else _nearest
            scaled = scale(inner, (down.inner, right.inner))
            around = (*right.around, *down.around)
            fill = 0 if kind == "image" else mask_fill
            out.append(functional.pad(scaled, around, value=fill) if any(around) else scaled)
        elif kind in ("points", "boxes", "corners"):
            moved = part.clone()
            moved[..., 0::2] = (moved[..., 0::2] - right.start) * right.factor + right.around[0]
            moved[..., 1::2] = (moved[..., 1::2] - down.start) * down.factor + down.around[0]
            if kind == "corners":  # they may lie outside
                out.append(moved)
                continue
            out.append(_inside_points(moved, size) if kind == "points" else _clipped(moved, size))
        else:
            out.append(part)
    return _without_lost(tuple(out), kinds)


class _Span:
    """One axis of a frame: which pixels of the image are in it, and where they come to lie.

    All is in whole pixels, so that points go exactly where the pixels go. What is around the
    image is filled in after scaling: no pixel of its border is mixed with it.

    Args:
        first: where the frame begins; it may be before the image.
        length: of the frame.
        full: pixels of the image.
        out: pixels of the result.
    """

    def __init__(self, first: float, length: float, full: int, out: int) -> None:
        begin = round(first)
        end = begin + max(1, round(length))
        factor = out / (end - begin)
        self.start, self.stop = max(0, begin), min(full, end)
        before = round((self.start - begin) * factor)
        #: Pixels of the result that show the image.
        self.inner = min(max(1, round((self.stop - self.start) * factor)), out - before)
        #: Pixels of the result before and behind them.
        self.around = (before, out - before - self.inner)
        self.factor = self.inner / (self.stop - self.start)


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[-2:] == size:
        return image.contiguous()
    batched = image[None] if image.ndim == 3 else image
    resized = functional.interpolate(
        batched, size, mode="bilinear", antialias=True, align_corners=False
    )
    return resized[0] if image.ndim == 3 else resized


def _nearest(mask: Tensor, size: tuple[int, int]) -> Tensor:
    (height, width), (to_height, to_width) = mask.shape[-2:], size
    rows = ((torch.arange(to_height) + 0.5) * (height / to_height)).long().clamp(max=height - 1)
    columns = ((torch.arange(to_width) + 0.5) * (width / to_width)).long().clamp(max=width - 1)
    return mask[..., rows[:, None], columns]


def _inside_points(points: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = points.unbind(dim=-1)
    inside = (x >= 0) & (x <= size[1]) & (y >= 0) & (y <= size[0])
    return torch.where(inside[..., None], points, math.nan)


def _clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    limits = torch.tensor([size[1], size[0]] * 2, dtype=boxes.dtype)
    cut = torch.minimum(boxes.clamp(min=0), limits)
    there = (cut[..., 2:] > cut[..., :2]).all(dim=-1, keepdim=True)
    return torch.where(there, cut, math.nan)


def _without_lost(parts: Parts, kinds: Kinds) -> Parts:
    """Labels of boxes that are no longer in the image become -1."""
    if "boxes" not in kinds or "labels" not in kinds:
        return parts
    gone = parts[kinds.index("boxes")].isnan().any(dim=-1)
    at = kinds.index("labels")
    return (*parts[:at], parts[at].masked_fill(gone, -1), *parts[at + 1 :])


def flipped(part: Any, kind: str, width: int) -> Any:
    """Left and right exchanged in one part of an item whose image has this width."""
    if kind in ("image", "mask"):
        return part.flip(-1)
    if kind in ("points", "corners"):
        return torch.stack((width - part[..., 0], part[..., 1]), dim=-1)
    if kind == "boxes":
        x1, y1, x2, y2 = part.unbind(dim=-1)
        return torch.stack((width - x2, y1, width - x1, y2), dim=-1)
    return part


def checked_pairs(pairs: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    """Pairs of places among the points of an image, each of which is in one pair.

    Raises:
        DataError: they are something else.
    """
    try:
        found = tuple((int(a), int(b)) for a, b in pairs)
    except (TypeError, ValueError):
        raise DataError(f"flip_pairs={pairs!r:.80}; give pairs of places, [(0, 1)]") from None
    places = [place for pair in found for place in pair]
    if len(set(places)) < len(places) or min(places, default=0) < 0:
        raise DataError(f"flip_pairs={pairs!r:.80}; each point, from 0 on, is in one pair")
    return found


def exchanged(points: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Points K x 2 of an image that was mirrored: left and right change their places.

    Raises:
        DataError: a pair names a point that is not there.
    """
    order = list(range(len(points)))
    for a, b in pairs:
        if max(a, b) >= len(order):
            raise DataError(f"flip_pairs: ({a}, {b}), but the points are 0 to {len(order) - 1}")
        order[a], order[b] = b, a
    return points[order] if pairs else points
