"""`interactions`: from any source of rows to users, items and what passed between them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainbus_collab.data import CollabData, Events
from trainbus_data import DataError
from trainbus_data.tables.columns import Column, Reading, Table
from trainbus_data.tables.reader import read_table

logger = logging.getLogger("trainbus")
Array = np.ndarray[Any, Any]
SPLITS = ("time", "last", "random")
DUPLICATES = ("last", "first", "mean")


@dataclass(frozen=True, eq=False)
class Rows:
    """Interactions as they were read.

    Attributes:
        users, items: texts.
        ratings: float64, or None.
        times: int64, in the order of time, or None.
    """

    users: Array
    items: Array
    ratings: Array | None
    times: Array | None

    def take(self, rows: Any) -> Rows:
        """These of them."""
        return Rows(
            self.users[rows], self.items[rows],
            None if self.ratings is None else self.ratings[rows],
            None if self.times is None else self.times[rows],
        )  # fmt: skip


def interactions(
    source: Any,
    user: str,
    item: str,
    *,
    rating: str | None = None,
    time: str | None = None,
    valid: Any = None,
    split: Any = None,
    duplicates: str = "last",
    seed: int = 0,
    name: str = "",
) -> CollabData:
    """What users did with items.

    Args:
        source: the path of a CSV file (also packed by gzip) or Parquet file, a frame of any
            library, a dict of columns, or a list of dicts.
        user, item: the columns that say who, and what. Ids are recoded: how large they are does
            not matter.
        rating: the column of what was given; without it, that it happened is all that is known.
        time: the column that says when.
        valid: a second source, for validation. Where rankings are learned, one item of each of its
            users is hidden, and the others are their history.
        split: "time" (the last ones), "last" (the last of each user) or "random"; or the fraction
            of validation, by time where there is one; or (name, fraction). By default by time where
            there is one, else at random: a tenth of the rows; of rankings without times one
            of each user.
        duplicates: what is made of several rows of one user and item: "last", "first" or "mean".
        seed: of what is drawn.
        name: in the names of runs; by default that of the file.

    Raises:
        DataError: something of it cannot be; the message says what, where, and what would be right.
    """
    notes: list[str] = []
    columns = [user, item, *([rating] if rating else []), *([time] if time else [])]
    like = {user: Reading("text"), item: Reading("text")}
    table = read_table(source, like=like)
    rows = _rows(table, columns, rating, time, duplicates, notes)
    _say_swapped(rows, user, item, notes)
    if valid is not None:
        if split is not None:
            raise DataError("valid= is the validation part: leave split= out")
        other = _rows(read_table(valid, like=like), columns, rating, time, duplicates, notes)
        train, test, how = rows, other, "a second source"
    else:
        kind, fraction = _split(split, time is not None, rating is not None)
        chosen, how = _chosen(rows, kind, fraction, seed)
        if time is not None and kind == "random":
            notes.append("validation is random though there are times: what comes later is learned")
        train, test = rows.take(np.flatnonzero(~chosen)), rows.take(np.flatnonzero(chosen))
    if not len(train.users) or not len(test.users):
        raise DataError(
            f"{'training' if not len(train.users) else 'validation'} has no row ({how})"
        )
    for note in notes:
        logger.warning("%s", note)
    if not name and isinstance(source, (str, Path)):
        name = Path(source).name.partition(".")[0]
    names = (user, item, rating or "", time or "")
    return CollabData(
        _coded(train, test), names, how, notes, given=valid is not None, seed=seed, name=name
    )


def _rows(
    table: Table, columns: Sequence[str], rating: str | None, time: str | None, duplicates: str,
    notes: list[str],
) -> Rows:  # fmt: skip
    if duplicates not in DUPLICATES:
        raise DataError(f"duplicates={duplicates!r}: one of {', '.join(DUPLICATES)}")
    for each in columns:
        table[each]
    lacking = np.zeros(table.rows, bool)
    for each in columns:
        lacking |= table[each].missing
    gone = np.flatnonzero(lacking)
    if len(gone):
        some = ", ".join(map(str, gone[:4])) + (", ..." if len(gone) > 4 else "")
        notes.append(f"rows {some} lack a value: {len(gone):,} are left out")
        table = table.take(np.flatnonzero(~lacking))
    if not table.rows:
        raise DataError(f"{table.name} has no row with {' and '.join(columns)}")
    users, items = (np.array(table[each].texts(), object) for each in columns[:2])
    ratings = None if rating is None else _numbers(table[rating], rating)
    times = None if time is None else _times(table[time], time)
    rows = Rows(users.astype(str), items.astype(str), ratings, times)
    if times is not None:
        rows = rows.take(np.argsort(times, kind="stable"))
    return _once(rows, duplicates, notes)


def _numbers(column: Column, name: str) -> Array:
    if column.kind not in ("number", "boolean"):
        raise DataError(
            f"the rating {name!r} holds {column.kind}s, {column.shown(0)!r} for example, and no "
            "numbers"
        )
    if np.isinf(column.values).any():
        raise DataError(f"a rating of {name!r} is infinite")
    return column.values


def _times(column: Column, name: str) -> Array:
    if column.kind not in ("number", "date"):
        raise DataError(f"the time {name!r} holds {column.kind}s, {column.shown(0)!r} for example")
    return column.values if column.kind == "date" else (column.values * 1e3).astype(np.int64)


def _once(rows: Rows, duplicates: str, notes: list[str]) -> Rows:
    """One row for each user and item."""
    _, users = np.unique(rows.users, return_inverse=True)
    _, items = np.unique(rows.items, return_inverse=True)
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    _, first, which, counts = np.unique(
        pairs, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(pairs):
        return rows
    worst = int(np.flatnonzero(counts > 1)[0])
    example = np.flatnonzero(which == worst)
    said = ""
    if rows.ratings is not None:
        said = ": " + ", ".join(f"{rows.ratings[n]:g}" for n in example[:3])
    how = {"last": "the last is kept", "first": "the first is kept", "mean": "their mean is taken"}
    notes.append(
        f"{int((counts > 1).sum()):,} pairs occur more than once (user "
        f"{rows.users[example[0]]!r}, item {rows.items[example[0]]!r}{said}): {how[duplicates]}"
    )
    last = len(pairs) - 1 - np.unique(pairs[::-1], return_index=True)[1]
    kept = rows.take(first if duplicates == "first" else last)
    if duplicates == "mean" and rows.ratings is not None:
        means = np.bincount(which, rows.ratings) / counts
        kept = Rows(kept.users, kept.items, means, kept.times)
    order = np.argsort(first if duplicates == "first" else last, kind="stable")
    return kept.take(order)


def _say_swapped(rows: Rows, user: str, item: str, notes: list[str]) -> None:
    words = {"user": ("user", "customer", "visitor", "reader"),
             "item": ("item", "film", "movie", "book", "product", "article", "song")}  # fmt: skip
    odd = any(w in user.lower() for w in words["item"]) and any(
        w in item.lower() for w in words["user"]
    )
    if odd:
        notes.append(
            f"{user!r} is taken as the user ({len(set(rows.users)):,} values) and {item!r} as the "
            f"item ({len(set(rows.items)):,}): swapped?"
        )


def _split(split: Any, has_time: bool, has_rating: bool) -> tuple[str, float]:
    what = (
        f"split={split!r:.60}: one of {', '.join(SPLITS)}, a fraction between 0 and 1, or both: "
        "('time', 0.1)"
    )
    kind: Any = None
    fraction: Any = 0.1
    if isinstance(split, str):
        kind = split
    elif isinstance(split, float):
        fraction = split
    elif isinstance(split, (tuple, list)) and len(split) == 2:
        kind, fraction = split
    elif split is not None:
        raise DataError(what)
    if kind is None:
        kind = "time" if has_time else ("random" if has_rating or split is not None else "last")
    if kind not in SPLITS or not isinstance(fraction, float) or not 0 < fraction < 1:
        raise DataError(what)
    if kind == "time" and not has_time:
        raise DataError("split='time' needs time=, the column that says when")
    return kind, fraction


def _chosen(rows: Rows, kind: str, fraction: float, seed: int) -> tuple[Array, str]:
    """Which rows validate, and how that was found."""
    count = len(rows.users)
    chosen = np.zeros(count, bool)
    draw = np.random.default_rng(seed)
    if kind == "time":
        chosen[count - max(1, round(fraction * count)) :] = True
        return chosen, f"the last {fraction:.0%} in time"
    if kind == "random":
        chosen[draw.permutation(count)[: max(1, round(fraction * count))]] = True
        return chosen, f"{fraction:.0%} at random"
    order = np.arange(count) if rows.times is not None else draw.permutation(count)
    _, users = np.unique(rows.users, return_inverse=True)
    last = np.full(int(users.max()) + 1, -1)
    last[users[order]] = order
    counts = np.bincount(users)
    chosen[last[counts >= 2]] = True
    word = "the last" if rows.times is not None else "one at random"
    return chosen, f"{word} of each user with two or more"


def _coded(train: Rows, test: Rows) -> dict[str, Events]:
    """Codes of users and items: those of training from 1 on, new ones 0 in front of them."""
    made: dict[str, Events] = {}
    users, items = np.unique(train.users), np.unique(train.items)
    for stage, rows in (("train", train), ("valid", test)):
        codes = []
        for known, given in ((users, rows.users), (items, rows.items)):
            place = np.searchsorted(known, given).clip(max=len(known) - 1)
            codes.append(np.where(known[place] == given, place + 1, 0))
        made[stage] = Events(*codes, rows.ratings, rows.users, rows.items)
    made["train"] = Events(*made["train"][:3], users, items)
    return made
