"""Things that a run logs and that are no numbers: copied when logged, kept as files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainbus.errors import RecordRejected
from trainbus.records.journal_schema import artifact_path
from trainbus.records.values import plain
from trainbus.storage.files import cut, make_directory, replacing

if TYPE_CHECKING:
    from torch import Tensor

ArtifactKind = Literal["file", "figure", "image", "text", "table", "model"]
ARTIFACT_KINDS: tuple[ArtifactKind, ...] = ("file", "figure", "image", "text", "table", "model")
#: How the files end that hold what was no file when it was logged.
_SUFFIXES: dict[str, str] = {"figure": ".png", "image": ".png", "text": ".md", "table": ".json"}

#: What a run writes while it is at work; a process that reads it frees SQLite's locks.
LIVE = re.compile(r"\.lock|journal(-rank\d+)?(-overdue)?\.db(-wal|-shm)?")
#: Bytes that are read at once.
_PART = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something logged that is no number.

    `value` as it is logged is, by kind: a path (file, model), a matplotlib figure, an image (a
    tensor of channels x height x width, floats in 0..1 or bytes, or a PIL image), a text
    (Markdown), or a table (a list of mappings with the same keys, or a data frame).

    A logger receives paths for files and models, the path of a PNG for figures and images, a
    `str` for a text and a list of dictionaries for a table.
    """

    name: str
    kind: ArtifactKind
    value: Any
    step: int
    #: Seconds since the epoch, when it was logged.
    time: float = 0.0


def capture(artifact: Artifact) -> Artifact:
    """The artifact with a value of its own, which later changes of the original leave alone.

    Files and models stay paths; the others become the bytes of the file that will hold them.

    Raises:
        ValueError: the value cannot be what its kind says.
    """
    value = artifact.value
    if artifact.kind == "figure":
        value = _saved(value, "savefig", format="png")
    elif artifact.kind == "image":
        value = _png_of(value)
    elif artifact.kind == "text":
        value = str(value).encode()
    elif artifact.kind == "table":
        value = json.dumps(_rows(value), default=plain).encode()
    else:
        value = Path(value).absolute()
        if not (value.is_file() or value.is_dir()):
            raise ValueError(f"{value} is no regular file, nor a directory")
    return replace(artifact, value=value)


def keep(artifact: Artifact, directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Write a captured artifact into a run's directory.

    A file or a model stays where it is, and is known by its path, size and SHA-256.

    Returns:
        What the journal keeps of it; and what of a directory is no regular file, and left out.

    Raises:
        OSError: it cannot be written, or read.
    """
    body = {"name": artifact.name, "kind": artifact.kind}
    if isinstance(artifact.value, Path):
        size, checksum, left_out = measure(artifact.value)
        path = artifact.value
        if path.is_relative_to(directory.absolute()):
            path = path.relative_to(directory.absolute())
        return body | {"path": str(path), "bytes": size, "sha256": checksum}, left_out
    checksum = hashlib.sha256(artifact.value).hexdigest()
    # In bytes, since a name of a file is limited in bytes; encrypted homes allow 143.
    stem = cut(re.sub(r"[^\w.-]+", "_", artifact.name), 60)
    name = f"{stem}-{artifact.step}-{checksum[:8]}{_SUFFIXES[artifact.kind]}"
    path = directory / "artifacts" / name
    make_directory(path.parent)
    with replacing(path) as beside:
        beside.write_bytes(artifact.value)
    size = len(artifact.value)
    return body | {"path": f"artifacts/{name}", "bytes": size, "sha256": checksum}, []


def restore(body: Mapping[str, Any], step: int, time: float, directory: Path) -> Artifact:
    """The artifact that `keep` described, as a logger receives it.

    Raises:
        RecordRejected: its file is gone, is not the one that was logged, or no regular file.
    """
    path = artifact_path(body, directory)
    what = f"{body['kind']} {body['name']!r} of step {step}"
    if not path.exists():
        raise RecordRejected(f"{what}: {path} is not there any more")
    try:
        size, checksum, left_out = measure(path)
    except OSError as error:
        raise RecordRejected(f"{what}: {error}") from error
    if left_out:  # a logger would read these, and wait for ever
        raise RecordRejected(f"{what}: {path} holds what is no regular file: {left_out[0]}")
    if (size, checksum) != (body["bytes"], body["sha256"]):
        raise RecordRejected(f"{what}: {path} was changed after it was logged")
    value: Any = path
    if body["kind"] == "text":
        value = path.read_text("utf-8")
    elif body["kind"] == "table":
        value = json.loads(path.read_bytes())
    return Artifact(body["name"], body["kind"], value, step, time)


def measure(path: Path) -> tuple[int, str, list[str]]:
    """Size in bytes and SHA-256 of a file, or of all regular files in a directory and their names.

    What a run's directory holds for the run itself, its journal and its lock, is no part of it.

    Returns:
        Size, checksum, and the names of what is neither a regular file nor a directory.

    Raises:
        OSError: a file cannot be read, or is no regular one.
    """
    if not path.is_dir():
        return *_measured(path), []
    total, digest, left_out = 0, hashlib.sha256(), []
    for each in sorted(path.rglob("*")):
        if each.is_dir() or LIVE.fullmatch(each.name):
            continue
        if not each.is_file():
            left_out.append(each.relative_to(path).as_posix())
            continue
        size, checksum = _measured(each)
        total += size
        digest.update(f"{each.relative_to(path).as_posix()}\0{checksum}\n".encode())
    return total, digest.hexdigest(), left_out


def _measured(path: Path) -> tuple[int, str]:
    """Size and checksum of a regular file; of one that grows, of so much as it has now."""
    # Opened so that a pipe without a writer does not wait for one.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        left, digest = status.st_size, hashlib.sha256()
        while left and (part := file.read(min(left, _PART))):
            digest.update(part)
            left -= len(part)
    return status.st_size - left, digest.hexdigest()


def _saved(value: Any, method: str, **options: Any) -> bytes:
    save = getattr(value, method, None)
    if save is None:
        raise ValueError(f"{type(value).__name__} has no {method}()")
    buffer = BytesIO()
    save(buffer, **options)
    return buffer.getvalue()


def _rows(table: Any) -> list[dict[str, Any]]:
    if hasattr(table, "to_dicts"):  # polars
        table = table.to_dicts()
    elif hasattr(table, "to_dict"):  # pandas
        table = table.to_dict("records")
    if not isinstance(table, (list, tuple)) or not all(isinstance(row, Mapping) for row in table):
        raise ValueError(f"{type(table).__name__} is no list of mappings, nor a data frame")
    return [{str(key): value for key, value in row.items()} for row in table]


def _png_of(image: Any) -> bytes:
    from torch import Tensor

    if not isinstance(image, Tensor):
        if not hasattr(image, "save") or not hasattr(image, "mode"):
            raise ValueError(f"{type(image).__name__} is neither a tensor nor a PIL image")
        if image.mode not in ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"):
            image = image.convert("RGB")
        return _saved(image, "save", format="png")
    return png(_pixels(image))


def _pixels(image: Tensor) -> Tensor:
    """Bytes, height x width x channels."""
    import torch

    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"a tensor of shape {tuple(image.shape)}; an image is channels x height x width, with "
            "1, 3 or 4 channels"
        )
    if not image.numel():
        raise ValueError("an image without pixels")
    image = image.detach().cpu()
    if image.is_floating_point():
        image = (image.float().nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8)
    elif image.dtype is torch.bool:
        image = image.to(torch.uint8) * 255
    elif image.dtype is not torch.uint8:
        raise ValueError(f"a tensor of {image.dtype}; give floats from 0 to 1, or uint8")
    return image.permute(1, 2, 0)


def png(pixels: Tensor) -> bytes:
    """Pixels as a PNG file.

    Args:
        pixels: bytes, height x width x channels; 1 channel is grey, 3 are RGB, 4 are RGBA.
    """
    import torch

    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    # Each row begins with the number of its filter: none.
    rows = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), rows], 1).contiguous()
    try:
        data = rows.numpy().tobytes()
    except RuntimeError:  # torch without NumPy
        data = bytes(rows.flatten().tolist())

    def chunk(kind: bytes, body: bytes) -> bytes:
        checked = kind + body
        return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))

    color = {1: 0, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )
