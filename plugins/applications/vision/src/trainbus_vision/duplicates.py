"""Near duplicates: pictures in training that validation has, too, a little changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError

if TYPE_CHECKING:
    from trainbus_data import Data

#: Images are compared as small grey ones of this side; rows that are compared at a time.
_SIDE, _ROWS = 32, 2048


def near_duplicates(
    data: Data, part: str = "valid", likeness: float = 0.95
) -> list[dict[str, Any]]:
    """Images of training that are nearly those of another part, where they measure nothing.

    Each image, as a model sees it, becomes a small grey one of mean 0 and length 1; two are alike
    by their product, whatever the light and the size, and mirrored ones, too. Images of one colour
    are left out. All images are read once.

    Args:
        data: with an image as the first input.
        part: "valid" or "test"; or "train" for pairs within it, of which the second is listed.
        likeness: 1 is the same picture, 0 nothing in common.

    Returns:
        A row for each such image of training, the most alike first: `file`, `same_as`, `likeness`,
        and `action`, which is "drop". Data take it as `clean=`, and leave those files out.

    Raises:
        UsageError: the first part of an item is no image, or there is no such part.
    """
    if data.kinds[0] != "image":
        raise UsageError(f"near_duplicates: an item is {', '.join(data.kinds)}, and no image")
    if not 0 < likeness <= 1:
        raise UsageError(f"near_duplicates(likeness={likeness!r}): give a number from 0 to 1")
    trained = _looks(data, "train")
    others = trained if part == "train" else _looks(data, part)
    mirrored = others.view(-1, _SIDE, _SIDE).flip(-1).flatten(1)
    found = []
    for first in range(0, len(trained), _ROWS):
        rows = trained[first : first + _ROWS]
        alike = torch.maximum(rows @ others.T, rows @ mirrored.T)
        if part == "train":  # each pair once, and no image with itself
            index = torch.arange(first, first + len(rows))[:, None]
            alike = torch.where(torch.arange(len(others)) < index, alike, -1.0)
        values, places = alike.max(dim=1)
        found += [
            (float(values[row]), first + row, int(places[row]))
            for row in (values >= likeness).nonzero().flatten().tolist()
        ]
    return [
        {
            "file": data.describe("train", mine),
            "action": "drop",
            "same_as": data.describe(part, other),
            "likeness": round(min(1.0, value), 4),
        }
        for value, mine, other in sorted(found, reverse=True)
    ]


def _looks(data: Data, part: str) -> Tensor:
    """Each image of a part as 32 x 32 grey numbers with the mean 0 and the length 1: N x 1024."""
    looks = []
    for batch in data.part(part, range(len(data.items(part)))):
        images = batch[0].cpu()
        grey = (images.float() / 255 if images.dtype == torch.uint8 else images.float()).mean(1)
        small = functional.interpolate(grey[:, None], (_SIDE, _SIDE), mode="area").flatten(1)
        small = small - small.mean(dim=1, keepdim=True)
        length = small.norm(dim=1, keepdim=True)
        looks.append(torch.where(length > 0.01 * _SIDE, small / length.clamp(min=1e-6), 0.0))
    return torch.cat(looks)
