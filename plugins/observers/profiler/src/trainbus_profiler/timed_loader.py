"""A loader that is timed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trainbus.batches import Wrapped
from trainbus_profiler.timeline import Before, Timeline


class TimedLoader(Wrapped):
    """A loader whose batches are waited for with the clock on.

    Args:
        loader: the one that the loop would read.
        before: called before each batch is asked for; the batch is read inside what it returns.
        timeline: where the waiting is noted.
    """

    def __init__(self, loader: Iterable[Any], before: Before, timeline: Timeline) -> None:
        super().__init__(loader)
        self._before = before
        self._timeline = timeline

    def __iter__(self) -> Iterator[Any]:
        timeline = self._timeline
        timeline.begin("data")
        try:  # this is where worker processes start
            batches = iter(self.loader)
        finally:
            timeline.end()
        return _Batches(batches, self._before, timeline)


class _Batches:
    def __init__(self, batches: Iterator[Any], before: Before, timeline: Timeline) -> None:
        self._batches = batches
        self._before = before
        self._timeline = timeline

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        around = self._before()
        self._timeline.begin("data")
        try:
            with around:
                return next(self._batches)
        finally:
            self._timeline.end()
