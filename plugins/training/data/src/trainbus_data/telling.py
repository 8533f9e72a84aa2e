"""What was decided about data, in the records of a run: the plugins of applications share this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus import hookimpl

if TYPE_CHECKING:
    from trainbus import Run


class TellsOfData:
    """Log the text of `data.summary()` when a run begins to train; other data are left alone.

    Args:
        name: of the artifact.
    """

    observer = True

    def __init__(self, name: str) -> None:
        self.name = name

    @hookimpl
    def on_train_epoch_start(self, run: Run) -> None:
        """Log the text, once."""
        from trainbus.batches import innermost  # it imports torch

        about: Any = getattr(innermost(run.loader), "about", None)
        if about and run.epoch == 0 and run.rank == 0:
            run.log_artifact(self.name, str(about), "text")
