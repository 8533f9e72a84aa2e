"""What is wrong with the data: what, in which item, at which step."""

from __future__ import annotations

from trainbus.errors import UsageError


class DataError(UsageError):
    """The data cannot be used as they are; the message names the item, its file and the step."""


def message(error: Exception) -> str:
    """What an error says: with its type, unless its message explains itself."""
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
