"""What texts say: numbers in the forms that files have them, dates, yes and no, or nothing.

A column is understood from its different texts, each looked at once.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from trainbus_data.tables.columns import NO_DATE, NO_TEXT, Column, Reading, Wording

#: Words that stand for nothing in any column.
ALWAYS_MISSING = frozenset(
    {"", "?", "n/a", "#n/a", "nan", "<na>", "nat", "null", "#null!", "#n/a n/a", "n.a.", "1.#qnan"}
)
#: Words that do so where all others are numbers or dates; alone they may be names (NA: Namibia).
ELSE_MISSING = frozenset(
    {"na", "none", "-", "--", "---", ".", "..", "...", "nil", "unknown", "missing"}
)
#: A number that Python reads, and that is not a name: no zeros in front, no signs in front but "-".
_PLAIN = re.compile(r"-?(?:0|[1-9]\d*|(?=\.\d))(?:\.\d*)?(?:[eE][-+]?\d+)?|-?inf(?:inity)?", re.I)
_DIGITS = frozenset("0123456789.-+eE\n")
#: What Python reads, but is a name: 007, +49.
_NAMES = re.compile(r"^(?:-?0\d|\+)", re.MULTILINE)
_CURRENCIES = "$€£¥"
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?"
    r"(?: ?(?:Z|UTC|[-+]\d\d:?(?:\d\d)?))?)?"
)
_OTHER_DATE = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})(?:[T ,]+(\d{1,2}):(\d\d)(?::(\d\d))?)?"
)
_ORDERS = ("d{0}m{0}y", "m{0}d{0}y", "y{0}m{0}d")
_EPOCH = datetime(1970, 1, 1)
_BOOLEANS = {"true": 1.0, "false": 0.0}
#: How many words are looked at first, so that a column of long texts is not read in vain.
_FIRST = 50


def understood(
    codes: np.ndarray[Any, Any], words: Sequence[str], like: Reading | None = None
) -> Column:
    """The column that these texts are.

    Args:
        codes: N, the index of a word; -1 where there is none.
        words: each once, not stripped.
        like: how they are to be read; by default as they look.
    """
    if like is not None:
        return read_as(codes, words, like)
    plain = _plain_numbers(codes, words)
    if plain is not None:
        return plain
    codes, stripped = _stripped(codes, words)
    always = [word for word in stripped if word.lower() in ALWAYS_MISSING]
    others = [word for word in stripped if word.lower() not in ALWAYS_MISSING]
    named = tuple(word for word in always if word)
    if others and all(word.lower() in _BOOLEANS for word in others):
        return _spread(codes, stripped, Wording(missing=named), "boolean")
    odd = [word for word in others if word.lower() in ELSE_MISSING]
    given = [word for word in others if word.lower() not in ELSE_MISSING]
    wording = wording_of(given)
    if wording is None:
        wording, strange = _but_for_a_few(codes, stripped, given)
        odd += strange
    if wording is not None:
        kind = "date" if wording[1] else "number"
        found = replace(wording[0], missing=(*named, *odd))
        return _spread(codes, stripped, found, kind)
    return _as_texts(codes, stripped, Wording(missing=named))


def _plain_numbers(codes: np.ndarray[Any, Any], words: Sequence[str]) -> Column | None:
    """The column where all words are plain numbers or empty, which is quickly seen."""
    joined = "\n".join(words)
    if not set(joined) <= _DIGITS | {" "} or _NAMES.search(joined.replace(" ", "")):
        return None
    values = np.full(len(words) + 1, np.nan)
    try:
        values[:-1] = [float(word) if word and not word.isspace() else np.nan for word in words]
    except ValueError:
        return None
    if np.isnan(values).all() or not _all_plain([word.strip() for word in words if len(word) > 15]):
        return None
    return Column("number", values[codes])


def read_as(codes: np.ndarray[Any, Any], words: Sequence[str], like: Reading) -> Column:
    """Texts as a column of this kind in this wording; what does not fit is missing, and strange."""
    codes, stripped = _stripped(codes, words)
    if like.kind == "text":
        return _as_texts(codes, stripped, like.wording)
    column = _spread(codes, stripped, like.wording, like.kind)
    gone = {word.lower() for word in like.wording.missing} | ALWAYS_MISSING
    odd = np.flatnonzero(column.missing & (codes >= 0))
    strange = {int(row): stripped[codes[row]] for row in odd}
    strange = {row: word for row, word in strange.items() if word.lower() not in gone}
    return replace(column, strange=strange) if strange else column


def wording_of(words: Sequence[str]) -> tuple[Wording, bool] | None:
    """How all of these say a number, or (then true) a date; None where they say neither."""
    if not words:
        return None
    first = words[:_FIRST]
    if all(map(_PLAIN.fullmatch, first)):
        return (Wording(), False) if _all_plain(words) else None
    if all(map(_ISO.fullmatch, first)):
        return (Wording(), True) if all(map(_ISO.fullmatch, words)) else None
    if all(map(_OTHER_DATE.fullmatch, first)):
        return _order_of(words)
    wording = _of_numbers(first)
    if wording is None or len(words) == len(first):
        return None if wording is None else (wording, False)
    wording = _of_numbers(words)
    return None if wording is None else (wording, False)


def _all_plain(words: Sequence[str]) -> bool:
    """Whether all are numbers whose digits a float keeps."""
    if not words:
        return True
    joined = "\n".join(words)
    if set(joined) <= _DIGITS and not _NAMES.search(joined):
        try:
            deque(map(float, words), maxlen=0)  # much faster than a look at each
        except ValueError:
            return False
    elif not all(map(_PLAIN.fullmatch, words)):
        return False
    if max(map(len, words)) <= 15:
        return True
    long = (word for word in words if len(word) > 15)
    return all(not word.lstrip("-").isdigit() or abs(int(word)) <= 2**53 for word in long)


def _of_numbers(words: Sequence[str]) -> Wording | None:
    """The wording of numbers that Python cannot read as they stand."""
    wording, bare = Wording(), list(words)
    if all(word.endswith("%") for word in bare):
        wording, bare = replace(wording, percent=True), [word[:-1].rstrip() for word in bare]
    signs = {sign for sign in _CURRENCIES if sign in bare[0]}
    if signs and all(signs & set(word) for word in bare):
        sign = signs.pop()
        wording = replace(wording, currency=sign)
        bare = [word.replace(sign, "").strip() for word in bare]
    if _all_plain(bare):
        return wording
    for thousands in ("'", "\u2019", " ", "\u00a0", "\u202f"):
        if any(thousands in word for word in bare):
            for decimal in ".,":
                if _fits(bare, thousands, decimal):
                    return replace(wording, thousands=thousands, decimal=decimal)
    if _fits(bare, ",", "."):
        doubt = (
            ""
            if any("." in word or word.count(",") > 1 for word in bare)
            else ("a comma before three digits is read as one between thousands")
        )
        return replace(wording, thousands=",", guessed=doubt)
    if _fits(bare, ".", ","):
        return replace(wording, thousands="." if any("." in w for w in bare) else "", decimal=",")
    return None


def _fits(words: Sequence[str], thousands: str, decimal: str) -> bool:
    t, d = re.escape(thousands), re.escape(decimal)
    number = re.compile(
        rf"-?(?:[1-9]\d{{0,2}}(?:{t}\d{{3}})+|0|[1-9]\d*)(?:{d}\d+)?(?:[eE][-+]?\d+)?"
    )
    return all(map(number.fullmatch, words))


def _but_for_a_few(
    codes: np.ndarray[Any, Any], words: Sequence[str], given: Sequence[str]
) -> tuple[tuple[Wording, bool] | None, list[str]]:
    """The wording of all but one or two words, which stand for nothing among numbers."""
    numbers = [word for word in given if word[-1:].isdigit() or word[-1:] in "%" + _CURRENCIES]
    odd = [word for word in given if not (word[-1:].isdigit() or word[-1:] in "%" + _CURRENCIES)]
    if not 1 <= len(odd) <= 2 or len(numbers) < 10 or any(map(_has_digit, odd)):
        return None, []
    wording = wording_of(numbers)
    if wording is None:
        return None, []
    strange = np.isin(codes, [words.index(word) for word in odd]).sum()
    return (wording, list(odd)) if strange <= 0.2 * len(codes) else (None, [])


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def _order_of(words: Sequence[str]) -> tuple[Wording, bool] | None:
    """The order of day, month and year in dates such as 13.1.2016."""
    found = [_OTHER_DATE.fullmatch(word) for word in words]
    signs = {match[2] for match in found if match}
    if not all(found) or len(signs) > 1:
        return None
    sign = signs.pop()
    fitting = [
        order for order in (each.format(sign) for each in _ORDERS)
        if all(_date(match, order) is not None for match in found if match)
    ]  # fmt: skip
    if not fitting:
        return None
    if sign == "/" and len(fitting) > 1:
        fitting.sort(key=lambda order: not order.startswith("m"))
    doubt = f"could be {fitting[1]}, too" if len(fitting) > 1 else ""
    return Wording(date=fitting[0], guessed=doubt), True


def _date(match: re.Match[str], order: str) -> int | None:
    """Microseconds of a date in this order of day, month and year."""
    parts = dict(zip(order[::2], (match[1], match[3], match[4]), strict=True))
    if len(parts["y"]) != 4:
        return None
    hour, minute, second = (int(each or 0) for each in match.group(5, 6, 7))
    try:
        made = datetime(int(parts["y"]), int(parts["m"]), int(parts["d"]), hour, minute, second)
    except ValueError:
        return None
    return _microseconds(made)


def _microseconds(when: datetime) -> int:
    """Since 1970; in UTC where there is a zone."""
    if when.tzinfo is not None:
        when = when.astimezone(UTC).replace(tzinfo=None)
    return (when - _EPOCH) // timedelta(microseconds=1)


# --- values of the words, spread over the rows ---------------------------------------------------


def _stripped(
    codes: np.ndarray[Any, Any], words: Sequence[str]
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The same with blanks around words taken off, and words that become one made one."""
    places: dict[str, int] = {}
    new = [places.setdefault(word.strip(), len(places)) for word in words]
    if new != list(range(len(new))):
        codes = np.append(np.array(new, dtype=np.int64), NO_TEXT)[codes]
    return codes, list(places)


def _as_texts(codes: np.ndarray[Any, Any], words: Sequence[str], wording: Wording) -> Column:
    """Words in the order in which rows have them, without those that are missing or unused."""
    gone = [n for n, word in enumerate(words) if word.lower() in ALWAYS_MISSING]
    if len(gone) == len(words):
        return Column("number", np.full(len(codes), np.nan), wording=wording)
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    if not gone and len(counts) and counts.min() > 0:
        return Column("text", codes.astype(np.int64), tuple(words), wording)
    keep = [n for n in range(len(words)) if counts[n] and n not in set(gone)]
    new = np.full(len(words) + 1, NO_TEXT, dtype=np.int64)
    new[keep] = np.arange(len(keep))
    return Column("text", new[codes], tuple(words[n] for n in keep), wording)


def _spread(
    codes: np.ndarray[Any, Any], words: Sequence[str], wording: Wording, kind: str
) -> Column:
    """A column of the values that the words say; what says none is missing."""
    gone = {word.lower() for word in wording.missing} | ALWAYS_MISSING
    if kind == "date":
        return _dates(codes, words, wording, gone)
    values = np.full(len(words) + 1, np.nan)
    if kind == "boolean":
        for n, word in enumerate(words):
            values[n] = _BOOLEANS.get(word.lower(), np.nan)
        return Column("boolean", values[codes], wording=wording)
    try:
        values[:-1] = [np.nan if word.lower() in gone else _number(word, wording) for word in words]
    except ValueError:
        values[:-1] = [_number_or_nan(word, wording, gone) for word in words]
    return Column("number", values[codes], wording=wording)


def _number(word: str, wording: Wording) -> float:
    if wording.thousands:
        word = word.replace(wording.thousands, "")
    if wording.decimal != ".":
        word = word.replace(wording.decimal, ".")
    if wording.currency:
        word = word.replace(wording.currency, "")
    if wording.percent:
        return float(word.replace("%", "")) / 100
    return float(word)


def _number_or_nan(word: str, wording: Wording, gone: set[str] | frozenset[str]) -> float:
    try:
        return float("nan") if word.lower() in gone else _number(word, wording)
    except ValueError:
        return float("nan")


def _dates(
    codes: np.ndarray[Any, Any], words: Sequence[str], wording: Wording, gone: set[str]
) -> Column:
    values = np.full(len(words) + 1, NO_DATE, dtype=np.int64)
    zones: dict[bool, int] = {}
    for n, word in enumerate(words):
        if word.lower() in gone:
            continue
        if wording.date:
            match = _OTHER_DATE.fullmatch(word)
            value = _date(match, wording.date) if match else None
        else:
            value, zoned = _iso(word)
            if value is not None:
                zones.setdefault(zoned, n)
        if value is not None:
            values[n] = value
    problem = ""
    if len(zones) > 1:
        row = int(np.argmax(codes == max(zones.values())))
        problem = f"has times with and without zone (row {row}: {words[max(zones.values())]!r})"
    return Column("date", values[codes], (), wording, True in zones, problem)


def _iso(word: str) -> tuple[int | None, bool]:
    try:
        when = datetime.fromisoformat(
            word.replace(" UTC", "Z").replace(" +", "+").replace(" -", "-")
        )
    except ValueError:
        return None, False
    return _microseconds(when), when.tzinfo is not None
