"""What TensorBoard can show of an artifact: pixels, or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from torch import Tensor

    from trainbus import Artifact

    Pixels = numpy.ndarray[Any, numpy.dtype[numpy.uint8]]


def render(artifact: Artifact) -> str | Pixels:
    """Markdown, or an image as bytes of height x width x channels.

    Raises:
        ValueError: the value cannot be shown as what it is said to be.
    """
    if artifact.kind == "figure":
        return _figure(artifact.value)
    if artifact.kind == "image":
        return _image(artifact.value)
    if artifact.kind == "table":
        return table(artifact.value)
    if artifact.kind == "text":
        return str(artifact.value)
    return _path(Path(artifact.value))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows; its columns are all keys, in the order they first come in."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return "(no rows)"
    lines = [
        columns,
        ["---"] * len(columns),
        *([row.get(key, "") for key in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split("\n"))


def _path(path: Path) -> str:
    if path.is_dir():
        return f"`{path}` (a directory)"
    return f"`{path}` ({path.stat().st_size:,} bytes)"


def _figure(figure: Any) -> Pixels:
    from PIL import Image

    # Through `savefig`, which leaves the figure's own canvas and the open figures as they are.
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return _image(Image.open(buffer))


def _image(image: Any) -> Pixels:
    import numpy
    from PIL import Image
    from torch import Tensor

    if isinstance(image, Tensor):
        pixels = _pixels(image)
    elif isinstance(image, Image.Image):
        pixels = numpy.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    else:
        raise ValueError(f"{type(image).__name__} is neither a tensor nor a PIL image")
    if not pixels.size:
        raise ValueError("an image without pixels")
    return pixels


def _pixels(image: Tensor) -> Pixels:
    import torch

    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"a tensor of shape {tuple(image.shape)}; an image is channels x height x width, with "
            "1, 3 or 4 channels"
        )
    image = image.cpu()
    if image.is_floating_point():
        image = (image.float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    elif image.dtype is torch.bool:
        image = image.to(torch.uint8) * 255
    elif image.dtype is not torch.uint8:
        raise ValueError(f"a tensor of {image.dtype}; give floats from 0 to 1, or uint8")
    pixels: Pixels = image.permute(1, 2, 0).numpy()
    return pixels
