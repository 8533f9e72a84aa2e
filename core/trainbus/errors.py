"""What can go wrong, and what a listener may raise to change the course of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from trainbus.texts import shown


class TrainbusError(Exception):
    """A mistake that its message explains: what was given, where, and what would be right."""

    def __init__(self, *arguments: object) -> None:
        # A message may quote what a file says.
        super().__init__(*(shown(each) if isinstance(each, str) else each for each in arguments))


class UsageError(TrainbusError, ValueError):
    """Something in a task, a loader or an argument of the trainer cannot work."""


class PluginError(TrainbusError):
    """A plugin cannot be found, imported, configured or registered."""


def together(failures: Sequence[PluginError]) -> PluginError:
    """One error for several, so that all can be mended at once."""
    if len(failures) == 1:
        return failures[0]
    listing = "\n".join(f"- {error}" for error in failures)
    return PluginError(f"{len(failures)} plugins cannot be loaded:\n{listing}")


class CheckpointError(TrainbusError):
    """A checkpoint cannot be written, read, or put into the objects at hand."""


class JournalError(TrainbusError):
    """A run's journal cannot be written or read."""


class RecordRejected(Exception):
    """Raised by a logger for a record that its service will never take: it is left out."""


class Control(Exception):
    """Base of what a listener raises to direct the loop; never a failure."""

    #: The plugin that raised it, for messages.
    by = ""


class SkipBatch(Control):
    """Leave this batch alone; its `*_batch_end` still fires.

    Raised after its backward, it drops all gradients gathered for the step.
    """


class SkipStep(Control):
    """Make no optimizer step now and drop the gradients gathered for it."""


class StopEpoch(Control):
    """End this pass over the data; the run goes on with what follows it."""


class StopRun(Control):
    """End the run after this batch, as `run.stop(reason)` does."""


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """The end of a sentence: `; did you mean 'x'?` for the most similar of `names`, or `.`."""
    matches = get_close_matches(name, sorted(names), n=1, cutoff=cutoff)
    return f"; did you mean {matches[0]!r}?" if matches else "."
