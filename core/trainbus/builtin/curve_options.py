"""What the schedules by name may be told: without torch, for those who only read the options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Name = Literal[
    "one_cycle", "warmup_cosine", "cosine_restarts", "linear", "polynomial", "constant",
    "inverse_sqrt", "wsd",
]  # fmt: skip
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True)
class Options:
    """What the schedules by name may be told; see `Schedule`."""

    div: float
    final_div: float
    momentum: Sequence[float] | None
    end: float
    power: float
    cycles: int
    decay: float
