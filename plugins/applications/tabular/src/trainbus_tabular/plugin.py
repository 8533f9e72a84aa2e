"""The plugin `tabular`: what was decided about the columns, with the records of a run."""

from __future__ import annotations

from trainbus_data.telling import TellsOfData


class TabularPlugin(TellsOfData):
    """Log what was decided about each column, and why, when a run begins to train.

    The text is that of `data.summary()`; other data than tables are left alone.

    Args:
        name: of the artifact.
    """

    def __init__(self, name: str = "columns") -> None:
        super().__init__(name)
