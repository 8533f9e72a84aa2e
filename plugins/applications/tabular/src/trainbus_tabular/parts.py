"""How the rows of a table are split into training, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from trainbus_data import DataError, splits
from trainbus_data.tables.columns import Column, Table

logger = logging.getLogger("trainbus")
Array = np.ndarray[Any, Any]


class Rows(Sequence[Mapping[str, Any]]):
    """The rows of a table as mappings, made when they are asked for: what a split is given."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return self.table.rows

    def __getitem__(self, index: Any) -> Any:
        if index >= self.table.rows:
            raise IndexError(index)  # ends an iteration
        return _Row(self.table, index)


class _Row(dict[str, Any]):
    """One row, whose cells are looked up one by one."""

    def __init__(self, table: Table, index: int) -> None:
        super().__init__()
        self.table, self.index = table, index

    def __getitem__(self, name: str) -> Any:
        if name not in self.table.columns:
            raise KeyError(name)
        column = self.table[name]
        if column.kind == "date":  # sorted by time, as numbers are
            return int(column.values[self.index])
        return column.shown(self.index)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.columns)


def split_rows(
    table: Table, split: Any, time: str | None, target: Sequence[str], is_class: bool
) -> tuple[list[Array], str]:
    """The rows of each part, in order, and how they were chosen.

    Args:
        table: all rows.
        split: of `splits`, the name of a column that says the part, or None.
        time: the column by which rows are split if there is no split.
        target: its columns.
        is_class: whether the parts are to have the same share of each class.
    """
    if isinstance(split, str):
        if split not in table.columns:
            table[split]  # an error with the nearest name
        parts = splits.by_column(split)(Rows(table), lambda row: None)
        return _arrays(parts), f"as the column {split!r} says"
    if isinstance(split, (int, float)) and not isinstance(split, bool):
        if not 0 < split < 1:
            raise DataError(f"split={split}: the fraction of validation, between 0 and 1")
        return _drawn(table, target, is_class, float(split))
    if split is not None:
        if not callable(split):
            raise DataError(
                f"split={split!r:.60}: a function of trainbus_data.splits, a fraction, or the name of a "
                "column that says the part of a row"
            )
        parts = split(Rows(table), lambda row: row[target[0]])
        if not parts[1]:
            splits.say_all_are_trained_on(split, table.rows)
        return _arrays(parts), "as split= says"
    if time is not None:
        return by_time(table[time], time)
    return _drawn(table, target, is_class, 0.2)


def _arrays(parts: Sequence[Sequence[int]]) -> list[Array]:
    return [np.asarray(part, dtype=np.int64) for part in parts]


def by_time(column: Column, name: str, valid: float = 0.2) -> tuple[list[Array], str]:
    """The last fifth in time is for validation; rows of one time stay together.

    Raises:
        DataError: times are missing, or all are the same.
    """
    if column.problem:
        raise DataError(f"the column {name!r} {column.problem}: give all in one zone")
    if column.kind not in ("date", "number"):
        raise DataError(
            f"time={name!r}: the column holds {column.kind}s, {column.shown(0)!r:.40} for example; "
            "give dates (2016-01-13), or numbers"
        )
    if column.missing.any():
        rows = np.flatnonzero(column.missing)
        raise DataError(f"time={name!r}: {len(rows)} rows have no time (row {rows[0]}, ...)")
    order = np.argsort(column.values, kind="stable")
    ordered = column.values[order]
    cut = len(order) - max(1, round(valid * len(order)))
    begin = int(np.searchsorted(ordered, ordered[cut], side="left"))
    if begin == 0:
        begin = int(np.searchsorted(ordered, ordered[cut], side="right"))
    if begin in (0, len(order)):
        raise DataError(f"time={name!r}: all rows have the same time")
    shown = column.shown(int(order[begin]))
    return [np.sort(order[:begin]), np.sort(order[begin:])], f"by time: {name!r} from {shown} on"


def _drawn(
    table: Table, target: Sequence[str], is_class: bool, valid: float
) -> tuple[list[Array], str]:
    """At random; with the same share of each class in both parts where the target is one."""
    draw = np.random.default_rng(42)
    groups = [np.arange(table.rows)]
    if is_class:
        values = table[target[0]].values
        groups = [np.flatnonzero(values == value) for value in np.unique(values)]
    picked = []
    for rows in groups:
        count = min(round(valid * len(rows)), len(rows) - 1)
        picked.append(draw.permutation(rows)[:count])
    chosen = np.sort(np.concatenate(picked)) if picked else np.zeros(0, dtype=np.int64)
    if not len(chosen) and table.rows > 1:
        chosen = draw.permutation(table.rows)[:1]
    rest = np.setdiff1d(np.arange(table.rows), chosen, assume_unique=True)
    how = "drawn at random" + (", with the share of each class" if is_class else "")
    return [rest, chosen], how
