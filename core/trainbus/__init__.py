"""trainbus: a plugin-based trainer for PyTorch with an event bus.

Importing it imports neither torch nor a plugin: names are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face
from trainbus.version import __version__ as __version__

if TYPE_CHECKING:
    from trainbus.bus import Bus as Bus
    from trainbus.checkpoints.weights import load_weights as load_weights
    from trainbus.checkpoints.weights import save_weights as save_weights
    from trainbus.devices.accelerator import Accelerator as Accelerator
    from trainbus.devices.random_state import seed_everything as seed_everything
    from trainbus.engine.loader import Loader as Loader
    from trainbus.engine.run import Run as Run
    from trainbus.engine.task import Task as Task
    from trainbus.engine.trainer import Trainer as Trainer
    from trainbus.errors import CheckpointError as CheckpointError
    from trainbus.errors import JournalError as JournalError
    from trainbus.errors import PluginError as PluginError
    from trainbus.errors import RecordRejected as RecordRejected
    from trainbus.errors import SkipBatch as SkipBatch
    from trainbus.errors import SkipStep as SkipStep
    from trainbus.errors import StopEpoch as StopEpoch
    from trainbus.errors import StopRun as StopRun
    from trainbus.errors import TrainbusError as TrainbusError
    from trainbus.errors import UsageError as UsageError
    from trainbus.events.markers import hookimpl as hookimpl
    from trainbus.events.markers import hookspec as hookspec
    from trainbus.records.artifacts import Artifact as Artifact
    from trainbus.records.delivery import RunInfo as RunInfo
    from trainbus.records.journal import JournalFile as JournalFile

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "bus": "Bus",
        "checkpoints.weights": "load_weights save_weights",
        "devices.accelerator": "Accelerator",
        "devices.random_state": "seed_everything",
        "engine.loader": "Loader",
        "engine.run": "Run",
        "engine.task": "Task",
        "engine.trainer": "Trainer",
        "errors": "CheckpointError JournalError PluginError RecordRejected SkipBatch SkipStep "
        "StopEpoch StopRun TrainbusError UsageError",
        "events.markers": "hookimpl hookspec",
        "records.artifacts": "Artifact",
        "records.delivery": "RunInfo",
        "records.journal": "JournalFile",
        "version": "__version__",
    },
    modules="batches builtin errors events testing",
)
