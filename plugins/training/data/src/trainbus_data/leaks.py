"""What flatters a model: columns that tell the target, rows and groups in two parts, order in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from trainbus_data.tables.columns import Column, Table

Array = np.ndarray[Any, Any]
#: A column alone that explains so much of a number, or leaves so little of the errors of a class.
_TELLS = 0.95
_LEFT = 0.02
#: Rows that are looked at: more would not change what is found.
_ROWS = 8_000
_BINS = 64


def same_rows(train: Table, valid: Table) -> Array:
    """The rows of validation that are in training, too: indices.

    Rows are compared by all of their columns.
    """
    names = [name for name in train if name in valid]
    if not names:
        return np.zeros(0, dtype=np.int64)
    hashes = [np.zeros(table.rows, dtype=np.uint64) for table in (train, valid)]
    for name in names:
        for n, codes in enumerate(_hashed(train[name], valid[name])):
            with np.errstate(over="ignore"):
                hashes[n] = (hashes[n] ^ codes) * np.uint64(0x9E3779B97F4A7C15)
                hashes[n] ^= hashes[n] >> np.uint64(29)
    return np.flatnonzero(np.isin(hashes[1], hashes[0]))


def _hashed(a: Column, b: Column) -> tuple[Array, Array]:
    """Both columns as integers that are equal where values are."""
    if a.kind == "text" and b.kind == "text":
        places = {word: n for n, word in enumerate(a.words)}
        new = np.array([places.setdefault(w, len(places)) for w in b.words] + [-1], dtype=np.int64)
        return _bits(a.values), _bits(new[b.values])
    return _bits(a.values), _bits(b.values)


def _bits(values: Array) -> Array:
    whole = (values + 0.0).view(np.uint64) if values.dtype.kind == "f" else values.view(np.uint64)
    with np.errstate(over="ignore"):
        mixed = whole * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(31))  # type: ignore[no-any-return]


def groups_in_both(groups: Column, train: Array, valid: Array) -> list[str]:
    """The values of a column that rows of both parts have."""
    both = np.intersect1d(groups.values[train], groups.values[valid])
    shown = Column(groups.kind, both, groups.words)
    named = (shown.shown(row) for row in range(len(both)))
    return [str(each) for each in named if each is not None]


def orders_rows(column: Column) -> bool:
    """Whether a column of dates stands in the order of the rows, from first to last or the reverse."""
    known = column.values[~column.missing]
    if len(known) < 10 or len(known) < 0.9 * len(column) or known[0] == known[-1]:
        return False
    steps = np.diff(known)
    return bool((steps >= 0).mean() > 0.99 or (steps <= 0).mean() > 0.99)


def telling(columns: Mapping[str, Column], target: Array, is_class: bool) -> dict[str, str]:
    """The columns that tell the target alone, or in pairs as a sum, each with how.

    Each value of a column, or each of 64 quantiles, is learned on half of the rows, and looked up
    in the other half.

    Args:
        columns: of the training part, by name.
        target: N float64 for numbers, N int64 for classes.
        is_class: which of the two.
    """
    step = max(1, len(target) // _ROWS)
    wanted = target[::step]
    found: dict[str, str] = {}
    if len(wanted) < 40:
        return found
    for name, column in columns.items():
        share = _told(_binned(column.take(slice(None, None, step))), wanted, is_class)
        if is_class and share >= 1 - _LEFT:
            found[name] = f"alone it tells the class of {_percent(share)} of what is not the most usual"
        elif not is_class and share >= _TELLS:
            found[name] = f"alone it predicts the target with an R2 of {share:.2f}"
    if not is_class:
        found |= _sums(columns, target)
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _binned(column: Column) -> Array:
    """Codes of the values of a column: of words, or of quantiles; 0 for missing."""
    if column.kind == "text":
        return column.values + 1  # type: ignore[no-any-return]
    missing = column.missing | ~np.isfinite(column.values.astype(np.float64))
    known = column.values[~missing]
    codes = np.zeros(len(column), dtype=np.int64)
    if len(known):
        places = np.linspace(0, len(known) - 1, _BINS + 1)[1:-1].astype(np.int64)
        edges = np.unique(np.sort(known)[places])
        codes[~missing] = 1 + np.searchsorted(edges, known, side="left")
    return codes


def _told(codes: Array, target: Array, is_class: bool) -> float:
    """How much of the target codes tell: of the variance, or of the errors of the usual class."""
    learn, look = codes[::2], codes[1::2]
    known, asked = target[::2], target[1::2]
    count = int(codes.max()) + 1
    if count > len(learn) / 4:  # so many values that each tells of itself alone
        return 0.0
    if is_class:
        classes = int(target.max()) + 1
        pairs = np.bincount(learn * classes + known, minlength=count * classes)
        usual = np.bincount(known, minlength=classes).argmax()
        best = pairs.reshape(count, classes).argmax(axis=1)
        best[np.bincount(learn, minlength=count) == 0] = usual
        errors = (asked != usual).sum()
        return 0.0 if errors < 10 else 1 - float((best[look] != asked).sum() / errors)
    counts = np.bincount(learn, minlength=count)
    sums = np.bincount(learn, weights=known, minlength=count)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), known.mean())
    spread = ((asked - asked.mean()) ** 2).sum()
    return 0.0 if spread == 0 else 1 - float(((asked - means[look]) ** 2).sum() / spread)


def _sums(columns: Mapping[str, Column], target: Array) -> dict[str, str]:
    """Pairs of number columns whose sum or difference is the target, in all rows."""
    numbers = {name: c.values for name, c in columns.items() if c.kind == "number"}
    few = slice(0, 200)
    found: dict[str, str] = {}
    if len(numbers) > 200 or np.ptp(target[few]) == 0:
        return found
    for a, b in combinations(numbers, 2):
        for sign, made in (("+", np.add), ("-", np.subtract)):
            if _equal(made(numbers[a][few], numbers[b][few]), target[few]) and _equal(
                made(numbers[a], numbers[b]), target
            ):
                constant = [n for n in (a, b) if np.ptp(numbers[n]) == 0]
                for name in (a, b):
                    if name not in constant:
                        found[name] = f"the target is {a!r} {sign} {b!r}"
    return found


def _equal(a: Array, b: Array) -> bool:
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-12))


def counts_rows(column: Column) -> bool:
    """Whether whole numbers go up by the same step from row to row: an index."""
    if column.kind != "number" or len(column) < 3 or column.missing.any():
        return False
    steps = np.diff(column.values)
    return bool(steps[0] != 0 and (steps == steps[0]).all() and float(steps[0]).is_integer())


def some(rows: Sequence[int] | Array, most: int = 4) -> str:
    """`3, 88, ...`: the first of some rows."""
    listed = [str(int(row)) for row in rows[:most]]
    return ", ".join(listed) + (", ..." if len(rows) > most else "")
