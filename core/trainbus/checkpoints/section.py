"""The section of a plugin in a checkpoint, compared with what the plugin writes."""

from __future__ import annotations

from typing import Any

from trainbus.errors import CheckpointError
from trainbus.storage.untrusted import Shape, Unfit


def check(section: Any, shape: Shape, who: str) -> None:
    """Refuse a section that is not of a shape. Raises `CheckpointError`, which names the field."""
    try:
        shape(section, "it")
    except Unfit as error:
        raise CheckpointError(f"the section of {who} was not written by it: {error}") from None
