"""What an archive of torch.export may hold, looked at before torch reads it.

torch's reader unpickles objects, evaluates expressions of sizes and calls functions by their names.
So only tensors, operators of torch, and expressions of known functions are let through.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from trainbus_learner.errors import ExportError

_FOLDERS = re.compile(
    r"[^/]+/(data/(weights|constants|sample_inputs)/[\w.]+|models/[\w.]+\.json|\.data/\w+"
    r"|archive_(format|version)|byteorder|version)"
)
_OPERATORS = re.compile(
    r"#?(torch\.ops\.(aten|prims|higher_order|torchvision)\.\w+(\.\w+)?|_operator\.\w+"
    r"|torch\.(sym_\w+|_sym_\w+)|math\.\w+)"
)
#: In expressions of sizes: the functions of sympy and torch, their options, and symbols.
_WORDS = re.compile(
    r"Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|CeilToInt|FloorToInt|TruncToInt|IntTrueDiv"
    r"|ToFloat|Max|Min|Abs|Integer|Rational|Float|Symbol|Eq|Ne|Le|Lt|Ge|Gt|And|Or|Not|Where"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Equality|Unequality"
    r"|positive|negative|integer|nonnegative|precision|True|False|int_oo|oo|(s|u|zuf|zf)\d+"
)


def check(file: Path) -> None:
    """Refuse an archive that holds anything else. Raises `ExportError`."""
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if not _FOLDERS.fullmatch(name) or "_obj" in PurePosixPath(name).name:
                    raise _refused(file, name)
                if name.endswith(".json"):
                    _check_json(file, name, json.loads(archive.read(name)))
                elif name.endswith(".pt"):
                    _check_tensors(file, name, archive.read(name))
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise ExportError(f"{file} is damaged: {error}") from error


def _check_json(file: Path, name: str, content: Any) -> None:
    for key, value in _values(content):
        if key == "use_pickle" and value is not False:
            raise _refused(file, f"{name}, a pickled tensor")
        if key in ("target", "as_operator") and isinstance(value, str):
            if not _OPERATORS.fullmatch(value):
                raise _refused(file, f"{name}, the function {value!r:.80}")
        elif key == "expr_str":
            words = re.findall(r"[^\W\d]\w*", str(value))
            unknown = [word for word in words if not _WORDS.fullmatch(word)]
            if unknown:
                raise _refused(file, f"{name}, the expression {value!r:.80}")


def _check_tensors(file: Path, name: str, content: bytes) -> None:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:
        raise _refused(file, name) from error


def _values(content: Any) -> Iterator[tuple[str, Any]]:
    """Each key of nested JSON with its value."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _values(value)
    elif isinstance(content, list):
        for value in content:
            yield from _values(value)


def _refused(file: Path, what: str) -> ExportError:
    return ExportError(
        f"{file} holds {what}, which is not known to be harmless: it may execute code, and is not "
        "loaded"
    )
