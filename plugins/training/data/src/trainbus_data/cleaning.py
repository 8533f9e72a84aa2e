"""Items to drop or to relabel, as a table says that a person has looked through."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from trainbus.errors import nearest
from trainbus_data.cells import is_missing
from trainbus_data.errors import DataError
from trainbus_data.items import Items
from trainbus_data.sources import check_columns, read_rows

logger = logging.getLogger("trainbus")
#: What may stand in the column `action`; nothing at all is "keep".
ACTIONS = ("keep", "drop", "relabel")


def cleaned(parts: dict[str, Items], table: Any) -> dict[str, Items]:
    """The items of all stages without those to drop, and with the new labels.

    Items stay in the part that they were in: whoever cleans a validation part does not bring
    items of it into training.

    Args:
        parts: the items of each stage.
        table: rows with `file`, `action` ("drop", "relabel", or nothing), and `label`, the new
            one: what `Interpretation.to_clean` gives, a list of mappings, or a CSV file.

    Raises:
        DataError: an action is unknown, or a new label is missing.
    """
    rows = read_rows(table) if not isinstance(table, list) or table else []
    if rows:
        check_columns(rows, ["file", "action"])
    places = _places(parts)
    dropped: dict[str, set[int]] = {stage: set() for stage in parts}
    labels: dict[str, dict[int, Any]] = {stage: {} for stage in parts}
    strange = []
    for number, row in enumerate(rows):
        action = _action(row, number)
        if action == "keep":
            continue
        found = places.get(str(row["file"]), [])
        if not found:
            strange.append(str(row["file"]))
        for stage, index in found:
            if action == "drop":
                dropped[stage].add(index)
            else:
                labels[stage][index] = row["label"]
    if strange:
        logger.warning(
            "clean: %d files of the table are not among the items, %s for example",
            len(strange), strange[0],
        )  # fmt: skip
    return {
        stage: items.relabelled(labels[stage]).without(dropped[stage])
        for stage, items in parts.items()
    }


def _action(row: dict[str, Any], number: int) -> str:
    given = row["action"]
    action = "keep" if is_missing(given) or not str(given).strip() else str(given).strip().lower()
    if action not in ACTIONS:
        raise DataError(
            f"clean: row {number} has the action {given!r}{nearest(action, ACTIONS)} There are "
            f"{', '.join(ACTIONS)}"
        )
    if action == "relabel" and is_missing(row.get("label")):
        raise DataError(
            f"clean: row {number}, {row['file']}, is to be relabelled, but the column 'label' has "
            "no new label"
        )
    return action


def _places(parts: dict[str, Items]) -> dict[str, list[tuple[str, int]]]:
    """Where the items of a file are, by each name that it goes by."""
    places: dict[str, list[tuple[str, int]]] = {}
    for stage, items in parts.items():
        for index, raw in enumerate(items.part(0)):
            names = {items.describe(index)}
            if isinstance(raw, (str, Path)):
                names |= {str(raw), str(Path(raw)), str(Path(raw).absolute())}
            for name in names:
                places.setdefault(name, []).append((stage, index))
    return places
