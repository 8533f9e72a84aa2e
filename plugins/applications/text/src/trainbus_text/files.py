"""Texts of files in blocks, and their tokens as a file that is mapped: none is in memory whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainbus.storage.files import make_directory, replacing
from trainbus_data import DataError

#: Bytes that are read and encoded together.
BLOCK = 1 << 24


class Span:
    """The text of a file from one byte to another, in blocks.

    Args:
        path: of the file.
        encoding: of its text.
        begin, end: bytes; those of a character that is cut belong to the part before.
    """

    def __init__(self, path: Path, encoding: str, begin: int, end: int) -> None:
        self.path, self.encoding = path, encoding
        self.begin, self.end = begin, end

    def __iter__(self) -> Iterator[str]:
        """Texts, cut behind a blank where there is one."""
        rest = b""
        place = self.begin
        with self.path.open("rb") as file:
            file.seek(self.begin)
            while place < self.end:
                read = file.read(min(BLOCK, self.end - place))
                if not read:
                    break
                place += len(read)
                given = rest + read
                cut = len(given) if place >= self.end else _cut(given)
                yield self._decoded(given[:cut], place - len(given))
                rest = given[cut:]

    def __len__(self) -> int:
        """Bytes."""
        return self.end - self.begin

    def _decoded(self, raw: bytes, at: int) -> str:
        try:
            return raw.decode(self.encoding)
        except UnicodeDecodeError as error:
            where = at + error.start
            raise DataError(
                f"{self.path.name} is not {self.encoding.upper()} at byte {where:,} "
                f"(0x{raw[error.start]:02x}): latin-1? encoding='latin-1'"
            ) from None
        except LookupError:
            raise DataError(f"encoding={self.encoding!r}: Python knows no such encoding") from None


def _cut(raw: bytes) -> int:
    """Behind the last line, or the last blank; else at the begin of a character."""
    for mark in (b"\n", b" "):
        if (place := raw.rfind(mark)) > 0:
            return place + 1
    place = len(raw)
    while place > 1 and raw[place - 1] & 0xC0 == 0x80:
        place -= 1
    return place - 1 if place > 1 and raw[place - 1] >= 0xC0 else len(raw)


def spans(path: Path, encoding: str, split: float) -> tuple[Span, Span | None]:
    """A file, and its last part, split at a byte that begins a character.

    Raises:
        DataError: there is no such file, or nothing in it.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise DataError(f"text_file: {path} {what}; give a file of text")
    size = path.stat().st_size
    if not size:
        raise DataError(f"text_file: {path} is empty")
    if split >= 1:
        return Span(path, encoding, 0, size), None
    place = int(size * split)
    with path.open("rb") as file:
        file.seek(place)
        for byte in file.read(4):
            if byte & 0xC0 != 0x80:
                break
            place += 1
    return Span(path, encoding, 0, place), Span(path, encoding, place, size)


def encoded(span: Span, tokens: Any, folder: Path | None) -> tuple[np.ndarray[Any, Any], int, int]:
    """The tokens of a part of a file, its characters and its bytes.

    Args:
        span: the part.
        tokens: fitted.
        folder: where the tokens are kept as a file that is mapped, by a hash of text and tokens;
            None for in memory.
    """
    kind = np.uint16 if tokens.size < 1 << 16 else np.int32
    if folder is None:
        parts, characters = [], 0
        for text in span:
            characters += len(text)
            parts.append(tokens.encode_all([text])[0].astype(kind))
        return np.concatenate(parts) if parts else np.zeros(0, kind), characters, len(span)
    digest = hashlib.sha256(tokens.hash.encode())
    characters = 0
    for text in span:
        digest.update(text.encode("utf-8", "surrogatepass"))
        characters += len(text)
    place = folder / f"{digest.hexdigest()[:32]}.tokens"
    if not place.is_file():
        make_directory(folder)
        with replacing(place) as beside, beside.open("wb") as file:
            for text in span:
                file.write(tokens.encode_all([text])[0].astype(kind).tobytes())
    return np.memmap(place, kind, "r"), characters, len(span)
