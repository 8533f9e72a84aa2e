"""Reading images: from a file, bytes, a PIL image, an array or a tensor to pixels, C x H x W.

JPEG files go through torchvision where it is installed; all others, and all where it is not,
through Pillow: torchvision's decoder of PNG ends the process where a file is damaged.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data.errors import DataError
from trainbus_vision.pixels import Scale, codes_of, planes, to_channels

Pixels = Tensor | np.ndarray[Any, Any]
Decoder = Callable[[Tensor, int], Tensor]
#: A JPEG that says it has more pixels goes to Pillow, which refuses what may be a lie: memory for
#: them would be taken before the first one is read.
_SAFE = 178_000_000


def read_image(raw: Any, channels: int, scale: Scale | None = None) -> Tensor:
    """The image as C x H x W: uint8, or floats in 0..1.

    Colours become grey by the weights of ITU-R 601. What is transparent is laid on white, where
    one channel or three are asked for. A rotation that the camera noted (EXIF) is applied. What
    other types than bytes mean is said by `Scale`.

    Raises:
        DataError: it cannot be read, or no image has its shape or values.
        OSError: the file cannot be opened.
    """
    scale = scale or Scale()
    if isinstance(raw, (str, Path)):
        raw = Path(raw).read_bytes()
    if isinstance(raw, (bytes, bytearray, memoryview)):
        image = _from_bytes(bytes(raw), channels)
    elif isinstance(raw, (Tensor, np.ndarray)):
        image = raw
    elif hasattr(raw, "convert") and hasattr(raw, "getbands"):
        image = _from_pil(raw, channels)
    else:
        raise DataError(
            f"an image of the type {type(raw).__name__}; give a path, bytes, a PIL image, an array "
            "(H x W or H x W x C) or a tensor (C x H x W)"
        )
    is_array = isinstance(image, np.ndarray)
    pixels = scale(image)
    if is_array and pixels.is_floating_point() and scale.white is None:
        pixels = (pixels * 255 + 0.5).clamp(0, 255).to(torch.uint8)
    return to_channels(planes(pixels, channels, is_array), channels)


def prepare() -> None:
    """Import what reads plain files, if it is there."""
    _torchvision()


def read_codes(raw: Any) -> Tensor:
    """A mask as H x W, int64: the values of a grey image or the indices of a palette.

    Raises:
        DataError: it has colours, or cannot be read.
        OSError: the file cannot be opened.
    """
    if isinstance(raw, (str, Path, bytes)):
        raw = _opened(Path(raw).read_bytes() if isinstance(raw, (str, Path)) else raw)
    if hasattr(raw, "getbands"):
        if raw.mode not in ("L", "P", "1", "I") and not raw.mode.startswith("I;16"):
            raise DataError(
                f"a mask of the mode {raw.mode}; it has to hold one code for each pixel: a grey "
                "or palette image"
            )
        raw = np.asarray(raw)
    codes = codes_of(raw if isinstance(raw, Tensor) else np.asarray(raw))
    if codes.ndim == 3 and 1 in (codes.shape[0], codes.shape[2]):
        codes = codes[0] if codes.shape[0] == 1 else codes[..., 0]
    if codes.ndim != 2:
        raise DataError(f"a mask of shape {tuple(codes.shape)}; codes are H x W integers")
    return codes


def _from_bytes(data: bytes, channels: int) -> Pixels:
    if not data:
        raise DataError("the file is empty")
    plain = data[:3] == b"\xff\xd8\xff" and channels in (1, 3) and _pixels_of_jpeg(data) <= _SAFE
    decode = _torchvision() if plain else None
    if decode is None:
        return _from_pil(_opened(data), channels)
    try:
        # A bytearray can be written to; torch warns of what cannot.
        return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), channels)
    except (RuntimeError, Warning):
        # Pillow can read more, or says why not. (A warning is an error under `python -W error`:
        # torchvision 0.29 calls its decoders deprecated.)
        return _from_pil(_opened(data), channels)


def _pixels_of_jpeg(data: bytes) -> int:
    """How many pixels a JPEG says that it has, in the frame header (ITU-T T.81, B.2.2); or 0."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # it fills
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(height * width)
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


@functools.cache
def _torchvision() -> Decoder | None:
    try:
        from torchvision.io import (  # type: ignore[import-untyped]
            ImageReadMode,
            decode_image,
        )
    except (ImportError, OSError, RuntimeError):  # absent, or not made for this torch
        return None
    modes = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}

    def decode(buffer: Tensor, channels: int) -> Tensor:
        image: Tensor = decode_image(buffer, modes[channels], apply_exif_orientation=True)
        return image

    return decode


def _opened(data: bytes) -> Any:
    import io

    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise DataError("this image needs Pillow to be read: pip install pillow") from None
    try:
        image = Image.open(io.BytesIO(data))
        if (most := Image.MAX_IMAGE_PIXELS) and image.width * image.height > most:
            raise DataError(
                f"the image says that it has {image.width} x {image.height} pixels, in "
                f"{len(data):,} bytes; it is damaged, or larger than is safe to read: "
                f"PIL.Image.MAX_IMAGE_PIXELS is {most:,}"
            )
        image.load()
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"not an image that Pillow knows: {len(data)} bytes that begin with {data[:8]!r}"
        ) from None
    except Image.DecompressionBombError as error:
        raise DataError(
            f"the image is damaged, or larger than is safe to read: {error} "
            "PIL.Image.MAX_IMAGE_PIXELS is the limit"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the image is damaged: {error}") from error
    except Exception as error:  # readers of single formats raise many kinds
        raise DataError(f"the image is damaged: {type(error).__name__}: {error}") from error
    return image


def _from_pil(image: Any, channels: int) -> np.ndarray[Any, Any]:
    """H x W, or H x W x C: as many channels as asked for, or those that the file has."""
    from PIL import ImageOps

    kind = getattr(image, "format", None)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        array = np.asarray(image)
        # A PNG has 16 bits at most, whatever Pillow calls them.
        return array.astype(np.uint16) if kind == "PNG" else array
    if image.mode == "P" and channels not in (1, 3):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if channels in (1, 3):
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            image = _on_white(image.convert("RGBA"))
        image = image.convert("L" if channels == 1 else "RGB")
    return np.array(image)


def _on_white(image: Any) -> Any:
    from PIL import Image

    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image)
