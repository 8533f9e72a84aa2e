"""Files of labelled series: `.ts` of the archives at timeseriesclassification.com (Bagnall et al.)."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainbus_data import DataError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Labelled:
    """Series and what each is.

    Attributes:
        series: N arrays, dimensions x steps, float32; NaN where a value is not known.
        labels: N texts, or numbers; none where the file has none.
        number: whether labels are numbers to be learned.
        name: of the file.
    """

    series: list[Array]
    labels: list[Any]
    number: bool
    name: str


def read_ts(path: str | Path) -> Labelled:
    """The series of a file.

    Raises:
        DataError: it cannot be read; with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    head: dict[str, str] = {}
    series: list[Array] = []
    labels: list[Any] = []
    begun = False
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as file:
        for number, raw in enumerate(file, 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("@"):
                word, _, rest = line[1:].partition(" ")
                head[word.lower()] = rest.strip()
                begun = begun or word.lower() == "data"
                continue
            if not begun:
                raise DataError(f"{path}, line {number}: {line[:40]!r} stands before @data")
            made, label = _row(line, head, f"{path}, line {number}")
            series.append(made)
            labels.append(label)
    if not series:
        raise DataError(f"{path} has no series: after @data there is one in each line")
    return Labelled(series, labels, _is_number(head), path.name)


def _is_number(head: dict[str, str]) -> bool:
    return head.get("targetlabel", "false").lower().startswith("true")


def _row(line: str, head: dict[str, str], where: str) -> tuple[Array, Any]:
    if head.get("timestamps", "false").lower() == "true":
        raise DataError(f"{where}: times of single values (@timeStamps true) are not read")
    parts = line.split(":")
    classes = head.get("classlabel", "false").lower().split()
    labelled = classes[:1] == ["true"] or _is_number(head)
    label: Any = parts.pop().strip() if labelled else None
    known = head.get("classlabel", "").split()[1:]
    if classes[:1] == ["true"] and known and label not in known:
        raise DataError(f"{where}: the label {label!r} is none of {', '.join(known)}")
    dimensions = []
    for part in parts:
        cells = ["nan" if cell.strip() == "?" else cell for cell in part.split(",")]
        try:
            dimensions.append(np.array(cells, np.float32))
        except ValueError:
            raise DataError(f"{where}: {part[:60]!r} are no numbers between commas") from None
    lengths = {len(each) for each in dimensions}
    if len(lengths) > 1:
        raise DataError(f"{where}: dimensions of {', '.join(map(str, sorted(lengths)))} steps")
    if label is not None and _is_number(head):
        label = float(label)
    return np.stack(dimensions), label
