"""The points of one metric: columns of 64-bit numbers, and which of them count."""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
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


def gone_from(returns: Sequence[Rewind], turns: Sequence[int]) -> list[Rewind]:
    """The returns behind which the run went another way, by the records that tell of that."""
    return [
        one
        for one, following in pairwise(returns)
        if any(one.record < turn < following.record for turn in turns)
    ]


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
        """The points that are still true after the run went back, in the order of their records."""
        if not returns:
            return self
        ordered = list(self.all)
        if sorted(self.records) != self.records.tolist():
            order = sorted(range(len(self.records)), key=self.records.__getitem__)
            ordered = [array(each.typecode, map(each.__getitem__, order)) for each in self.all]
        records, steps = ordered[:2]
        spans: list[range] = []
        # From the newest return to the oldest: each voids only what stands before it, so that
        # between two of them one step and one record are the last that count.
        end, last_step, last_record = len(records), math.inf, math.inf
        for each in sorted(returns, key=lambda each: each.record, reverse=True):
            begin = bisect_left(records, each.record, 0, end)
            spans += _counting(range(begin, end), records, steps, last_record, last_step)
            end, last_step = begin, min(last_step, each.step)
            last_record = min(last_record, math.inf if each.kept is None else each.kept)
        spans += _counting(range(end), records, steps, last_record, last_step)
        kept = MetricColumns()
        for span in reversed(spans):
            for column, source in zip(kept.all, ordered, strict=True):
                column.extend(source[span.start : span.stop])
        return kept


def _counting(
    span: range, records: array[int], steps: array[int], last_record: float, last_step: float
) -> list[range]:
    """The parts of a span, the last first, in which no record and no step is behind the last."""
    span = range(span.start, bisect_right(records, last_record, span.start, span.stop))
    if not span or max(steps[span.start : span.stop]) <= last_step:
        return [span]
    return [range(i, i + 1) for i in reversed(span) if steps[i] <= last_step]
