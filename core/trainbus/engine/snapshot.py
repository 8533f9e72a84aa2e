"""What is put back when something is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def same_modes(module: nn.Module) -> Iterator[None]:
    """Put back which of its modules are in training mode."""
    modes = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
