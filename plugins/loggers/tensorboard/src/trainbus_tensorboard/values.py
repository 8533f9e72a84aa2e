"""Records as the values that TensorBoard keeps: images, texts, and the row of a run."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    from trainbus import Artifact

#: Channels by the colour type of a PNG; type 3 is a palette.
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def of_artifact(artifact: Artifact) -> Summary.Value:
    """An image (figure, image), or a text (text, table, and what a file or model is)."""
    if artifact.kind in ("figure", "image"):
        return _image(artifact.name, artifact.value)
    if artifact.kind == "table":
        return text(artifact.name, table(artifact.value))
    if artifact.kind == "text":
        return text(artifact.name, artifact.value)
    path: Path = artifact.value
    size = "a directory" if path.is_dir() else f"{path.stat().st_size:,} bytes"
    return text(artifact.name, f"`{path}` ({size})")


def text(name: str, markdown: str) -> Summary.Value:
    """A text, under the name that PyTorch's writer would give it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    return Summary.Value(
        tag=_utf8(f"{name}/text_summary"),
        metadata=create_summary_metadata(display_name="", description=""),
        tensor=TensorProto(
            dtype=DT_STRING, string_val=[_utf8(markdown).encode()], tensor_shape=shape
        ),
    )


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


def _image(name: str, path: Path) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary

    png = path.read_bytes()
    width, height, _depth, color = struct.unpack(">IIBB", png[16:26])
    return Summary.Value(
        tag=_utf8(name),
        image=Summary.Image(
            width=width, height=height, colorspace=_CHANNELS[color], encoded_image_string=png
        ),
    )


# --- the row of the HParams page -----------------------------------------------------------------
#
# TensorBoard finds the columns by itself, from the parameters and scalars of all runs, as long as
# no run declares an experiment. So none is declared here: runs with different parameters, and runs
# that were killed, stand beside each other in one table, with the last value of each metric.


def plain(params: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Parameters as TensorBoard can hold them.

    Nested mappings get dotted names; what is neither a finite number nor a truth value is text.
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= plain(value, f"{prefix}{name}.")
            continue
        flat[_utf8(f"{prefix}{name}")] = value if _is_number(value) else _utf8(str(value))
    return flat


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can hold
        return False


def _utf8(text: str) -> str:
    """A text without what UTF-8 has no bytes for, as in the name of a file of unknown encoding."""
    return text.encode(errors="replace").decode()


def row_begins(params: Mapping[str, bool | int | float | str], time: float) -> Summary.Value:
    """What begins the row of a run that started at `time`."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(start_time_secs=time)
    for name, value in params.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    data = HParamsPluginData(session_start_info=start)
    return _session(metadata.SESSION_START_INFO_TAG, data)


def row_ends(status: str, time: float) -> Summary.Value:
    """What ends the row, with what became of the run."""
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    good = status in ("completed", "stopped")
    code = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    end = SessionEndInfo(status=code, end_time_secs=time)
    return _session(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _session(tag: str, data: HParamsPluginData) -> Summary.Value:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
