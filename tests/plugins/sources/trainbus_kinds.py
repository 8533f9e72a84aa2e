"""The four things that an entry point may name; this module is one of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional

from trainbus import hookimpl


@dataclass
class Typed:
    steps: int = 10
    rate: float = 0.5
    loud: bool = False
    tags: list[str] = field(default_factory=lambda: ["first"])
    where: Path = Path("here")
    mode: Literal["min", "max"] = "min"
    limit: Optional[int] = None  # noqa: UP045 - users write it so, too
    label: str = "none"

    @hookimpl
    def on_fit_start(self, run): ...


class Plain:
    def __init__(self, size: int, name: str = "plain"):
        self.size = size
        self.name = name

    @hookimpl
    def on_fit_start(self, run): ...


def make(size: int = 1) -> Plain:
    return Plain(size, "made")


@hookimpl
def on_fit_start(run): ...
