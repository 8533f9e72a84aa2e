"""How things are written in a terminal."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from trainbus.texts import shown

_BLOCKS = "▁▂▃▄▅▆▇█"
#: The same where the terminal's encoding has no blocks.
_ASCII = "_.-=+*%#"


def say(text: str, err: bool = False) -> None:
    """Write a text to standard output, or to standard error."""
    import click

    click.echo(shown(text), err=err)


def table(rows: Sequence[Sequence[str]], right: int | None = None) -> str:
    """Rows of cells in columns; those from column `right` on are aligned to the right."""
    if not rows:
        return ""
    rows = [[shown(cell, lines=False) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    right = len(widths) if right is None else right
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < right else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def width() -> int | None:
    """Columns of the terminal; None when the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def number(value: float | None) -> str:
    """A number with five digits that count."""
    return "-" if value is None else f"{value:.5g}"


def duration(seconds: float) -> str:
    """`12.3 s`, `4:05`, `1:02:03`, `3 d 04:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(seconds: float) -> str:
    """A local time with its offset from UTC, from seconds since the epoch."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S %z}"


def size(count: int) -> str:
    """A number of bytes."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def plain(value: Any) -> str:
    """A parameter: a text as it is, anything else as JSON, on one line."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def shortened(line: str, columns: int | None) -> str:
    """A line that fits, without line breaks."""
    line = " ".join(line.split())
    if columns is None or len(line) <= max(columns, 4):
        return line
    return line[: max(columns, 4) - 3] + "..."


def sparkline(values: Sequence[float], columns: int) -> str:
    """A curve in one line of at most so many characters; a space where no value is finite."""
    count = min(columns, len(values))
    means: list[float | None] = []
    for i in range(count):
        part = values[i * len(values) // count : (i + 1) * len(values) // count]
        finite = [value for value in part if math.isfinite(value)]
        # Halved and divided first, since a sum of large numbers may be infinite.
        means.append(sum(value / len(finite) for value in finite) if finite else None)
    known = [mean for mean in means if mean is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    blocks = _blocks()
    scale = high / 2 - low / 2
    if scale < 1e-9 * max(abs(low), abs(high)):  # equal, but for the rounding of the means
        scale = 0.0

    def block(mean: float | None) -> str:
        if mean is None:
            return " "
        part = (mean / 2 - low / 2) / scale if scale else 0.5
        return blocks[min(int(part * len(blocks)), len(blocks) - 1)]

    return "".join(map(block, means))


def _blocks() -> str:
    try:
        _BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return _ASCII
    return _BLOCKS


def as_json(value: Any) -> str:
    """JSON for programs; NaN and infinities, which JSON has no word for, as texts."""
    return json.dumps(_finite(value), indent=2, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
