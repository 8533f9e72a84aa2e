"""The points of one metric: columns of 64-bit numbers, and which of them count."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple


class Series(NamedTuple):
    """One metric: its optimizer steps, its times in seconds since the epoch, its values."""

    steps: Sequence[int]
    times: Sequence[float]
    values: Sequence[float]


class Rewind(NamedTuple):
    """A run went on from an earlier step, and logged again what it had logged before."""

    #: The number of the record that tells of it; those before it are of the earlier history.
    record: int
    #: The step that it went back to.
    step: int
    #: The last record that was made before the state that it goes on from, where that is known.
    kept: int | None = None

    def voids(self, record: int, step: int) -> bool:
        """Whether a record belongs to the history that was left."""
        if record >= self.record:
            return False
        return step > self.step or (self.kept is not None and record > self.kept)


class MetricColumns:
    """Points of one metric: numbers of records, steps, times, values."""

    __slots__ = ("numbers", "records", "steps", "times")

    def __init__(self) -> None:
        self.records, self.steps = array("q"), array("q")
        self.times, self.numbers = array("d"), array("d")

    @property
    def all(self) -> tuple[array[Any], ...]:
        """The four columns, as they are kept."""
        return self.records, self.steps, self.times, self.numbers

    @property
    def series(self) -> Series:
        """The points for readers."""
        return Series(self.steps, self.times, self.numbers)

    def extend(self, blobs: Sequence[bytes]) -> MetricColumns:
        """Add points of which the columns are given as little-endian bytes."""
        if len({len(blob) for blob in blobs}) > 1 or not all(type(b) is bytes for b in blobs):
            raise ValueError("the columns of a metric are no bytes, or of different lengths")
        for column, blob in zip(self.all, blobs, strict=True):
            part = array(column.typecode, blob)
            if sys.byteorder == "big":
                part.byteswap()
            column.extend(part)
        return self

    def blobs(self) -> list[bytes]:
        """The columns as little-endian bytes."""
        if sys.byteorder == "big":
            for column in self.all:
                column.byteswap()
        return [column.tobytes() for column in self.all]

    def counting(self, returns: Sequence[Rewind]) -> MetricColumns:
        """The points that are still true after the run went back."""
        kept = MetricColumns()
        indices = [
            i
            for i in sorted(range(len(self.records)), key=self.records.__getitem__)
            if not any(each.voids(self.records[i], self.steps[i]) for each in returns)
        ]
        for column, source in zip(kept.all, self.all, strict=True):
            column.extend(array(column.typecode, [source[i] for i in indices]))
        return kept
