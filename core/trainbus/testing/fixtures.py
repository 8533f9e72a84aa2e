"""Fixtures for pytest. In a `conftest.py`: `from trainbus.testing.fixtures import *`.

Two apply to every test beside the `conftest.py` that has them, so they are taken by name:

    from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

    environment = clean_environment("ACME_", ACME_MODE="offline")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.utils.data import DataLoader

from trainbus.engine.trainer import Trainer
from trainbus.testing.recorder import MemoryLog, Recorder
from trainbus.testing.tiny import TinyTask, make_loader

__all__ = ["memory_log", "recorder", "tiny_loader", "tiny_task", "tiny_trainer"]


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in its `tmp_path`, from the same random numbers."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def clean_environment(
    *prefixes: str, scope: Literal["function", "module"] = "function", **variables: str
) -> Any:
    """An autouse fixture that removes the environment variables of a service, and trainbus's own.

        environment = clean_environment("ACME_", scope="module", ACME_MODE="offline")

    Args:
        prefixes: how the names of those to remove begin, besides `TRAINBUS_`.
        scope: "module" where fixtures of that scope need it, too.
        variables: what is set instead.
    """

    @pytest.fixture(autouse=True, scope=scope)
    def environment() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in os.environ:
                if name.startswith(("TRAINBUS_", *prefixes)):
                    patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            yield

    return environment


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
