"""Names and values as MLflow takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any

_MAX_NAME, _MAX_PARAM, _MAX_TAG = 250, 6000, 5000
_REFUSED = re.compile(r"[^/\w.\- :]")
_REFUSED_BY_FILES = re.compile(r"[^/\w.\- ]")


@lru_cache(10_000)
def name(text: str) -> str:
    """A name that MLflow takes, always the same one for the same text.

    What it takes already stays as it is: letters and digits of any language, `_ - . : /` and
    spaces, as a path that points nowhere else. In all others the rest becomes `_`, and a checksum
    of the text at their end keeps those apart that would become the same.
    """
    return _clean(text, _REFUSED, _MAX_NAME)


def path(text: str) -> str:
    """Such a name that is also one of a folder, wherever the artifacts are kept."""
    # A file system counts 255 bytes, of which a letter may take four. Windows has no colon.
    return _clean(text, _REFUSED_BY_FILES, 200 if text.isascii() else 60)


def _clean(text: str, refused: re.Pattern[str], limit: int) -> str:
    parts = [part for part in refused.sub("_", text).split("/") if part not in ("", ".", "..")]
    clean = "/".join(parts)
    if clean == text and 0 < len(text) <= limit:
        return text
    checksum = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{clean[: limit - 9]}-{checksum}"


def params(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Parameters as texts: nested ones get dotted names, and long values end in `...`."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= params(value, f"{prefix}{key}.")
        else:
            flat[name(f"{prefix}{key}")] = _short(str(value), _MAX_PARAM)
    return flat


def tags(values: Mapping[str, str]) -> dict[str, str]:
    """Tags with names and values that MLflow takes."""
    return {name(key): _short(str(value), _MAX_TAG) for key, value in values.items()}


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rows as MLflow keeps a table; its columns are all keys, in the order they first come in."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {"columns": columns, "data": [[_cell(row.get(key)) for key in columns] for row in rows]}


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _cell(value: Any) -> Any:
    """JSON has no word for NaN and infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
