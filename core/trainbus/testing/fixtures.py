"""Fixtures for pytest. In a `conftest.py`: `from trainbus.testing.fixtures import *`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from trainbus.engine.trainer import Trainer
from trainbus.testing.recorder import MemoryLog, Recorder
from trainbus.testing.tiny import TinyTask, make_loader

__all__ = ["memory_log", "recorder", "tiny_loader", "tiny_task", "tiny_trainer"]


@pytest.fixture
def tiny_task() -> TinyTask:
    """A new `TinyTask`."""
    return TinyTask()


@pytest.fixture
def tiny_loader() -> DataLoader[Any]:
    """Five batches of four, for a `TinyTask`."""
    return make_loader()


@pytest.fixture
def tiny_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """`tiny_trainer(plugin, ..., epochs=2)`: a trainer that writes to the test's own directory."""

    def make(*plugins: str | object, **settings: Any) -> Trainer:
        defaults: dict[str, Any] = {"seed": 0, "run_dir": tmp_path / "runs"}
        return Trainer(plugins=plugins, **defaults | settings)

    return make


@pytest.fixture
def recorder() -> Recorder:
    """A plugin that notes every event: see `recorder.events` after the run."""
    return Recorder()


@pytest.fixture
def memory_log() -> MemoryLog:
    """A logger that keeps every record: see `memory_log.metrics` after the run."""
    return MemoryLog()
