"""A batch cut into parts of nearly equal size."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from copy import copy
from dataclasses import fields
from itertools import pairwise
from typing import Any

from torch import Tensor

from trainbus.batches import is_record
from trainbus.errors import UsageError


def split(batch: Any, parts: int) -> list[Any]:
    """The same batch in parts of nearly equal size, cut along the first dimension.

    How many samples there are, a tensor at the top of the batch says: the batch itself, or one of
    its values. Tensors, arrays and lists of that length are cut; other sequences, mappings and
    dataclasses are walked through; single values go into each part.

    Raises:
        UsageError: it is of one sample, or holds what cannot be cut so.
    """
    top = _values(batch)
    samples = next((x.shape[0] for x in top if isinstance(x, Tensor) and x.ndim), 0)
    if samples < 2:
        raise UsageError(
            f"a {type(batch).__name__} with {samples or 'no tensor and so an unknown number of'} "
            "samples cannot be cut"
        )
    parts = min(parts, samples)
    bounds = [samples * number // parts for number in range(parts + 1)]
    return [_part(batch, slice(*pair), samples, top=True) for pair in pairwise(bounds)]


def _values(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return list(batch.values())
    if is_record(batch):
        return [getattr(batch, field.name) for field in fields(batch)]
    return list(batch) if isinstance(batch, (tuple, list)) else [batch]


def _part(value: Any, part: slice, samples: int, top: bool = False) -> Any:
    if value is None or isinstance(value, (str, bytes, int, float, bool)):
        return value
    if isinstance(value, MutableMapping):
        cut = copy(value)
        for key, item in value.items():
            cut[key] = _part(item, part, samples)
        return cut
    if is_record(value):
        made: Any = copy(value)
        for field in fields(value):
            item = _part(getattr(value, field.name), part, samples)
            object.__setattr__(made, field.name, item)
        return made
    shape = getattr(value, "shape", None)
    if isinstance(value, (tuple, list)):
        of_batches = all(isinstance(x, Tensor) and _length(x) == samples for x in value)
        if len(value) == samples and not (top or of_batches):
            return value[part]
        walked = [_part(item, part, samples) for item in value]
        return type(value)(*walked) if hasattr(value, "_fields") else type(value)(walked)
    if shape is not None and len(shape) == 0:
        return value
    if shape is not None and shape[0] == samples:
        return value[part]
    what = type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
    raise UsageError(f"a batch of {samples} samples with a {what} in it cannot be cut")


def _length(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.ndim else 0
