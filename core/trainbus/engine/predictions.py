"""A stream of predictions, which holds nothing that another verb needs while it waits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from inspect import GEN_CLOSED, getgeneratorstate
from typing import Any

from trainbus.errors import UsageError


class Predictions(Iterator[Any]):
    """The predictions of each batch, in order; a batch is read when it is asked for.

    A trainer makes one run at a time. When it begins another one, predictions that wait to be read
    end there, with the events of an end; to read on is an error then, and no silent end.

    Args:
        outputs: makes the run, one prediction at each step.
        begin: called once, before the first batch is read.
    """

    def __init__(
        self, outputs: Generator[Any, None, None], begin: Callable[[Predictions], None]
    ) -> None:
        self._outputs = outputs
        self._begin: Callable[[Predictions], None] | None = begin
        self._is_reading = self._was_ended = False

    def __next__(self) -> Any:
        if self._was_ended:
            raise UsageError(
                "these predictions ended when their trainer began another run; read them to the "
                "end first, or use another trainer for the other run"
            )
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin(self)
        self._is_reading = True
        try:
            return next(self._outputs)
        finally:
            self._is_reading = False

    def end(self) -> None:
        """End the run, unless it is at work, or over."""
        if not self._is_reading and getgeneratorstate(self._outputs) != GEN_CLOSED:
            self._was_ended = True
            self._outputs.close()

    def close(self) -> None:
        """End the run, as the consumer who wants no more."""
        self._outputs.close()
