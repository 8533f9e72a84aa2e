"""Reading images: from a file, bytes, a PIL image, an array or a tensor to uint8, C x H x W.

Plain JPEG and PNG files of 8 bits go through torchvision where it is installed; all others, and
all where it is not, through Pillow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data.errors import DataError

Decoder = Callable[[Tensor, int], Tensor]


def read_image(raw: Any, channels: int) -> Tensor:
    """The image as C x H x W, uint8 (a tensor of floats stays what it is).

    Colours become grey by the weights of ITU-R 601. What is transparent is laid on white. 16 bits
    are scaled to 8. A rotation that the camera noted (EXIF) is applied.

    Raises:
        DataError: it cannot be read, or no image has its shape or values.
        OSError: the file cannot be opened.
    """
    if isinstance(raw, (str, Path)):
        return _from_bytes(Path(raw).read_bytes(), channels)
    if isinstance(raw, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(raw), channels)
    if isinstance(raw, Tensor):
        return _to_channels(_checked(raw if raw.ndim != 2 else raw[None]), channels)
    if isinstance(raw, np.ndarray):
        return _to_channels(_from_array(raw), channels)
    if hasattr(raw, "convert") and hasattr(raw, "getbands"):  # a PIL image
        return _from_pil(raw, channels)
    raise DataError(
        f"an image of the type {type(raw).__name__}; give a path, bytes, a PIL image, an array "
        "(H x W or H x W x C) or a tensor (C x H x W)"
    )


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
    codes = torch.as_tensor(np.array(raw) if not isinstance(raw, Tensor) else raw)
    if codes.ndim == 3 and 1 in (codes.shape[0], codes.shape[2]):
        codes = codes[0] if codes.shape[0] == 1 else codes[..., 0]
    if codes.ndim != 2 or codes.is_floating_point():
        raise DataError(
            f"a mask of shape {tuple(codes.shape)} and type {codes.dtype}; codes are H x W integers"
        )
    return codes.long()


def _from_bytes(data: bytes, channels: int) -> Tensor:
    if not data:
        raise DataError("the file is empty")
    decode = _torchvision() if _is_plain(data) else None
    if decode is None:
        return _from_pil(_opened(data), channels)
    try:
        # A bytearray can be written to; torch warns of what cannot.
        return decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), channels)
    except (RuntimeError, Warning):
        # Pillow can read more, or says why not. (A warning is an error under `python -W error`:
        # torchvision 0.29 calls its decoders deprecated.)
        return _from_pil(_opened(data), channels)


def _is_plain(data: bytes) -> bool:
    """Whether it is a JPEG, or a PNG of 8 bits with grey or colour only."""
    if data[:3] == b"\xff\xd8\xff":
        return True
    is_png = data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 33
    return is_png and data[24] == 8 and data[25] in (0, 2) and b"tRNS" not in data[:4096]


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
        image.load()
    except UnidentifiedImageError:
        raise DataError(
            f"not an image that Pillow knows: {len(data)} bytes that begin with {data[:8]!r}"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the image is damaged: {error}") from error
    return image


def _from_pil(image: Any, channels: int) -> Tensor:
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _to_channels(_from_array(np.asarray(image)), channels)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = _on_white(image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    array = np.array(image)
    return _planes(torch.from_numpy(array))


def _on_white(image: Any) -> Any:
    from PIL import Image

    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image)


def _planes(pixels: Tensor) -> Tensor:
    """H x W or H x W x C as C x H x W."""
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise DataError(
            f"an image as an array of shape {array.shape}; arrays are H x W or H x W x C "
            "(a tensor is C x H x W)"
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype in (np.uint16, np.int32, np.int64) and array.size:
        low, high = array.min(), array.max()
        if low < 0 or high > 65535:
            raise DataError(f"pixels from {low} to {high}; they are 0..255, or 0..65535 in 16 bits")
        if array.dtype == np.int64 and high <= 255:
            array = array.astype(np.uint8)
        else:  # 16 bits: 65535 is white
            array = ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif array.dtype.kind == "f":
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"pixels of the type {array.dtype} from {array.min():.4g} to {array.max():.4g}; "
                "floats are 0..1"
            )
        array = (array * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"pixels of the type {array.dtype}; give uint8, uint16, or floats in 0..1")
    return _planes(torch.from_numpy(np.array(array)))


def _checked(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 2, 3, 4):
        raise DataError(f"an image as a tensor of shape {tuple(image.shape)}; it is C x H x W")
    if image.dtype == torch.uint8 or image.is_floating_point():
        return image
    array = image.permute(1, 2, 0).cpu().numpy()
    return _from_array(array)


def _to_channels(image: Tensor, channels: int) -> Tensor:
    """C x H x W with the channels asked for: alpha laid on white, grey spread, colours mixed."""
    given = image.shape[0]
    if given == channels:
        return image
    if given in (2, 4):
        white = 255.0 if image.dtype == torch.uint8 else 1.0
        alpha = image[-1:].float() / white
        laid = image[:-1].float() * alpha + white * (1 - alpha)
        mixed = laid.round().to(image.dtype) if image.dtype == torch.uint8 else laid
        return _to_channels(mixed, channels)
    if given == 1:
        return image.expand(channels, -1, -1).contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114], device=image.device).view(3, 1, 1)
    grey = (image.float() * weights).sum(dim=0, keepdim=True)
    return grey.round().to(image.dtype) if image.dtype == torch.uint8 else grey
