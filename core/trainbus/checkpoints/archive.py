"""Checkpoints: a directory of parts and a manifest with a checksum for each.

It is written beside its place, flushed to the disk and renamed; it is checked before it is read,
and reading executes nothing that it holds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from trainbus.checkpoints import contents
from trainbus.checkpoints.states import leading_to
from trainbus.errors import CheckpointError
from trainbus.storage import zip_records
from trainbus.storage.files import make_directory, present, replacing
from trainbus.storage.untrusted import Unfit, bounded, fields, opened, read_json, whole
from trainbus.version import __version__

logger = logging.getLogger("trainbus")

FORMAT = 1
_MANIFEST = "manifest.json"
#: How a run stands in a state that an exception left.
BROKEN = ("failed", "interrupted")
_NUMBERS = frozenset((int, float, bool))
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
    parts = plain_tensors(parts, path.name)
    try:
        with replacing(path) as beside:
            make_directory(beside)
            manifest = {
                "format": FORMAT,
                "written": datetime.now(UTC).isoformat(),
                "versions": {"trainbus": __version__, "torch": str(torch.__version__)},
                "about": dict(about),
                "parts": {name: _write_part(beside / f"{name}.pt", parts[name]) for name in parts},
            }
            (beside / _MANIFEST).write_text(json.dumps(manifest, indent=2), "utf-8")
    except (OSError, RuntimeError) as error:  # torch's writer tells of a full disk by the latter
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from error


def read(
    path: str | Path,
    only: Sequence[str] | None = None,
    before: Callable[[dict[str, Any]], None] | None = None,
    mapped: bool = False,
) -> dict[str, Any]:
    """Read the parts of a checkpoint, or some, to the CPU, after checking every checksum.

    Args:
        path: its directory.
        only: the names of the parts.
        before: looks at the parts before their numbers are read, and raises for what does not fit.
        mapped: the numbers stay in the files until they are looked at; those have to stay.

    Raises:
        CheckpointError: it is missing, damaged, foreign, too new, or holds code.
    """
    path = place(path)
    manifest = check(path)
    names = manifest["parts"] if only is None else only
    if before is not None:
        before(_read(path, names, mapped=True))
    return _read(path, names, mapped)


def _read(path: Path, names: Iterable[str], mapped: bool = False) -> dict[str, Any]:
    return {name: load(path / f"{name}.pt", f"{path}: {name}.pt", mapped) for name in names}


def load(path: Path, label: str, mapped: bool = False) -> Any:
    """Load one file of torch to the CPU, without executing anything that it holds.

    Args:
        path: the file.
        label: what messages call it.
        mapped: the numbers stay in the file until they are looked at; it has to stay as it is.

    Raises:
        CheckpointError: it is damaged, or holds code.
    """
    try:
        with opened(path) as file:
            mapped &= _is_checked_zip(file)
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        bounded(value, "it")
    except UnpicklingError as error:
        raise CheckpointError(
            f"{label} holds more than tensors and plain values; since such a file may execute "
            "code, it is not loaded"
        ) from error
    except Exception as error:  # torch raises many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"{label} cannot be read: {reason}") from error
    return value


def _is_checked_zip(file: BinaryIO) -> bool:
    """Whether it is an archive, with the records of one; older files of torch's are none."""
    if not zip_records.is_zip(file):
        return False
    with zipfile.ZipFile(file) as archive:
        size = os.fstat(file.fileno()).st_size
        zip_records.checked(archive, size, zip_records.SAVED)
    return True


def place(path: str | Path) -> Path:
    """Where a checkpoint is: `best` leads to one, and a killed process may have left it aside."""
    return present(leading_to(Path(path)))


def check(path: str | Path) -> dict[str, Any]:
    """Compare every part with its checksum; returns the manifest. Raises `CheckpointError`."""
    path = place(path)
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {str(path)!r}")
    manifest = _manifest(path)
    for name, expected in manifest["parts"].items():
        try:
            with opened(path / f"{name}.pt") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: the part {name}.pt cannot be read: {error}") from None
        if found != expected["sha256"]:
            raise CheckpointError(f"{path}: the part {name}.pt is damaged: its checksum differs")
    return manifest


def check_state(path: str | Path) -> None:
    """Check that it is whole, and holds the state of a run. Raises `CheckpointError`."""
    path = place(path)
    contents.check(_read(path, check(path)["parts"], mapped=True), str(path))


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = read_json(path / _MANIFEST)
        fields({"format": whole(1)})(manifest, _MANIFEST)
        number = manifest["format"]
        if number <= FORMAT:
            contents.MANIFEST(manifest, _MANIFEST)
            return manifest
    except (OSError, Unfit) as error:
        raise CheckpointError(
            f"{path} is no checkpoint of trainbus, or is damaged: {error}"
        ) from None
    raise CheckpointError(
        f"{path} has format {number}, this trainbus reads up to {FORMAT}; upgrade it"
    )


def about(path: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint tells of the run. Raises `CheckpointError`."""
    told: dict[str, Any] = _manifest(path)["about"]
    return told


def newest_valid(directory: Path) -> Path | None:
    """The newest undamaged checkpoint in a directory, by its count; damaged ones are told.

    Not by steps: a run that was set back to an older state goes on from there. Not by time: clocks
    are set. What a process left that was killed while it put a checkpoint in its place is looked
    at, too. A state that was measured only because its run ended there comes behind those that a
    longer run has, and one of an exception behind an ordinary one of the same step.
    """
    found = _manifests(directory, lambda path, error: logger.warning(
        "%s is damaged; trying an older checkpoint (%s)", path, error
    ))  # fmt: skip
    ordinary: dict[int, float] = {}
    for _, about, _ in found:
        if about.get("status") not in BROKEN:
            step = about.get("global_step", 0)
            ordinary[step] = max(ordinary.get(step, 0), about.get("order", 0))

    def newer(entry: tuple[Path, dict[str, Any], str]) -> tuple[bool, float, str]:
        _, about, written = entry
        order = about.get("order", 0)
        if about.get("status") in BROKEN and (step := about.get("global_step", 0)) in ordinary:
            order = min(order, ordinary[step] - 0.5)
        return not about.get("measured_last", False), order, written

    for path, _, _ in sorted(found, key=newer, reverse=True):
        try:
            check_state(path)
        except CheckpointError as error:
            logger.warning("%s; trying an older checkpoint", error)
        else:
            return path
    return None


def last_order(directory: Path) -> int:
    """How many states were written, by the newest in a directory; 0 where there is none."""
    found = _manifests(directory, lambda path, error: None)
    return max((about.get("order", 0) for _, about, _ in found), default=0)


def _manifests(
    directory: Path, damaged: Callable[[Path, CheckpointError], None]
) -> list[tuple[Path, dict[str, Any], str]]:
    """The states in a directory of states: place, what is told of the run, when it was written."""
    found = []
    for path in chain(directory.glob(f"*/{_MANIFEST}"), directory.glob(f"*/*/{_MANIFEST}")):
        try:
            manifest = _manifest(path.parent)
            found.append((path.parent, manifest["about"], manifest["written"]))
        except CheckpointError as error:
            damaged(path.parent, error)
    return found


class _Writing:
    """A file that is written once, from start to end, and keeps what the disk said."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


class _Hashing(_Writing):
    """One that knows its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.bytes += len(data)
        return super().write(data)


def save(value: Any, path: Path) -> None:
    """Write one file of torch. Raises `OSError`: the disk is full, or fails."""
    with path.open("wb") as file:
        _save(value, _Writing(file))


def _save(value: Any, file: _Writing) -> None:
    # Not by a path: torch's own writer ends the process on a full disk.
    try:
        torch.save(value, file)  # type: ignore[arg-type]
    except RuntimeError as error:  # of a position in the file
        raise (file.error or error) from None


def _write_part(path: Path, part: Any) -> dict[str, Any]:
    with path.open("wb") as file:
        hashing = _Hashing(file)
        _save(part, hashing)
    return {"sha256": hashing.sha256.hexdigest(), "bytes": hashing.bytes}


def plain_tensors(
    parts: Mapping[str, Any], where: str, keep: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Any]:
    """The same parts of tensors and plain values only; raises for what `read` would refuse.

    Args:
        parts: by name, tensors and plain values in dictionaries and lists.
        where: for the message.
        keep: what to keep of a tensor: a copy, for example; by default itself.
    """
    return {name: _plain(part, f"{where}: {name}", keep) for name, part in parts.items()}


def _plain(value: Any, where: str, keep: Callable[[Tensor], Tensor] | None) -> Any:
    if isinstance(value, dict):
        for key in value:
            _plain(key, f"{where}: the key {key!r}", None)
        return {key: _plain(item, f"{where}: {key}", keep) for key, item in value.items()}
    if type(value) in (list, tuple):
        if _NUMBERS.issuperset(map(type, value)):  # the 625 of a generator, in each state
            return type(value)(value)
        return type(value)(_plain(item, f"{where}: {i}", keep) for i, item in enumerate(value))
    if type(value) in (Tensor, nn.Parameter, nn.Buffer):
        return value if keep is None else keep(value.detach())
    if type(value) in _PLAIN:
        return value
    for plain_type in (bool, int, float, str):
        if isinstance(value, plain_type):  # a number of NumPy's, or an enumeration's
            return plain_type(value)
    raise CheckpointError(
        f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values"
    )
