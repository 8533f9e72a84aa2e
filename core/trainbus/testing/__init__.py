"""What authors of plugins test with: a tiny task, recorders, and a conformance suite.

    from trainbus.testing import conformance

    TestConformance = conformance("wandb", mode="offline")

It needs pytest, which trainbus itself does not.
"""

from __future__ import annotations

try:
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("trainbus.testing needs pytest: pip install pytest") from error

from trainbus.testing.recorder import MemoryLog, Recorder
from trainbus.testing.suite import conformance
from trainbus.testing.tiny import Line, TinyTask, make_line_loader, make_loader

__all__ = [
    "Line", "MemoryLog", "Recorder", "TinyTask", "conformance", "make_line_loader", "make_loader",
]  # fmt: skip
