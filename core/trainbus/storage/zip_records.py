"""The records of a zip archive of torch's, looked at before torch reads it."""

from __future__ import annotations

import re
import zipfile
from typing import BinaryIO

from trainbus.storage.untrusted import Unfit, shown

#: What `torch.save` calls its records, in a folder of any name.
SAVED = (
    r"[^/]+/(data\.pkl|data/\d+|version|byteorder|\.(format_version|storage_alignment)|\.data/\w+)"
)


def is_zip(file: BinaryIO) -> bool:
    """Whether torch would take a file for an archive: by its first bytes, as torch does."""
    file.seek(0)
    return file.read(4) == b"PK\x03\x04"


def checked(archive: zipfile.ZipFile, size: int, form: str) -> list[zipfile.ZipInfo]:
    """The records of an archive, each of which is the only one of its name, and is not packed.

    torch finds a record in any case, and of two equal names another one than Python does; and a
    packed one may become as large as it likes.

    Args:
        archive: what is read.
        size: bytes of the file.
        form: what a name has to look like, as a regular expression.

    Raises:
        Unfit: with the name of the record.
    """
    known: set[str] = set()
    total = 0
    for record in archive.infolist():
        name = record.orig_filename  # the other one ends at a zero
        if not re.fullmatch(form, name) or name != record.filename:
            raise Unfit(f"it holds a record {shown(name)}, which torch does not write")
        if name.casefold() in known:
            raise Unfit(f"it holds two records of the name {shown(name)}")
        known.add(name.casefold())
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            raise Unfit(f"its record {shown(name)} is packed, which torch does not do")
        total += record.file_size
        if record.file_size != record.compress_size or total > size:
            raise Unfit(f"its record {shown(name)} is longer than the file")
    return archive.infolist()
