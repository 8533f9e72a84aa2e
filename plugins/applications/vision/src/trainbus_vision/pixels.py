"""How numbers become pixels: the one place that says what their type and their range mean.

Whatever the file, the array or the tensor: bytes are 0..255, bool is black and white, uint16 is
0..65535, other integers are 0..255, floats are 0..1. What does not fit is refused.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data.errors import DataError

logger = logging.getLogger("trainbus")
#: Floats may be this much beyond 0..1: interpolation and half precision do that.
_SLACK = 2e-3
#: 16 bits of which these are the greatest are probably 12 bits or fewer.
_FEW_BITS = 4095


class Scale:
    """Makes pixels of numbers: uint8, or floats in 0..1.

    Args:
        white: the value of white in what is not in bytes (4095 for 12 bits), which becomes floats
            in 0..1; by default the type says it.
    """

    def __init__(self, white: float | None = None) -> None:
        if white is not None and not white > 0:
            raise DataError(f"Image(white={white!r}): give the value of white, 4095 for example")
        self.white = white
        self._said = False

    def __call__(self, raw: Any) -> Tensor:
        """An array or a tensor of any shape as uint8, or as float32 in 0..1.

        Raises:
            DataError: values that cannot be pixels.
        """
        given, values = _type_of(raw), as_tensor(raw)
        if not values.numel():
            raise DataError(f"an image without pixels, of shape {tuple(values.shape)}")
        if values.dtype == torch.bool:
            values = values.to(torch.uint8) * 255
        if values.dtype == torch.uint8:
            return values if self.white is None else values.float() / 255
        if values.is_complex():
            raise DataError("pixels that are complex numbers")
        low, high = values.min().item(), values.max().item()
        if self.white is not None:
            self._check(given, low, high, self.white, f"Image(white={self.white:g})")
            return values.float() / self.white
        if values.is_floating_point():
            more = "; Image(white=255) takes 0..255" if 1 < high <= 255 and low >= 0 else ""
            more = "; give them as they were, a model normalizes itself" if low < 0 else more
            self._check(given, low, high, 1, f"floats are 0..1{more}")
            return values.float()
        if given == "uint16":
            self._say(high)
            return ((values * 255 + 32767) // 65535).to(torch.uint8)
        more = f"; Image(white={65535 if high > 4095 else 4095}) says what white is"
        self._check(given, low, high, 255, f"integers are 0..255 but in uint16{more}")
        return values.to(torch.uint8)

    def _check(self, kind: str, low: float, high: float, white: float, expected: str) -> None:
        slack = _SLACK * white if kind.startswith(("float", "bfloat")) else 0
        if not (low >= -slack and high <= white + slack):
            raise DataError(f"pixels of the type {kind} from {low:.4g} to {high:.4g}; {expected}")

    def _say(self, high: float) -> None:
        """Say once where the 16 bits seem to be fewer: the images would be dark."""
        if not self._said and 0 < high <= _FEW_BITS:
            self._said = True
            logger.warning(
                "images of 16 bits whose greatest value is %d become 0 to %d of 255, for white is "
                "65535; Image(white=%d) says otherwise, and keeps all bits",
                high, round(high * 255 / 65535), 255 if high <= 255 else _FEW_BITS,
            )  # fmt: skip


def _type_of(values: Any) -> str:
    """`uint16`, of arrays in any byte order and of tensors."""
    return getattr(values.dtype, "name", None) or str(values.dtype).removeprefix("torch.")


def as_tensor(values: Any) -> Tensor:
    """An array of any byte order, or a tensor; integers that torch hardly knows as int64."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biufc":
            raise DataError(f"values of the type {values.dtype}; give numbers")
        values = values.astype(values.dtype.newbyteorder("="), copy=True)
        if values.dtype.kind == "u" and values.dtype.itemsize > 1:
            values = values.astype(np.int64)
        elif values.dtype == np.longdouble:
            values = values.astype(np.float64)
        return torch.from_numpy(values)
    tensor = torch.as_tensor(values)
    wide = (torch.uint16, torch.uint32, torch.uint64)
    return tensor.long() if tensor.dtype in wide else tensor


def codes_of(raw: Any) -> Tensor:
    """Codes of a mask, as int64; floats that are whole numbers are codes, too.

    Raises:
        DataError: fractions, NaN, complex numbers.
    """
    given, values = _type_of(raw), as_tensor(raw)
    if values.is_floating_point():
        odd = values[values != values.round()]
        if odd.numel() or not values.isfinite().all():
            some = f"{odd[0].item():.4g}" if odd.numel() else "inf"
            raise DataError(f"a mask of the type {given} holds {some}; codes are whole numbers")
    elif values.is_complex():
        raise DataError("a mask of complex numbers; codes are whole numbers")
    return values.long()


def to_channels(images: Tensor, channels: int) -> Tensor:
    """(N x) C x H x W with the channels asked for: grey spread, colours mixed, alpha on white.

    Raises:
        DataError: their number cannot be made of those that are there.
    """
    given = images.shape[-3]
    if given == channels:
        return images
    if channels not in (1, 3) or given not in (1, 2, 3, 4):
        raise DataError(
            f"an image of {given} channels, where Image(channels={channels}) takes "
            + (f"{channels}" if channels not in (1, 3) else "1 to 4")
        )
    is_bytes = images.dtype == torch.uint8
    if given in (2, 4):
        white = 255.0 if is_bytes else 1.0
        alpha = images[..., -1:, :, :].float() / white
        laid = images[..., :-1, :, :].float() * alpha + white * (1 - alpha)
        return to_channels(laid.round().to(images.dtype) if is_bytes else laid, channels)
    if given == 1:
        shape = [*images.shape[:-3], channels, *images.shape[-2:]]
        return images.expand(shape).contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)
    grey = (images.float() * weights).sum(dim=-3, keepdim=True)
    return grey.round().to(images.dtype) if is_bytes else grey


def planes(pixels: Tensor, channels: int, is_array: bool) -> Tensor:
    """One image as C x H x W: an array was H x W or H x W x C, a tensor H x W or C x H x W.

    Raises:
        DataError: it has another shape.
    """
    if pixels.ndim == 2:
        return pixels[None]
    known = {channels} | ({1, 2, 3, 4} if channels in (1, 3) else set())
    if pixels.ndim != 3 or pixels.shape[2 if is_array else 0] not in known:
        given = pixels.shape[2 if is_array else 0] if pixels.ndim == 3 else 0
        hint = f"; Image({given}) takes it as it is" if 4 < given <= 64 else ""
        of = f"of shape {tuple(pixels.shape)}, for Image(channels={channels}){hint}"
        raise DataError(
            f"an image as an array {of}; arrays are H x W or H x W x C (a tensor is C x H x W)"
            if is_array
            else f"an image as a tensor {of}; it is C x H x W"
        )
    return pixels.permute(2, 0, 1).contiguous() if is_array else pixels


def channels_first(shape: tuple[int, ...], is_tensor: bool, channels: int | None = None) -> bool:
    """Whether images N x a x b x c are N x C x H x W, and not N x H x W x C.

    Args:
        shape: of the images.
        is_tensor: what decides where both may be.
        channels: how many there are, if that is known.
    """
    first, last = shape[1], shape[3]
    wanted = (1, 3) if channels is None else (channels,)
    if (first in wanted) != (last in wanted):
        return first in wanted
    return is_tensor if first == last else first < last
