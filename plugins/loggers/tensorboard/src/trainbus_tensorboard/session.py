"""A run's row of the HParams page.

TensorBoard finds the columns by itself, from the parameters and scalars of all runs, as long as no
run declares an experiment. So none is declared here: runs with different parameters, and runs that
were killed, stand beside each other in one table, with the last value of each of their metrics.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def plain(params: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Parameters as TensorBoard can hold them.

    Nested mappings get dotted names; what is neither a finite number nor a truth value is text.
    """
    flat: dict[str, bool | int | float | str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            flat |= plain(value, f"{prefix}{name}.")
            continue
        if getattr(value, "ndim", None) == 0:  # one number of torch or NumPy
            value = value.item()
        number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        flat[f"{prefix}{name}"] = value if number else str(value)
    return flat


def session_start(params: Mapping[str, bool | int | float | str]) -> Summary:
    """The summary that begins a row."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(start_time_secs=time.time())
    for name, value in params.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
        elif isinstance(value, str):
            start.hparams[name].string_value = value
        else:
            start.hparams[name].number_value = value
    data = HParamsPluginData(session_start_info=start)
    return _summary(metadata.SESSION_START_INFO_TAG, data)


def session_end(status: str) -> Summary:
    """The summary that ends a row, with what became of the run."""
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    good = status in ("completed", "stopped")
    code = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    end = SessionEndInfo(status=code, end_time_secs=time.time())
    return _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def _summary(tag: str, data: HParamsPluginData) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])
