"""What holds for all tests."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

_last: Path | None = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look at what is there already in no later collection of garbage: with all tests in one
    process a collection takes a second, and hundreds of tests ask for one.
    """
    global _last
    if item.path != _last:
        _last = item.path
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """Leave nothing frozen to the end of the process, where libraries count what is left."""
    gc.unfreeze()
