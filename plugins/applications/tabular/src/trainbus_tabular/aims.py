"""The target of a table: what kind it is, by rule, and its values as a model learns them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data import DataError
from trainbus_data.cells import check_labels
from trainbus_data.leaks import some
from trainbus_data.tables.columns import Column, Table
from trainbus_data.tables.delimited import looks_like_values
from trainbus_tabular.layout import KINDS
from trainbus_tabular.targets import LEVELS, TableTarget, checked_levels

logger = logging.getLogger("trainbus")
#: More whole numbers than these are a number, fewer classes.
_FEW = 20
#: Positive numbers are learned by their logarithm where their skewness is above this.
_SKEWED = 1.5


def target_names(table: Table, target: str | Sequence[str], given: Mapping[str, str]) -> list[str]:
    """The columns of the target.

    Raises:
        DataError: one of them is none of the table.
    """
    names = [target] if isinstance(target, str) else list(target)
    if not names or len(set(names)) < len(names):
        raise DataError(f"target={target!r}: give a column, or several, each once")
    for name in names:
        if name not in table.columns:
            try:
                table[name]
            except DataError as error:
                hint = (
                    "; the first line looks like values: put a line with names in front, or read "
                    "the file and give the frame" if looks_like_values(list(table)) else ""
                )  # fmt: skip
                raise DataError(f"{error}{hint}") from None
    kinds = {given[name] for name in names if name in given}
    if kinds - set(KINDS):
        wrong = (kinds - set(KINDS)).pop()
        raise DataError(
            f"roles: {wrong!r} for the target: one of {', '.join(KINDS)}{nearest(wrong, KINDS)}"
        )
    return names


def kind_of(columns: Mapping[str, Column], given: Mapping[str, str]) -> str:
    """What kind of target columns of the training part are: one of `KINDS`.

    Raises:
        DataError: they have one value, or several columns are neither numbers nor 0 and 1.
    """
    said = {given[name] for name in columns if name in given}
    if len(columns) > 1:
        return _of_several(columns, said)
    ((name, column),) = columns.items()
    values = np.unique(column.values[~column.missing])
    if len(values) < 2:
        shown = column.shown(int(np.argmin(column.missing))) if len(values) else None
        raise DataError(
            f"the target {name!r} has one value, {shown!r}" if len(values)
            else f"the target {name!r} is empty"
        )  # fmt: skip
    if said:
        kind = said.pop()
        numeric = kind in ("number", "numbers", "count", "quantiles")
        if numeric and column.kind not in ("number", "boolean"):
            raise DataError(f"the target {name!r} holds {column.kind}s, and is no {kind}")
        if kind == "count" and (values.min() < 0 or (values != np.floor(values)).any()):
            raise DataError(
                f"the target {name!r} is no count: {values.min():g} to {values.max():g}"
            )
        return kind
    if column.kind == "date":
        raise DataError(f"the target {name!r} holds dates; give a number of days, or a class")
    if column.kind in ("text", "boolean"):
        return "class"
    if len(values) <= _FEW and (values == np.floor(values)).all():
        if len(values) > 2:
            logger.warning(
                "the target %r holds %d whole numbers, and is learned as classes; "
                "roles={%r: 'number'} says otherwise", name, len(values), name,
            )  # fmt: skip
        return "class"
    return "number"


def _of_several(columns: Mapping[str, Column], said: set[str]) -> str:
    for name, column in columns.items():
        if column.kind not in ("number", "boolean"):
            raise DataError(
                f"the target {name!r} holds {column.kind}s; several targets are numbers, or labels "
                "of 0 and 1"
            )
    flags = all(
        set(np.unique(c.values[~c.missing]).tolist()) <= {0.0, 1.0} for c in columns.values()
    )
    if "quantiles" in said:
        raise DataError("quantiles are learned of one number; several targets were given")
    if said:
        return said.pop()
    return "labels" if flags else "numbers"


def made_target(
    kind: str, columns: Mapping[str, Column], levels: Sequence[float] | None = None
) -> TableTarget:
    """The target, fitted on the training part.

    Args:
        kind: one of `KINDS`.
        columns: of the training part.
        levels: those of quantiles, where they were given.
    """
    names = list(columns)
    if levels is not None and kind != "quantiles":
        raise DataError(f"quantiles={list(levels)!r}: for one number as the target, not {kind}")
    if kind in ("class", "ordinal"):
        vocab = _classes(names[0], columns[names[0]])
        return TableTarget(kind, len(vocab), vocab, names)
    if kind == "labels":
        return TableTarget("labels", len(names), names, names)
    if kind == "count":
        return TableTarget("count", 1, names=names)
    centre, scale, log = [], [], []
    for column in columns.values():
        values = column.values[~column.missing]
        as_log = _is_skewed(values)
        learned = np.log1p(values) if as_log else values
        spread = float(learned.std())
        centre.append(float(learned.mean()))
        scale.append(spread if spread > 0 and np.isfinite(spread) else 1.0)
        log.append(as_log)
    if kind == "quantiles":
        levels = checked_levels(LEVELS if levels is None else levels)
        count = len(levels)
        return TableTarget(
            kind, count, names=names, centre=centre * count, scale=scale * count, log=log * count,
            levels=levels,
        )  # fmt: skip
    return TableTarget(kind, len(names), names=names, centre=centre, scale=scale, log=log)


def _is_skewed(values: np.ndarray[Any, Any]) -> bool:
    """Whether numbers are positive, with a tail that a logarithm takes away."""
    if len(values) < 100 or values.min() < 0:
        return False

    def skewness(of: np.ndarray[Any, Any]) -> float:
        centred = of - of.mean()
        return float((centred**3).mean() / max((centred**2).mean() ** 1.5, 1e-300))

    before = skewness(values)
    return before > _SKEWED and abs(skewness(np.log1p(values))) < before / 2


def _classes(name: str, column: Column) -> list[Any]:
    """The classes of the training part, sorted."""
    if column.kind == "text":
        counts = np.bincount(column.values[column.values >= 0], minlength=len(column.words))
        words: list[Any] = sorted(w for w, n in zip(column.words, counts, strict=True) if n)
    else:
        values = np.unique(column.values[~column.missing])
        shown = Column(column.kind, values)
        words = [shown.shown(row) for row in range(len(values))]
    if doubt := check_labels(words, f"the target {name!r}"):
        logger.warning("%s", doubt)
    return words


def encoded(target: TableTarget, table: Table, stage: str) -> Tensor:
    """The target of rows as a model learns it: see `TableLayout`.

    Raises:
        DataError: a class is not among those of training.
    """
    columns = [table[name] for name in target.names]
    if target.kind == "category":
        return torch.from_numpy(_class_codes(target, columns[0], stage))
    values = np.stack([column.values for column in columns], axis=1)
    if target.target in ("number", "numbers", "quantiles"):
        log = target.log.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(log, np.log1p(np.maximum(values, -1 + 1e-12)), values)
        values = (values - target.centre.numpy()) / target.scale.numpy()
    return torch.from_numpy(values.astype(np.float32))


def means_of(target: TableTarget, table: Table) -> tuple[list[str], np.ndarray[Any, Any]]:
    """What a category is encoded by: names and values of the target, N x values float64.

    Of classes each but the first is a share of rows; of numbers it is what is learned of them.
    """
    values = encoded(target, table, "training").numpy()
    if target.kind != "category":
        values = values.reshape(len(values), -1).astype(np.float64)
        values = values[:, : len(target.names)]  # of quantiles all columns are one number
        return (target.names if values.shape[1] > 1 else [""]), values
    vocab = list(map(str, target.vocab or ()))
    if target.target == "ordinal":
        return [""], values[:, None].astype(np.float64)
    shares = (values[:, None] == np.arange(1, len(vocab))).astype(np.float64)
    return vocab[1:], shares


def _class_codes(target: TableTarget, column: Column, stage: str) -> np.ndarray[Any, Any]:
    vocab = [str(word) for word in target.vocab or ()]
    places = {word: n for n, word in enumerate(vocab)}
    if column.kind == "text":
        words, codes = list(column.words), column.values
    else:
        values, codes = np.unique(column.values, return_inverse=True)
        shown = Column(column.kind, values)
        words = [str(shown.shown(row)) for row in range(len(values))]
    table = np.array(
        [places.get(word, _almost(word, places)) for word in words] or [0], dtype=np.int64
    )
    found = table[codes]
    if (found < 0).any():
        rows = np.flatnonzero(found < 0)
        word = words[codes[rows[0]]]
        raise DataError(
            f"the target of {stage} has {word!r} (row {some(rows)}), which is not among the "
            f"classes of training: {', '.join(map(repr, vocab[:8]))}{nearest(word, vocab)}"
        )
    return found  # type: ignore[no-any-return]


def _almost(word: str, places: Mapping[str, int]) -> int:
    """The class that a word is but for a full stop at its end, as in the test part of old files."""
    return places.get(word.rstrip("."), -1)


def without_missing(table: Table, names: Sequence[str], stage: str) -> Table:
    """The rows that have a target; how many have none is said."""
    lacking = np.zeros(table.rows, dtype=bool)
    for name in names:
        lacking |= table[name].missing
        if table[name].kind == "number":
            lacking |= ~np.isfinite(table[name].values)
    if not lacking.any():
        return table
    rows = np.flatnonzero(lacking)
    if len(rows) == table.rows:
        raise DataError(f"no row of {stage} has a target: {', '.join(map(repr, names))}")
    logger.warning(
        "%d rows of %s have no target (rows %s): they are left out", len(rows), stage, some(rows)
    )
    return table.take(~lacking)
