"""What one value of a table or a list says: a label, a number, or nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from trainbus_data.errors import DataError


def is_missing(raw: Any) -> bool:
    """Whether a value of a table is none: None, NaN, pandas' NA or NaT, or an empty string."""
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return True
    if isinstance(raw, (str, bytes, list, tuple, set)) or dimensions(raw):
        return False
    try:
        return bool(raw != raw)
    except TypeError:  # pandas' NA says neither yes nor no
        return True


def unboxed(raw: Any) -> Any:
    """A value without NumPy's or torch's box: one that JSON takes, and that compares by value."""
    return raw.item() if hasattr(raw, "item") and not dimensions(raw) else raw


def dimensions(raw: Any) -> int:
    """Of an array or a tensor; 0 for what is none."""
    return int(getattr(raw, "ndim", 0))


def label_of(raw: Any) -> Any:
    """A label as it is kept and compared: without a box, and whole numbers as integers.

    Raises:
        DataError: it is several.
    """
    label = unboxed(raw.reshape(()) if dimensions(raw) and math.prod(raw.shape) == 1 else raw)
    if isinstance(label, (list, set, dict)) or dimensions(label):
        raise DataError(f"{label!r:.60} is no single label; for several of an item: Categories()")
    return int(label) if isinstance(label, float) and label.is_integer() else label


def text_of(label: Any) -> str:
    """The text by which labels of several types are the same: 1, 1.0 and "1"."""
    return str(label_of(label))


def is_number(text: Any) -> bool:
    """Whether a text is written as a number: "3", "-1.5"."""
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def check_labels(words: Sequence[Any], what: str) -> str | None:
    """Refuse a vocabulary with two words that are one; what to say of two that may be.

    Raises:
        DataError: two are equal, or differ in spaces or in their type alone.
    """
    found: dict[str, Any] = {}
    for word in words:
        key = text_of(word).strip()
        if key in found:
            raise DataError(
                f"{what}: {word!r} is in the vocabulary twice"
                if word == found[key]
                else f"{what}: {found[key]!r} and {word!r} are two labels that differ in spaces or "
                "type alone; make them one"
            )
        found[key] = word
    lower: dict[str, Any] = {}
    for key, word in found.items():
        other = lower.setdefault(key.lower(), word)
        if other is not word:
            return f"{what}: {other!r} and {word!r} are two classes, which differ in capitals alone"
    return None


def typed(cells: Iterable[str]) -> list[Any]:
    """The values of a column of texts: integers or floats where all are, written the usual way.

    In a column of numbers an empty cell is None. Every other text stays as it stands: "NA", and
    numbers with zeros in front, which are names.
    """
    texts = list(cells)
    given = [text.strip() for text in texts if text.strip()]
    for kind in (int, float):
        try:
            usual = bool(given) and all(_usual(text) and kind(text) is not None for text in given)
        except ValueError:
            continue
        if usual:
            return [kind(text) if text.strip() else None for text in texts]
    return texts


def _usual(text: str) -> bool:
    """Whether nothing would be lost of a number: no zeros in front, no underscores, not "inf"."""
    digits = text.lstrip("+-")
    if digits[:1] == "0" and digits[1:2].isdigit():
        return False
    return not text.startswith("+") and text.isascii() and not set(text.lower()) & set("_in")
