"""The one pass over the colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainbus_augment import host
from trainbus_augment.transforms import Effect, Look, Tone


@dataclass
class Affine:
    """A tone on the device of the images: a factor, or a matrix, and an offset for each."""

    factor: Tensor
    offset: Tensor

    @classmethod
    def of(cls, tone: Tone, device: torch.device) -> Affine | None:
        """None where nothing would change."""
        matrix = tone.matrix
        identity = torch.eye(3, dtype=host.FLOAT)
        if matrix is not None and host.true_rows((matrix != identity).any(dim=2).any(dim=1)):
            factor = tone.gain[:, None, None] * matrix
        elif host.true_rows((tone.gain != 1) | (tone.offset != 0)):
            factor = tone.gain[:, None, None, None]
        else:
            return None
        offset = tone.offset.view(-1, *[1] * (factor.ndim - 1))
        return cls(host.send(factor, device), host.send(offset, device))

    def __call__(self, images: Tensor, first: int, ours: bool) -> Tensor:
        """Images `first` and on of the batch; in place, if they are ours."""
        rows = slice(first, first + len(images))
        factor, offset = self.factor[rows].to(images.dtype), self.offset[rows].to(images.dtype)
        if factor.ndim == 3:
            return torch.baddbmm(offset, factor, images.flatten(2)).clamp_(0, 1).view(images.shape)
        out = images if ours else None
        return torch.addcmul(offset, images, factor, out=out).clamp_(0, 1)


def composed(looks: Sequence[Look], device: torch.device) -> list[Affine | Effect]:
    """What there is to do, with tones that follow each other made one."""
    made: list[Look] = []
    for look in looks:
        if isinstance(look, Tone) and made and isinstance(made[-1], Tone):
            made[-1] = made[-1].then(look)
        else:
            made.append(look)
    ready = (look if isinstance(look, Effect) else Affine.of(look, device) for look in made)
    return [look for look in ready if look is not None]


def applied(look: Affine | Effect, images: Tensor, first: int, ours: bool) -> Tensor:
    """Images `first` and on of the batch, n x C x H x W in [0, 1], in new colors.

    They are written to only where they are ours.
    """
    if isinstance(look, Affine):
        return look(images, first, ours)
    places = [place for place, row in enumerate(look.rows) if 0 <= row - first < len(images)]
    if not places:
        return images
    where = host.index([look.rows[place] - first for place in places], images)
    changed = look.function(images[where].float(), look.amounts[places]).to(images.dtype)
    return (images if ours else images.clone()).index_copy_(0, where, changed)
