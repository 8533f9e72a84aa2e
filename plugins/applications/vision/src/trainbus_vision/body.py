"""Body: what turns images into maps of features, in pieces that run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner.snapshots import evaluating


class Body(nn.Module):
    """Pieces that run one after the other, from images to maps, or to a vector.

    Tokens (N x T x F, of a vision transformer) become their mean; maps whose channels are last (of
    a Swin transformer) are turned round.

    Args:
        pieces: called in this order. A single piece may return a list of maps, finest first.
        channels: of the images.
        size: height and width of the images that it will see.
        fixed: height and width that it can take only: images are resized to it.
        name: for messages.

    Raises:
        UsageError: it cannot take such images.
    """

    def __init__(
        self,
        pieces: Sequence[nn.Module],
        channels: int,
        size: tuple[int, int],
        fixed: tuple[int, int] | None = None,
        name: str = "the body",
    ) -> None:
        super().__init__()
        self.pieces = nn.ModuleList(pieces)
        self.fixed = fixed
        self.name = name
        #: Of each piece: whether its channels are last.
        self._channels_last = [False] * len(pieces)
        #: Indices of pieces after which the maps change their size.
        self._taps: list[int] = []
        with evaluating(self):
            self._explore(channels, max(*size, 64))
            given = self._try(channels, size)
        #: What it gives: the number of channels of its maps, or of numbers in its vector.
        self.features: int = given.shape[1]
        self.gives_maps = given.ndim == 4

    def forward(self, images: Tensor) -> Tensor:
        """Images N x C x height x width -> N x F x h x w, or N x F."""
        return self._run(images, ())[-1]

    def maps(self, images: Tensor) -> list[Tensor]:
        """The last maps of each size, finest first: N x F x h x w."""
        return self._run(images, self._taps)

    def channels_first_pieces(self) -> list[nn.Module]:
        """The pieces whose maps are N x F x h x w as they give them."""
        pairs = zip(self.pieces, self._channels_last, strict=True)
        return [piece for piece, last in pairs if not last]

    def _run(self, images: Tensor, taps: Sequence[int]) -> list[Tensor]:
        if self.fixed is not None and images.shape[2:] != self.fixed:
            images = functional.interpolate(images, self.fixed, mode="bilinear", antialias=True)
        value: Any = images
        found = []
        for index, piece in enumerate(self.pieces):
            value = piece(value)
            if index in taps:
                found.append(_usual(value, self._channels_last[index]))
        if isinstance(value, (list, tuple)):
            return [_usual(each, last=False) for each in value]
        return [*found, _usual(value, self._channels_last[-1])]

    def _explore(self, channels: int, side: int) -> None:
        """Look at a square image's way: where channels are last, and where the size changes."""
        value: Any = torch.zeros(1, channels, *(self.fixed or (side, side)))
        sizes: list[int | None] = []
        for index, piece in enumerate(self.pieces):
            try:
                value = piece(value)
            except RuntimeError as error:
                raise UsageError(f"{self.name}: {piece_name(piece)} fails: {error}") from error
            shape: tuple[int, ...] = tuple(getattr(value, "shape", ()))
            square = len(shape) == 4 and shape[2] == shape[3]
            self._channels_last[index] = len(shape) == 4 and shape[1] == shape[2] and not square
            sizes.append(shape[2] if len(shape) == 4 else None)
        self._taps = [
            index
            for index, (now, then) in enumerate(pairwise(sizes))
            if now is not None and then is not None and now != then
        ]

    def _try(self, channels: int, size: tuple[int, int]) -> Tensor:
        try:
            given: Tensor = self(torch.zeros(1, channels, *size))
        except RuntimeError as error:
            least = self._smallest(channels, max(size))
            if least is None:
                raise UsageError(
                    f"{self.name} cannot take images of {channels} x {size[0]} x {size[1]}: {error}"
                ) from None
            raise UsageError(
                f"{self.name} cannot take images of {size[0]} x {size[1]} pixels: they become "
                f"smaller than one pixel inside. It takes {least} x {least} and more; resize them "
                f"(item_transforms=[Resize({least})]), or take a network with fewer steps, "
                "arch='small_cnn' for example"
            ) from None
        if given.ndim not in (2, 4):
            raise UsageError(
                f"{self.name} gives a tensor of shape {tuple(given.shape)} for one image; a body "
                "gives maps (N x F x h x w), tokens (N x T x F) or a vector (N x F)"
            )
        return given

    def _smallest(self, channels: int, side: int) -> int | None:
        """The least side of a square image that goes through, in steps of 8, above `side`."""
        for least in range(side // 8 * 8 + 8, 257, 8):
            try:
                self(torch.zeros(1, channels, least, least))
            except RuntimeError:
                continue
            return least
        return None


def _usual(value: Any, last: bool) -> Tensor:
    """Maps with their channels first, or a vector."""
    maps: Tensor = value
    if maps.ndim == 3:
        return maps.mean(1)
    return maps.permute(0, 3, 1, 2) if last else maps


def piece_name(piece: nn.Module) -> str:
    """What a person calls a module: `Linear(in_features=4, ...)` or its class."""
    text = repr(piece)
    return type(piece).__name__ if "\n" in text else text
