"""Checkpoints: a directory of parts and a manifest with a checksum for each.

It is written beside its place, flushed to the disk and renamed; it is checked before it is read,
and reading executes nothing that it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from trainbus.errors import CheckpointError
from trainbus.version import __version__

logger = logging.getLogger("trainbus")

FORMAT = 1
_MANIFEST = "manifest.json"
_PLAIN = (str, int, float, bool, complex, bytes, type(None), torch.Size, torch.dtype, torch.device)


def write(path: Path, parts: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at any time either all of it is at `path`, or what was before.

    Args:
        path: the directory to make.
        parts: by name, tensors and plain values in dictionaries and lists.
        about: plain values for the manifest, readable without loading a part.

    Raises:
        CheckpointError: it cannot be written, or holds what could not be read again.
    """
    parts = {name: _plain(part, f"{path.name}: {name}") for name, part in parts.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        manifest = {
            "format": FORMAT,
            "versions": {"trainbus": __version__, "torch": str(torch.__version__)},
            "about": dict(about),
            "parts": {name: _write_part(temporary / f"{name}.pt", parts[name]) for name in parts},
        }
        with (temporary / _MANIFEST).open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(temporary)
        _put_in_place(temporary, path)
    except (OSError, RuntimeError) as error:  # torch's writer tells of a full disk by the latter
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(path: str | Path, only: str | None = None) -> dict[str, Any]:
    """Read the parts of a checkpoint, or one of them, to the CPU, after checking every checksum.

    Raises:
        CheckpointError: it is missing, damaged, foreign, too new, or holds code.
    """
    path = Path(path)
    manifest = check(path)
    parts = {}
    for name in manifest["parts"] if only is None else (only,):
        try:
            parts[name] = torch.load(path / f"{name}.pt", map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise CheckpointError(
                f"{path}: {name}.pt holds more than tensors and plain values; since such a file "
                "may execute code, it is not loaded"
            ) from error
        except Exception as error:  # torch raises many kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise CheckpointError(f"{path}: {name}.pt cannot be read: {reason}") from error
    return parts


def check(path: str | Path) -> dict[str, Any]:
    """Compare every part with its checksum; returns the manifest. Raises `CheckpointError`."""
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {str(path)!r}")
    try:
        manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text("utf-8"))
        number, parts = manifest["format"], manifest["parts"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{path} is no checkpoint of trainbus, or is damaged") from None
    if number > FORMAT:
        raise CheckpointError(
            f"{path} has format {number}, this trainbus reads up to {FORMAT}; upgrade it"
        )
    for name, expected in parts.items():
        try:
            with (path / f"{name}.pt").open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: the part {name}.pt cannot be read: {error}") from None
        if found != expected["sha256"]:
            raise CheckpointError(f"{path}: the part {name}.pt is damaged: its checksum differs")
    return manifest


def newest_valid(directory: Path) -> Path | None:
    """The newest undamaged checkpoint in a directory, by steps made; damaged ones are told."""
    found = []
    for manifest_path in directory.glob(f"*/{_MANIFEST}"):
        try:
            about = json.loads(manifest_path.read_text("utf-8"))["about"]
            found.append((about["global_step"], about["epoch"], manifest_path.parent))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s is damaged; trying an older checkpoint", manifest_path.parent)
    for _, _, path in sorted(found, reverse=True):
        try:
            check(path)
        except CheckpointError as error:
            logger.warning("%s; trying an older checkpoint", error)
        else:
            return path
    return None


def write_weights(path: Path, model: nn.Module) -> None:
    """Write the weights of a model alone to one file of torch, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_part(temporary, model.state_dict())
        temporary.replace(path)
        _sync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_model(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load weights that fit in every name and shape, else say which do not and change nothing."""
    check_model(model, weights, source)
    model.load_state_dict(weights)


def check_model(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Raise `CheckpointError` with the names and shapes that differ."""
    here = {name: tuple(value.shape) for name, value in _tensors(model.state_dict())}
    there = {name: tuple(value.shape) for name, value in _tensors(weights)}
    problems = [f"only in the model: {name}" for name in here if name not in there]
    problems += [f"only in the file: {name}" for name in there if name not in here]
    problems += [
        f"{name}: {there[name]} in the file, {here[name]} in the model"
        for name in here
        if name in there and here[name] != there[name]
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the model:\n  " + "\n  ".join(problems))


def _tensors(state: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    return [(name, value) for name, value in state.items() if isinstance(value, Tensor)]


class _Hashing:
    """A file that is written once, from start to end, and knows its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _write_part(path: Path, part: Any) -> dict[str, Any]:
    with path.open("wb") as file:
        hashing = _Hashing(file)
        torch.save(part, hashing)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": hashing.sha256.hexdigest(), "bytes": hashing.bytes}


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename; a directory that is there already goes away only when the new one is durable."""
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    temporary.rename(path)
    _sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_directory(directory: Path) -> None:
    """Make a rename itself durable, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _plain(value: Any, where: str) -> Any:
    """The same of tensors and plain values only; what `read` would refuse is refused."""
    if isinstance(value, dict):
        for key in value:
            _plain(key, f"{where}: the key {key!r}")
        return {key: _plain(item, f"{where}: {key}") for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item, f"{where}: {i}") for i, item in enumerate(value))
    if type(value) in (*_PLAIN, Tensor, nn.Parameter, nn.Buffer):
        return value
    for plain in (bool, int, float, str):
        if isinstance(value, plain):  # a number of NumPy's, or an enumeration's
            return plain(value)
    raise CheckpointError(
        f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values"
    )
