"""What a checkpoint asks of those that have a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

from trainbus.errors import CheckpointError
from trainbus.storage.untrusted import Shape, Unfit

T = TypeVar("T")


@runtime_checkable
class Stateful(Protocol):
    """A plugin with a section of its own in every checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep: plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what was kept."""


def taken(who: str, state_dict: Callable[..., T], *arguments: Any) -> T:
    """A state, of whom it is in words.

    Raises:
        CheckpointError: it cannot be taken; the error, and not who asked, names whose it is.
    """
    try:
        return state_dict(*arguments)
    except CheckpointError:
        raise
    except Exception as error:
        failure = CheckpointError(f"{who}: state_dict failed: {type(error).__name__}: {error}")
        failure.add_note(f"raised by {who}, state_dict")
        raise failure from error


def check(section: Any, shape: Shape, who: str) -> None:
    """Refuse a section that is not of a shape. Raises `CheckpointError`, which names the field."""
    try:
        shape(section, "it")
    except Unfit as error:
        raise CheckpointError(f"the section of {who} was not written by it: {error}") from None
