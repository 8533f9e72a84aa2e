"""What `description.json` of an export holds, compared with what it has to be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from trainbus.storage.untrusted import (
    Shape,
    Unfit,
    choice,
    either,
    fields,
    listed,
    mapping,
    maybe,
    one_of,
    opened,
    parsed,
    shown,
    text,
    whole,
)
from trainbus_learner.errors import ExportError

FORMAT = 1
DESCRIPTION = "description.json"
FILES = {"weights": "weights.safetensors", "torch.export": "model.pt2", "onnx": "model.onnx"}
#: The tensors that reading needs, of a recipe that has some.
TENSORS = "recipe.safetensors"
_OPTION: Shape = mapping(key=text(200, r"[^\W\d]\w*"))
#: How items are read: by what a distribution offers in the entry point group `trainbus.readers`,
#: which looks at its state itself; or block by block.
_BY_READER = fields({"reader": text(100), "state": mapping()})
_OF_BLOCKS = fields({"inputs": whole(1), "blocks": listed(_OPTION), "transforms": listed(_OPTION)})
_DESCRIPTION = fields(
    {
        "kind": choice(*FILES),
        "files": mapping(text(64, "[0-9a-f]{64}"), key=text(200, r"\w[\w.-]*")),
        "model": fields(
            {"class": text(), "scales_bytes": one_of(bool)},
            {"build": fields({"builder": text(1000), "options": _OPTION})},
        ),
        "recipe": maybe(either(_BY_READER, _OF_BLOCKS)),
        "target": maybe(fields({"plain": choice("category", "categories", "number")})),
    },
    {
        "what": text(),
        "versions": mapping(text(100)),
        "inputs": listed(
            fields({"kind": text(), "shape": listed(one_of(str, int)), "dtype": text(100)})
        ),
        "outputs": listed(listed(one_of(str, int))),
        "classes": maybe(listed(one_of(str, int, float, bool))),
        "activation": text(100),
        "loss": maybe(text()),
        "dynamic": listed(text(100)),
    },
)


def read(path: Path) -> dict[str, Any]:
    """The description of an export, after checking every checksum.

    Raises:
        ExportError: it is missing, damaged, foreign or too new; the message names the field.
    """
    if not path.exists():
        raise ExportError(f"load: there is no {str(path)!r}")
    try:
        with opened(path / DESCRIPTION) as file:
            about: dict[str, Any] = parsed(file.read(), DESCRIPTION)
        fields({"format": whole(1)})(about, DESCRIPTION)
        if about["format"] <= FORMAT:
            _check(about)
    except (OSError, Unfit) as error:
        raise ExportError(
            f"{path} is no export of a learner, or is damaged: there is no readable {DESCRIPTION} "
            f"in it: {error}"
        ) from None
    if about["format"] > FORMAT:
        raise ExportError(
            f"{path} has format {about['format']}, this trainbus-learner reads up to {FORMAT}; "
            "upgrade it"
        )
    for name, expected in about["files"].items():
        file_ = path / name
        if not file_.is_file():
            raise ExportError(f"{path} is incomplete: {name} is missing")
        if sha256(file_) != expected:
            raise ExportError(f"{path} is damaged: the checksum of {name} differs")
    return about


def _check(about: dict[str, Any]) -> None:
    _DESCRIPTION(about, DESCRIPTION)
    if FILES[about["kind"]] not in about["files"]:
        raise Unfit(f"it names no file for its kind {shown(about['kind'])}")
    if about["recipe"] is None and about["target"] is None:
        raise Unfit("it tells neither of a recipe nor of a target")


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def labels_of(target: Any) -> list[Any] | None:
    """The classes of a target in the order of a model's outputs, as JSON has them, if any."""
    words = getattr(target, "vocab", None) or getattr(target, "codes", None)
    if not words:
        return None
    return [each if isinstance(each, (str, int, float, bool)) else str(each) for each in words]
