"""trainbus: a plugin-based trainer for PyTorch with an event bus.

Importing it imports neither torch nor a plugin: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from trainbus.errors import (
    CheckpointError,
    JournalError,
    PluginError,
    RecordRejected,
    SkipBatch,
    SkipStep,
    StopEpoch,
    StopRun,
    TrainbusError,
    UsageError,
)
from trainbus.version import __version__

if TYPE_CHECKING:
    from trainbus.accelerator import Accelerator
    from trainbus.artifacts import Artifact
    from trainbus.bus import Bus
    from trainbus.delivery import RunInfo
    from trainbus.journal import JournalFile
    from trainbus.loader import Loader
    from trainbus.markers import hookimpl, hookspec
    from trainbus.run import Run
    from trainbus.seeding import seed_everything
    from trainbus.task import Task
    from trainbus.trainer import Trainer
    from trainbus.weights import load_weights, save_weights

_LAZY = {
    "Accelerator": "accelerator",
    "Artifact": "artifacts",
    "Bus": "bus",
    "JournalFile": "journal",
    "Loader": "loader",
    "Run": "run",
    "RunInfo": "delivery",
    "Task": "task",
    "Trainer": "trainer",
    "hookimpl": "markers",
    "hookspec": "markers",
    "load_weights": "weights",
    "save_weights": "weights",
    "seed_everything": "seeding",
}

__all__ = [
    "Accelerator",
    "Artifact",
    "Bus",
    "CheckpointError",
    "JournalError",
    "JournalFile",
    "Loader",
    "PluginError",
    "RecordRejected",
    "Run",
    "RunInfo",
    "SkipBatch",
    "SkipStep",
    "StopEpoch",
    "StopRun",
    "Task",
    "TrainbusError",
    "Trainer",
    "UsageError",
    "__version__",
    "hookimpl",
    "hookspec",
    "load_weights",
    "save_weights",
    "seed_everything",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trainbus' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainbus.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
