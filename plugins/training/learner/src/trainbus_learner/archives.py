"""What an archive of torch.export may hold, looked at before torch reads it.

torch's reader unpickles objects, evaluates expressions of sizes, executes guards as code, imports
what the description of a container names, and calls functions by their names. So a new archive is
made, of what was looked at: tensors, operators that compute, and expressions of known functions.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from trainbus.storage import zip_records
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
from trainbus_learner import expressions, operators
from trainbus_learner.errors import ExportError

#: All that `torch.export.save` writes for one program, in a folder of any name.
_RECORDS = re.compile(
    r"[^/]+/(?P<name>(?P<json>models/model\.json"
    r"|data/(?P<kind>weights|constants)/model_(weights|constants)_config\.json)"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id))"
)
_SMALL = re.compile(rb"[\w.]{1,100}\n?")
_NAME = text(1000, r"(\w+(\.\w+)*)?")
_SIZES = listed(fields({"as_int": whole()}))
#: Where the numbers of a tensor are, and its form.
_PAYLOAD = fields(
    {
        "path_name": text(100, r"(weight|tensor)_\d+"),
        "use_pickle": choice(False),
        "tensor_meta": fields(
            {
                "sizes": _SIZES,
                "strides": _SIZES,
                "storage_offset": fields({"as_int": whole()}),
                "device": fields({"type": choice("cpu")}),
            }
        ),
    }
)
_CONFIG = fields({"config": mapping(_PAYLOAD, key=text(1000, r"\w+(\.\w+)*"))})


def checked(file: Path) -> io.BytesIO:
    """An archive of what a file holds, made anew, once all of it was looked at.

    Raises:
        ExportError: it is damaged, or holds what is not known to be harmless.
    """
    try:
        with opened(file) as source, zipfile.ZipFile(source) as archive:
            size = source.seek(0, io.SEEK_END)
            records = zip_records.checked(archive, size, _RECORDS.pattern)
            contents = {_name(each.filename): archive.read(each) for each in records}
        return _made_anew(contents)
    except Unfit as error:
        raise ExportError(
            f"{file} is not known to be harmless: {error}; it may execute code, and is not loaded"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{file} is damaged: {error}") from error


def _name(record: str) -> str:
    match = _RECORDS.fullmatch(record)
    assert match is not None
    return match["name"]


def _made_anew(contents: dict[str, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            if name == "models/model.json":
                content = _program(parsed(content, name))
            elif name.endswith("_config.json"):
                content = _config(parsed(content, name), name, contents)
            elif name.startswith("data/sample_inputs/"):
                _check_example(content)
                content = b""  # a program is read without it
            elif not name.startswith("data/") and not _SMALL.fullmatch(content):
                raise Unfit(f"its record {name} is not what stands there")
            archive.writestr(f"model/{name}", content)
    made.seek(0)
    return made


def _check_example(content: bytes) -> None:
    """The inputs that it was exported with: tensors."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            zip_records.checked(archive, len(content), zip_records.SAVED)
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise Unfit("its example of inputs holds more than tensors") from error


def _config(config: Any, name: str, contents: dict[str, bytes]) -> bytes:
    """Which record has the numbers of which tensor."""
    _CONFIG(config, name)
    folder = name.rpartition("/")[0]
    for key, payload in config["config"].items():
        content = contents.get(f"{folder}/{payload['path_name']}")
        if content is None:
            raise Unfit(f"{name} names no record for {shown(key)}")
        count = math.prod(size["as_int"] for size in payload["tensor_meta"]["sizes"])
        if not content and count:  # torch would make so many zeros
            raise Unfit(f"{name} has no numbers for {shown(key)}")
    return json.dumps(config).encode()


# --- the program ---------------------------------------------------------------------------------


def _program(program: Any) -> bytes:
    """The program without what is only for people; it holds names, numbers and known functions.

    Names become a part of code that torch makes: all texts are names, but for those below.
    """
    _check(program, "the program", "")
    return json.dumps(program).encode()


def _check(value: Any, where: str, key: str) -> None:
    if isinstance(value, dict):
        if "metadata" in value:  # where the code was, and other things for people
            value["metadata"] = {}
        for name, each in value.items():
            _NAME(name, f"{where}: a key")
            _check(each, f"{where}.{name}", name)
    elif isinstance(value, list):
        for each in value:
            _check(each, where, key)
    elif isinstance(value, str):
        _TEXTS.get(key, _NAME)(value, where)
    if key in _EMPTY and value:
        raise Unfit(f"{where} holds an object of {shown(key)}")


def _function(value: Any, where: str) -> None:
    if not operators.computes(value):
        raise Unfit(f"{where} is the function {shown(value)}")


def _container(value: Any, where: str) -> None:
    """How values lie in tuples, lists and dictionaries: others are imported by their name."""
    listed(length=2)(parsed(value, where), where)
    version, spec = parsed(value, where)
    choice(1)(version, where)
    _check_spec(spec, where)


def _check_spec(spec: Any, where: str) -> None:
    _SPEC(spec, where)
    if spec["type"] == "builtins.dict":
        listed(either(text(1000), whole()))(parsed(spec["context"], where), where)
    elif spec["context"] not in (None, "null"):
        raise Unfit(f"{where} is {shown(spec['context'])}")
    for each in spec["children_spec"]:
        _check_spec(each, where)


_SPEC = fields(
    {
        "type": choice(None, "builtins.tuple", "builtins.list", "builtins.dict"),
        "context": maybe(text(100_000)),
        "children_spec": listed(),
    }
)
#: What texts are that are no names, by their key.
_TEXTS: dict[str, Shape] = {
    "target": _function,
    "as_operator": _function,
    "expr_str": expressions.check_size,
    "guards_code": expressions.check_guard,
    "in_spec": _container,
    "out_spec": _container,
    "as_string": one_of(str),
    "torch_version": text(100, r"[\w.+-]+"),
}
#: What no export of a learner has.
_EMPTY = ("as_custom_obj", "custom_obj_values", "treespec_namedtuple_fields")
