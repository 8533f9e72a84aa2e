"""How texts are shown that the program did not write: names and messages out of files."""

from __future__ import annotations

import logging


def shown(text: str, lines: bool = True) -> str:
    """A text that may come from a file, with what would steer the terminal written as `\\x1b`.

    Args:
        text: any text.
        lines: whether it may have several.
    """
    if text.isprintable():
        return text
    kept = "\n\t\u200c\u200d\xa0" if lines else "\u200c\u200d\xa0"
    return "".join(
        each if each.isprintable() or each in kept else each.encode("unicode_escape").decode()
        for each in text
    )


def _show(record: logging.LogRecord) -> bool:
    """Write messages with names of files and plugins as they may be shown."""
    text = record.getMessage()
    if not text.isprintable():
        record.msg, record.args = shown(text), ()
    return True


logging.getLogger("trainbus").addFilter(_show)
