"""How items are split into train, valid and, where asked for, test.

Each function here makes a split: a function of the items and of one that gives an item's label,
which returns lists of indices, `(train, valid)` or `(train, valid, test)`. They are pure: the same
items and seed give the same parts, in the order of the items.
"""

from __future__ import annotations

import logging
import random as _random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trainbus.arguments import check_whole, is_number
from trainbus.errors import nearest
from trainbus_data.errors import DataError

logger = logging.getLogger("trainbus")
Indices = list[int]
Label = Callable[[Any], Any]
Split = Callable[[Sequence[Any], Label], tuple[Indices, ...]]

#: What folders, and values of a column, are called.
STAGES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}


def checked(split: Any) -> Any:
    """What was given as a split, or None.

    Raises:
        DataError: it is no function of items, but a number, or one that makes splits.
    """
    if isinstance(split, (int, float)):
        raise DataError(f"split={split!r}: give splits.random({split!r}), or another split")
    if any(split is each for each in (random, stratified, everything)):
        raise DataError(f"split=splits.{split.__name__}: call it, splits.{split.__name__}()")
    return split


def everything() -> Split:
    """All items are for training, none for validation: for the last run, with nothing to choose."""

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        return list(range(len(items))), []

    return _known(split, 0.0)


def _known(split: Split, valid: float) -> Split:
    """The split, which says of itself if it leaves nothing for validation."""
    split.trains_on_all = not valid  # type: ignore[attr-defined]
    return split


def say_all_are_trained_on(split: Split | None, count: int) -> None:
    """Say it once if a split has no part for validation, unless it is one that says so itself."""
    if not getattr(split, "trains_on_all", False):
        logger.warning(
            "no item is for validation: all %d are trained on, and nothing is measured "
            "(split=splits.everything() says so)", count,
        )  # fmt: skip


def random(valid: float = 0.2, test: float = 0.0, seed: int = 42) -> Split:
    """Parts drawn at random."""
    _check_fractions(valid, test)
    check_whole(None, DataError, seed=seed)

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        order = list(range(len(items)))
        _random.Random(seed).shuffle(order)
        return _cut([order], valid, test)

    return _known(split, valid)


def stratified(valid: float = 0.2, test: float = 0.0, seed: int = 42) -> Split:
    """At random, with nearly the same share of each label in all parts."""
    _check_fractions(valid, test)
    check_whole(None, DataError, seed=seed)

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        by_label: dict[str, Indices] = defaultdict(list)
        for index, item in enumerate(items):
            by_label[str(label(item))].append(index)
        draw = _random.Random(seed)
        orders = [by_label[word] for word in sorted(by_label)]
        for order in orders:
            draw.shuffle(order)
        return _cut(orders, valid, test)

    return _known(split, valid)


def by_group(
    key: Callable[[Any], Any] | str, valid: float = 0.2, test: float = 0.0, seed: int = 42
) -> Split:
    """Groups drawn at random, none of which is in two parts (a patient, a film, a place).

    Args:
        key: a function of an item that gives its group, or the name of a column.
        valid: the fraction of the groups that is for validation.
        test: the fraction of the groups that is for the test.
        seed: of the draw.
    """
    _check_fractions(valid, test)
    check_whole(None, DataError, seed=seed)
    group_of = _getter(key)

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        by_key: dict[str, Indices] = defaultdict(list)
        for index, item in enumerate(items):
            by_key[str(group_of(item))].append(index)
        groups = sorted(by_key)
        parts = random(valid, test, seed)(groups, label)
        return tuple(sorted(i for n in part for i in by_key[groups[n]]) for part in parts)

    return split


def by_time(key: Callable[[Any], Any] | str, valid: float = 0.2, test: float = 0.0) -> Split:
    """The last ones in time are for validation, the very last for the test.

    Args:
        key: a function of an item that gives what is sorted by, or the name of a column.
        valid: the fraction that is for validation.
        test: the fraction that is for the test.
    """
    _check_fractions(valid, test)
    time_of = _getter(key)

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        times = [time_of(item) for item in items]
        order = sorted(range(len(items)), key=times.__getitem__)
        # `_cut` takes the test part first, then the validation part.
        return _cut([order[::-1]], valid, test)

    return split


def by_index(valid: Iterable[int], test: Iterable[int] = ()) -> Split:
    """These for validation, these for the test, all others for training."""
    chosen, tested = set(valid), set(test)

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        for index in chosen | tested:
            if not 0 <= index < len(items):
                raise DataError(f"by_index: there is no item {index}; there are {len(items)}")
        if chosen & tested:
            raise DataError(f"by_index: item {min(chosen & tested)} is in two parts")
        rest = [i for i in range(len(items)) if i not in chosen and i not in tested]
        return _without_empty_test((rest, sorted(chosen), sorted(tested)))

    return split


def by_column(column: str) -> Split:
    """A column says: true is for validation; or its words do: train, valid (val), test."""

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        get = _getter(column)
        parts: dict[str, Indices] = {"train": [], "valid": [], "test": []}
        for index, item in enumerate(items):
            value = get(item)
            stage = STAGES.get(str(value).strip().lower())
            if stage is None:
                flags = {"true": "valid", "1": "valid", "false": "train", "0": "train"}
                stage = flags.get(str(value).strip().lower().removesuffix(".0"))
            if stage is None:
                raise DataError(
                    f"the column {column!r} has the value {value!r} in row {index}; the "
                    "part of a row is said by true and false, or by train, valid and test"
                )
            parts[stage].append(index)
        return _without_empty_test((parts["train"], parts["valid"], parts["test"]))

    return split


def by_folder(root: str | Path | None = None) -> Split:
    """A folder on the way to a file says: train, valid (val, validation), test.

    Args:
        root: where the way begins, of which the first such folder counts; None for the whole path.
    """

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        parts: dict[str, Indices] = {"train": [], "valid": [], "test": []}
        for index, item in enumerate(items):
            path = Path(item[0] if isinstance(item, tuple) else item)  # of a list: (input, target)
            folders = (path if root is None else path.relative_to(root)).parts[:-1]
            stages = [STAGES[name.lower()] for name in folders if name.lower() in STAGES]
            if not stages:
                raise DataError(
                    f"{path} is in none of the folders train, valid (val, validation) and test"
                )
            if root is None and len(set(stages)) > 1:
                raise DataError(
                    f"{path} is in folders of several parts, {' and '.join(stages)}: "
                    "by_folder(root) says where to begin"
                )
            parts[stages[-1] if root is None else stages[0]].append(index)
        return _without_empty_test((parts["train"], parts["valid"], parts["test"]))

    return split


def by_function(is_valid: Callable[[Any], bool]) -> Split:
    """A function of an item says whether it is for validation."""

    def split(items: Sequence[Any], label: Label) -> tuple[Indices, ...]:
        parts: tuple[Indices, Indices] = ([], [])
        for index, item in enumerate(items):
            parts[bool(is_valid(item))].append(index)
        return parts

    return split


def _getter(key: Callable[[Any], Any] | str) -> Callable[[Any], Any]:
    if not isinstance(key, str):
        return key

    def get(item: Any) -> Any:
        try:
            return item[key]
        except (KeyError, TypeError, IndexError):
            names = [str(name) for name in item] if isinstance(item, dict) else []
            raise DataError(f"there is no column {key!r}{nearest(key, names)}") from None

    return get


def _is_part(value: object) -> bool:
    return is_number(value) and 0 <= value < 1  # type: ignore[operator]


def _check_fractions(valid: float, test: float) -> None:
    if not (_is_part(valid) and _is_part(test) and valid + test < 1):
        raise DataError(
            f"valid={valid}, test={test}: fractions between 0 and 1, which leave some for training"
        )


def _cut(orders: Sequence[Indices], valid: float, test: float) -> tuple[Indices, ...]:
    """The first of each order for the test, the next for validation, the rest for training."""
    tested = _counts([len(order) for order in orders], test)
    left = [len(order) - count for order, count in zip(orders, tested, strict=True)]
    chosen = _counts(left, valid / (1 - test))
    parts: tuple[Indices, Indices, Indices] = ([], [], [])
    for order, first, second in zip(orders, tested, chosen, strict=True):
        behind = first + second
        those = order[behind:], order[first:behind], order[:first]
        for part, indices in zip(parts, those, strict=True):
            part.extend(indices)
    return _without_empty_test(tuple(sorted(part) for part in parts))


def _counts(sizes: Sequence[int], fraction: float) -> list[int]:
    """How many of each are taken: its share, and one more of some where too few were in all.

    One of each is left, and one at least is taken in all, if there are two.
    """
    counts = [max(0, min(round(size * fraction), size - 1)) for size in sizes]
    wanted = round(sum(sizes) * fraction)
    missing = (max(1, wanted) if fraction > 0 else 0) - sum(counts)
    by_need = sorted(range(len(sizes)), key=lambda i: counts[i] - sizes[i] * fraction)
    for i in by_need:
        if missing > 0 and counts[i] < sizes[i] - 1:
            counts[i] += 1
            missing -= 1
    return counts


def _without_empty_test(parts: tuple[Indices, ...]) -> tuple[Indices, ...]:
    return parts if parts[2] else parts[:2]
