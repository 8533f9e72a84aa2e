"""What metrics give that is no number: as a table, and as a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus.errors import UsageError

#: Points of the shorter side of a picture, and the most values that a table has.
_SIDE, _MOST = 240, 100_000


def table_of(name: str, value: Any) -> list[dict[str, float]]:
    """Rows of a vector, of a matrix, or of several vectors side by side.

    Raises:
        UsageError: it has more dimensions, or too many values.
    """
    parts = [value] if isinstance(value, Tensor) else list(value)
    parts = [each.detach().double().cpu() for each in parts]
    if len(parts) == 1 and parts[0].ndim == 2:
        columns = list(parts[0].T)
    elif all(each.ndim == 1 for each in parts):
        columns = parts
    else:
        shapes = ", ".join(str(tuple(each.shape)) for each in parts)
        raise UsageError(f"run.log({name}=...): a metric gave {shapes}; give vectors, or a matrix")
    if sum(map(len, columns)) > _MOST:
        raise UsageError(f"run.log({name}=...): a metric gave more than {_MOST:,} values")
    longest = max(map(len, columns), default=0)
    return [
        {
            "row": row,
            **{str(i): float(each[row]) for i, each in enumerate(columns) if row < len(each)},
        }
        for row in range(longest)
    ]


def picture_of(value: Any) -> Tensor | None:
    """A matrix as shades of grey, 1 x height x width from 0 to 1; None for what is none."""
    if not isinstance(value, Tensor) or value.ndim != 2 or not value.numel():
        return None
    numbers = value.detach().float().cpu()
    finite = numbers[torch.isfinite(numbers)]
    if not finite.numel():
        return None
    low, high = finite.min(), finite.max()
    grey = ((numbers - low) / (high - low).clamp_min(1e-12)).nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    size = max(1, _SIDE // min(grey.shape))
    return grey.repeat_interleave(size, 0).repeat_interleave(size, 1)[None]
