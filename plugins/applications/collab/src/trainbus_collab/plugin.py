"""The plugin `collab`: what is known of the interactions, in the records of a run."""

from __future__ import annotations

from trainbus_data.telling import TellsOfData


class CollabPlugin(TellsOfData):
    """Log what is known of interactions when a run begins to train.

    The text is that of `data.summary()`; other data are left alone.

    Args:
        name: of the artifact.
    """

    def __init__(self, name: str = "interactions") -> None:
        super().__init__(name)
