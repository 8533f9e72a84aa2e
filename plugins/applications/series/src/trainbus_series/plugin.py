"""The plugin `series`: what was decided about the series, in the records of a run."""

from __future__ import annotations

from trainbus_data.telling import TellsOfData


class SeriesPlugin(TellsOfData):
    """Log what was decided about series when a run begins to train.

    The text is that of `data.summary()`; other data than series are left alone.

    Args:
        name: of the artifact.
    """

    def __init__(self, name: str = "series") -> None:
        super().__init__(name)
