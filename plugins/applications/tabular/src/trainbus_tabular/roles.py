"""What each column is for, by rule, with the reason; each can be said otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainbus.errors import nearest
from trainbus_data import DataError
from trainbus_data.leaks import counts_rows
from trainbus_data.tables.columns import Column

#: What a column may be; those of `LEFT_OUT` are not learned from.
ROLES = (
    "number", "category", "frequency", "target_mean", "boolean", "date", "several", "skip",
    "constant", "id", "text", "leak",
)  # fmt: skip
LEFT_OUT = frozenset({"skip", "constant", "id", "text", "leak"})
_ID = re.compile(
    r"(?:^|[_\s.-])(?:id|ids|uuid|guid|key|index|idx|rownum|nr)$|(?<=[a-z])I[Dd]$", re.I
)
_CAMEL_ID = re.compile(r"(?<=[a-z])I[Dd]$")
_DELIMITERS = ("|", ";")


@dataclass(frozen=True)
class Role:
    """What a column is for.

    Attributes:
        role: one of `ROLES`.
        reason: why.
        detail: what the role needs: the delimiter of several values.
    """

    role: str
    reason: str
    detail: str = ""

    @property
    def is_used(self) -> bool:
        """Whether a model sees the column."""
        return self.role not in LEFT_OUT


def role_of(name: str, column: Column) -> Role:
    """The role of a column of the training part, by its values and, for ids, its name."""
    rows = len(column)
    known = rows - int(column.missing.sum())
    if known == 0:
        return Role("constant", "it is empty in training")
    distinct = _distinct(column)
    if distinct == 1:
        if known == rows:
            return Role("constant", f"it has one value, {_first(column)!r}")
        return Role("category", f"it has one value or none ({rows - known:,} of {rows:,} rows)")
    if column.kind == "date":
        return Role("date", f"dates, {distinct:,} different")
    if column.kind == "boolean":
        return Role("boolean", "yes and no")
    if column.kind == "text":
        return _of_texts(name, column, known, distinct)
    whole = bool(np.equal(column.values, np.floor(column.values), where=~column.missing,
                          out=np.ones(rows, dtype=bool)).all())  # fmt: skip
    if whole and distinct == known and known >= 20:
        if counts_rows(column):
            return Role("id", f"it counts the rows, from {_first(column)}")
        if _is_id(name):
            return Role("id", f"{distinct:,} different values in {known:,} rows, and its name")
    if distinct == 2:
        return Role("number", "two numbers")
    said = column.wording.said()
    kind = "whole numbers" if whole else "numbers"
    return Role("number", f"{kind}, {distinct:,} different" + (f"; {said}" if said else ""))


def _is_id(name: str) -> bool:
    return bool(_ID.search(name.strip()) or _CAMEL_ID.search(name.strip()))


def _distinct(column: Column) -> int:
    if column.kind == "text":
        return int((np.bincount(column.values[column.values >= 0]) > 0).sum())
    return len(np.unique(column.values[~column.missing]))


def _first(column: Column) -> Any:
    return column.shown(int(np.argmin(column.missing)))


def _of_texts(name: str, column: Column, known: int, distinct: int) -> Role:
    said = f"; {column.wording.said()}" if column.wording.said() else ""
    blanks = np.mean([word.count(" ") for word in column.words])
    if distinct > max(20, 0.5 * known) and blanks >= 3:
        return Role("text", f"{distinct:,} different texts of {blanks + 1:.0f} words in the mean")
    if distinct == known and known >= 20:
        return Role("id", f"{distinct:,} different values in {known:,} rows")
    for delimiter in _DELIMITERS:
        if _holds_several(column.words, delimiter):
            return Role("several", f"values separated by {delimiter!r}", delimiter)
    often = np.bincount(column.values[column.values >= 0]).max()
    if distinct > max(20, 0.5 * known) and often < 5:
        return Role("id", f"{distinct:,} different values in {known:,} rows: none occurs 5 times")
    return Role("category", f"{distinct:,} different words{said}")


def _holds_several(words: tuple[str, ...], delimiter: str) -> bool:
    """Whether words are made of fewer parts, which come back."""
    if not sum(delimiter in word for word in words) > 0.2 * len(words):
        return False
    parts = [part.strip() for word in words for part in word.split(delimiter)]
    return 2 <= len(set(parts)) < min(len(words), 200)


def roles_of(
    columns: Mapping[str, Column], given: Mapping[str, str], leaks: Mapping[str, str]
) -> dict[str, Role]:
    """The role of each column: the one given, a leak, or the one by rule.

    Raises:
        DataError: a role is given that there is not, that does not fit, or for no column.
    """
    for name, role in given.items():
        if name not in columns:
            raise DataError(f"roles: there is no column {name!r}{nearest(name, columns)}")
        if role not in ROLES:
            raise DataError(
                f"roles={{{name!r}: {role!r}}}: one of {', '.join(ROLES)}"
                f"{nearest(str(role), ROLES)}"
            )
    found: dict[str, Role] = {}
    for name, column in columns.items():
        if name in given:
            found[name] = _given(name, column, given[name])
        else:
            found[name] = role_of(name, column)
            if name in leaks and found[name].role != "constant":
                found[name] = Role("leak", leaks[name])
    return found


def _given(name: str, column: Column, role: str) -> Role:
    """A role that was given, if the column can have it."""
    fits = {"number": ("number", "boolean"), "boolean": ("boolean", "text", "number"),
            "date": ("date",), "several": ("text",)}  # fmt: skip
    if column.kind not in fits.get(role, (column.kind,)):
        example = _first(column) if len(column) else None
        raise DataError(
            f"roles={{{name!r}: {role!r}}}: the column holds {column.kind}s, "
            f"{example!r:.40} for example"
        )
    detail = ""
    if role == "several":
        detail = next((d for d in ("|", ";", ",", " ") if any(d in w for w in column.words)), "|")
    return Role(role, "as given", detail)
