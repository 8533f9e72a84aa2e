"""What a file says, looked at before it is believed.

A file gives values, and never places, names of functions or code. A *shape* is a function of a
value and of where it stands, which raises `Unfit` for what does not belong there; shapes are made
of others, so that what a reader takes stands in one place. Whoever reads a file turns `Unfit` into
an error of his own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

#: Checks a value that stands at a place, in words; raises `Unfit`.
Shape = Callable[[Any, str], None]

#: Containers in each other, and values in all of them together, that a file may hold.
DEPTH, VALUES = 100, 10_000_000
#: Bytes of a text that is read whole: a manifest, a description.
TEXT_BYTES = 64 * 2**20
_MOST = 2**63 - 1
_CONTAINERS = (dict, list, tuple, set, frozenset)


class Unfit(ValueError):
    """A file holds what does not belong there; the message says where, and what would."""


# --- shapes --------------------------------------------------------------------------------------


def anything(_value: Any, _where: str) -> None:
    """Fits all."""


def one_of(*types: type) -> Shape:
    """A value of one of these types, and not of a type made from them."""
    words = " or ".join("nothing" if each is type(None) else each.__name__ for each in types)

    def check(value: Any, where: str) -> None:
        if type(value) not in types:
            raise Unfit(f"{where} is {shown(value)}; it has to be {words}")

    return check


def whole(low: int = 0, high: int = _MOST) -> Shape:
    """A whole number in a range."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not low <= value <= high:
            bounds = f"of at least {low}" if high == _MOST else f"from {low} to {high}"
            raise Unfit(f"{where} is {shown(value)}; it has to be a whole number {bounds}")

    return check


def number(value: Any, where: str) -> None:
    """Fits a number, one that is not finite too."""
    fits = type(value) is float or (type(value) is int and abs(value) < 2**1000)
    if not fits:
        raise Unfit(f"{where} is {shown(value)}; it has to be a number")


def within(low: float, high: float) -> Shape:
    """A number in a range, which one that is not a number is not."""

    def check(value: Any, where: str) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise Unfit(f"{where} is {shown(value)}; it has to be a number from {low} to {high:g}")

    return check


def text(most: int = 10_000, form: str | None = None) -> Shape:
    """A text of so many characters at most, all of it of a form (a regular expression)."""
    pattern = None if form is None else re.compile(form)

    def check(value: Any, where: str) -> None:
        if type(value) is not str or len(value) > most:
            raise Unfit(f"{where} is {shown(value)}; it has to be a text of at most {most:,}")
        if pattern is not None and not pattern.fullmatch(value):
            raise Unfit(f"{where} is {shown(value)}, which is not what stands there")

    return check


def choice(*values: Any) -> Shape:
    """One of these values."""

    def check(value: Any, where: str) -> None:
        if not any(type(value) is type(each) and value == each for each in values):
            raise Unfit(f"{where} is {shown(value)}; it has to be one of {values}")

    return check


def maybe(shape: Shape) -> Shape:
    """What fits, or nothing."""

    def check(value: Any, where: str) -> None:
        if value is not None:
            shape(value, where)

    return check


def either(*shapes: Shape) -> Shape:
    """What fits one of these; the last one says what is wrong."""

    def check(value: Any, where: str) -> None:
        for shape in shapes[:-1]:
            try:
                return shape(value, where)
            except Unfit:
                continue
        return shapes[-1](value, where)

    return check


def listed(shape: Shape = anything, length: int | None = None) -> Shape:
    """A list, or a tuple, of what fits; of a length, where that is given."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, (list, tuple)):
            raise Unfit(f"{where} is {shown(value)}; it has to be a list")
        if length is not None and len(value) != length:
            raise Unfit(f"{where} has {len(value)} parts; it has to have {length}")
        for index, each in enumerate(value):
            shape(each, f"{where}[{index}]")

    return check


def pair(first: Shape, second: Shape) -> Shape:
    """A list, or a tuple, of two."""

    def check(value: Any, where: str) -> None:
        listed(length=2)(value, where)
        first(value[0], f"{where}[0]")
        second(value[1], f"{where}[1]")

    return check


def mapping(shape: Shape = anything, key: Shape | None = None) -> Shape:
    """A mapping of texts, or of keys that fit, to what fits."""
    key = text() if key is None else key

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Unfit(f"{where} is {shown(value)}; it has to be a mapping")
        for name, each in value.items():
            key(name, f"{where}: a key")
            shape(each, f"{where}.{name!s:.80}")

    return check


def fields(needed: Mapping[str, Shape], also: Mapping[str, Shape] | None = None) -> Shape:
    """A mapping with these fields, and with others that may be there; further ones are let be."""
    also = also or {}

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Unfit(f"{where} is {shown(value)}; it has to be a mapping")
        for name, shape in needed.items():
            if name not in value:
                raise Unfit(f"{where} has no {name!r}")
            shape(value[name], f"{where}.{name}")
        for name, shape in also.items():
            if name in value:
                shape(value[name], f"{where}.{name}")

    return check


def shown(value: Any) -> str:
    """A value of a file in an error: short, and without what a terminal would take for orders."""
    if type(value) in (str, int, float, bool, type(None)):
        try:
            return ascii(value)[:60]
        except ValueError:  # a number of too many digits
            return "a number"
    return f"a {type(value).__name__}"


# --- values --------------------------------------------------------------------------------------


def bounded(value: Any, where: str, depth: int = DEPTH, values: int = VALUES) -> None:
    """Refuse containers that hold themselves, lie too deep in each other, or hold too much.

    A container that stands in several places counts at each of them: what is read later goes to
    all of them. It is no recursion, which itself would end at such a depth.
    """
    sizes: dict[int, tuple[int, int]] = {}  # of what was looked at: values in it, and its depth
    open_: set[int] = set()
    waiting: list[tuple[Any, bool]] = [(value, False)]
    while waiting:
        each, is_done = waiting.pop()
        inside = _inside(each)
        if inside is None or id(each) in sizes:
            continue
        if is_done:
            known = [sizes[id(item)] for item in inside if id(item) in sizes]
            count = 1 + len(inside) + sum(size for size, _ in known)
            deep = 1 + max((below for _, below in known), default=0)
            if count > values or deep > depth:
                what = "too many values" if count > values else "values too deep in each other"
                raise Unfit(f"{where} holds {what}")
            sizes[id(each)] = count, deep
            open_.discard(id(each))
            continue
        if id(each) in open_:
            raise Unfit(f"{where} holds itself")
        open_.add(id(each))
        waiting.append((each, True))
        waiting += [(item, False) for item in inside if isinstance(item, _CONTAINERS)]


def _inside(value: Any) -> list[Any] | None:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return list(value) if isinstance(value, _CONTAINERS) else None


def parsed(content: str | bytes, where: str) -> Any:
    """JSON, as deep as a file may be. Raises `Unfit`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{where} is no JSON that can be read: {shown(str(error))}") from None
    bounded(value, where)
    return value


def read_json(path: Path) -> Any:
    """The JSON of a file.

    Raises:
        Unfit: it is none, or is too long.
        OSError: it cannot be read, or is no regular file.
    """
    with opened(path) as file:
        content = file.read(TEXT_BYTES + 1)
    if len(content) > TEXT_BYTES:
        raise Unfit(f"{path.name} has more than {TEXT_BYTES:,} bytes")
    return parsed(content, path.name)


# --- places --------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A regular file to be read, and nothing that has no end, or waits for a writer.

    Raises:
        OSError: it cannot be read, or is something else.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(f"{path} is no regular file")
        yield file


def inside(directory: Path, *parts: Any, form: str = r"[\w.+-]+") -> Path:
    """The path of what a file names in a directory: one name for each part, and behind no link.

    Args:
        directory: a directory that this process knows.
        parts: the names of directories in it, each in the one before, and of the last thing.
        form: what the last name looks like, as a regular expression.

    Raises:
        Unfit: a name is none of this form, or leads elsewhere.
    """
    for name in parts:
        if type(name) is not str or name in ("", ".", "..") or re.search(r"[/\\\0:]", name):
            raise Unfit(f"{shown(name)} is no name of a file")
    if not re.fullmatch(form, parts[-1]):
        raise Unfit(f"{shown(parts[-1])} is not what a file is called there")
    path = directory.resolve().joinpath(*parts)
    if Path(os.path.realpath(path)) != path:
        raise Unfit(f"{shown(parts[-1])} leads out of {directory} by a link")
    return path
