"""`table`: from any source of rows to data that a learner takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainbus_data import DataError, leaks
from trainbus_data.items import Tensors
from trainbus_data.tables.columns import Column, Table
from trainbus_data.tables.reader import read_table
from trainbus_tabular.aims import encoded, kind_of, made_target, target_names, without_missing
from trainbus_tabular.data import TableData
from trainbus_tabular.parts import split_rows
from trainbus_tabular.recipe import TableRecipe
from trainbus_tabular.roles import Role, roles_of

logger = logging.getLogger("trainbus")
#: More columns than these are refused: a network for them would not fit.
_MOST_COLUMNS = 50_000
_HUGE = 1e15


@dataclass
class Plan:
    """What was decided on the way, for `summary`.

    Attributes:
        roles: of the columns.
        split: how the parts were chosen.
        notes: what was found odd.
        kind: of the target.
    """

    roles: dict[str, Role] = field(default_factory=dict)
    split: str = ""
    notes: list[str] = field(default_factory=list)
    kind: str = ""

    def say(self, note: str) -> None:
        """Say it once, and keep it for the summary."""
        self.notes.append(note)
        logger.warning("%s", note)


def table(
    source: Any,
    target: str | Sequence[str],
    *,
    valid: Any = None,
    split: Any = None,
    time: str | None = None,
    weight: str | None = None,
    roles: Mapping[str, str] | None = None,
    scaling: str = "quantile",
    quantiles: Sequence[float] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    name: str = "",
) -> TableData:
    """Rows of a table, to learn one column or several from the others.

    Args:
        source: the path of a CSV file (also packed by gzip) or Parquet file, a frame of any
            library, a dict of columns, or a list of dicts.
        target: the column that is learned, or several: numbers, or labels of 0 and 1.
        valid: a second source, the validation part.
        split: a function of `trainbus_data.splits`, the fraction of validation, or the column that
            says the part of a row; by default the last fifth by time where `time` is given, else a
            fifth at random, with the share of each class.
        time: the column of the time of a row.
        weight: the column that says how much a row counts.
        roles: what columns are, where the rules are wrong: "number", "category", "boolean", "date",
            "several", "skip"; of a category with many words "frequency", how often training has
            them, or "target_mean", what the target is in the mean with them; or for the target one
            of "class", "ordinal", "number", "count", "quantiles".
        scaling: of numbers: "quantile", to a normal distribution; "robust", by median and
            quartiles, with tails that are bent.
        quantiles: the levels that are learned of a number, between 0 and 1, in place of its mean.
        batch_size: rows in a batch of training; 256, or fewer for few rows.
        seed: of the order of training.
        name: in the names of runs; by default the file's.

    Raises:
        DataError: something of it cannot be; the message says what, where, and what would be right.
    """
    of_target = {} if quantiles is None or not isinstance(target, str) else {target: "quantiles"}
    given = of_target | dict(roles or {})
    whole = read_table(source)
    if not whole.rows:
        raise DataError(f"{whole.name} has no rows")
    if len(whole) > _MOST_COLUMNS:
        gigabytes = len(whole) * 48 * 16 * 4 * 4 / 1e9
        raise DataError(
            f"{len(whole):,} columns: embeddings would take {gigabytes:.0f} GB in training; choose "
            "columns, or make fewer of them"
        )
    names = target_names(whole, target, given)
    _check_named(whole, names, time, weight, split)
    plan = Plan()
    whole = without_missing(whole, names, "the table")
    if whole.rows == 1:
        raise DataError("the training part has 1 row: there is nothing to learn from")
    parts = _parts(whole, valid, split, time, names, given, plan)
    train = parts["train"]
    if train.rows < 2:
        raise DataError(f"the training part has {train.rows} row{'s' * (train.rows != 1)}")
    aimed = {each: train[each] for each in names}
    plan.kind = kind_of(aimed, given)
    _check_classes(aimed, plan, parts)
    aim = made_target(plan.kind, aimed, quantiles)
    features = _features(train, names, weight, split)
    _say_what_is_not_finite(features, plan)
    leaking = _leaks(features, aim, train, given)
    columns = {name: role for name, role in given.items() if name not in names}
    plan.roles = roles_of(features, columns, {k: v for k, v in leaking.items() if k not in columns})
    _say(features, plan, parts, time, split is None and valid is None, leaking)
    recipe = TableRecipe.fit(train, plan.roles, aim, weight is not None, scaling)
    if not recipe.steps_by_column:
        raise DataError(
            "no column is left to learn from: "
            + "; ".join(f"{name!r}: {role.reason}" for name, role in plan.roles.items())
        )
    stores = {
        stage: Tensors(_tensors(recipe, part, weight, stage)) for stage, part in parts.items()
    }
    label = name or (Path(source).name.partition(".")[0] if isinstance(source, (str, Path)) else "")
    return TableData(
        recipe, stores["train"], stores.get("valid"), stores.get("test"),
        plan=plan, batch_size=batch_size, seed=seed, name=label,
    )  # fmt: skip


def _check_named(whole: Table, names: Sequence[str], time: Any, weight: Any, split: Any) -> None:
    for what, column in (("time", time), ("weight", weight)):
        if column is None:
            continue
        if not isinstance(column, str):
            raise DataError(f"{what}={column!r:.60}: give the name of a column")
        if column in names:
            raise DataError(f"{what}={column!r} is the target")
        whole[column]  # an error with the nearest name
    if weight is not None:
        values = whole[weight]
        bad = (
            values.missing | (values.values < 0) if values.kind == "number"
            else np.ones(whole.rows, dtype=bool)
        )  # fmt: skip
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"weight={weight!r}: {values.shown(row)!r} in row {row}; a weight is a "
                "number, 0 or more"
            )


def _parts(
    whole: Table, valid: Any, split: Any, time: str | None, names: Sequence[str],
    given: Mapping[str, str], plan: Plan,
) -> dict[str, Table]:  # fmt: skip
    """The rows of each part."""
    if valid is not None:
        if split is not None:
            raise DataError("valid= is the validation part: leave split= out")
        other = read_table(valid, like={name: column.reading for name, column in whole.items()})
        absent = [name for name in whole if name not in other.columns]
        if absent:
            raise DataError(f"valid={other.name}: it lacks {', '.join(map(repr, absent[:8]))}")
        plan.split = f"the second source, {other.name}"
        return {"train": whole, "valid": without_missing(other, names, "validation")}
    kind = given.get(names[0]) if len(names) == 1 else "numbers"
    column = whole[names[0]]
    distinct = len(np.unique(column.values))
    is_class = kind in ("class", "ordinal") or (
        kind is None and (column.kind in ("text", "boolean") or distinct <= 20)
    )
    indices, plan.split = split_rows(whole, split, time, names, is_class)
    for stage, rows in zip(("train", "valid", "test"), indices, strict=False):
        if not len(rows) and stage != "valid":
            raise DataError(f"the {stage} part is empty: the split puts no row into it")
    stages = zip(("train", "valid", "test"), indices, strict=False)
    return {stage: whole.take(rows) for stage, rows in stages if len(rows)}


def _check_classes(aimed: Mapping[str, Column], plan: Plan, parts: Mapping[str, Table]) -> None:
    """Say which classes have a single row."""
    if plan.kind not in ("class", "ordinal"):
        return
    ((name, column),) = aimed.items()
    values, counts = np.unique(column.values, return_counts=True)
    shown = Column(column.kind, values, column.words)
    once = [repr(shown.shown(n)) for n in np.flatnonzero(counts == 1)]
    if once:
        plan.say(
            f"the class {', '.join(once[:6])} of {name!r} has one row in training: it cannot be "
            "in both parts"
        )


def _features(
    train: Table, names: Sequence[str], weight: str | None, split: Any
) -> dict[str, Column]:
    """The columns that are neither target, nor weight, nor say the part of a row."""
    out = {*names, weight, split if isinstance(split, str) else None}
    found = {name: column for name, column in train.items() if name not in out}
    if not found:
        raise DataError(f"{train.name} has no column but the target")
    return found


def _say_what_is_not_finite(features: Mapping[str, Column], plan: Plan) -> None:
    for name, column in features.items():
        if column.kind == "number":
            rows = np.flatnonzero(np.isinf(column.values))
            if len(rows):
                plan.say(
                    f"the column {name!r} has inf in {len(rows)} rows of training "
                    f"({leaks.some(rows)}): taken as missing; replace by None"
                )
            huge = np.flatnonzero(np.isfinite(column.values) & (np.abs(column.values) > _HUGE))
            if 0 < len(huge) < 0.01 * len(column):
                plan.say(
                    f"the column {name!r} has {column.values[huge[0]]:g} in row {huge[0]} of "
                    "training: is that a number, or a word for missing?"
                )
        elif column.kind == "date" and column.problem:
            raise DataError(
                f"{name!r} {column.problem}: give all in one zone, or roles={{{name!r}: 'skip'}}"
            )


def _leaks(
    features: Mapping[str, Column], aim: Any, train: Table, given: Mapping[str, str]
) -> dict[str, str]:
    """The columns that tell the target, with how."""
    if aim.kind == "categories" or len(aim.names) > 1:
        return {}
    is_class = aim.kind == "category"
    wanted = encoded(aim, train, "training").numpy() if is_class else train[aim.names[0]].values
    looked = {name: column for name, column in features.items() if given.get(name) != "skip"}
    return leaks.telling(looked, wanted, is_class)


def _say(
    features: Mapping[str, Column], plan: Plan, parts: Mapping[str, Table], time: str | None,
    by_default: bool, leaking: Mapping[str, str],
) -> None:  # fmt: skip
    """Say what may flatter, once each."""
    for name, how in leaking.items():
        if plan.roles[name].role == "leak":
            plan.say(
                f"{name!r} is left out as a leak: {how}; if it is known when you predict: "
                f"roles={{{name!r}: {_usual(features[name])!r}}}"
            )
    left = {n: r for n, r in plan.roles.items() if r.role in ("id", "text")}
    if left:
        some = "; ".join(f"{n!r}: {r.reason}" for n, r in list(left.items())[:6])
        plan.say(f"left out: {some} (roles={{...: 'category'}} keeps a column)")
    if time is None and by_default:
        for name, column in features.items():
            if column.kind == "date" and leaks.orders_rows(column):
                plan.say(
                    f"validation is random though {name!r} orders the rows in time; time={name!r} "
                    "splits by it"
                )
    if "valid" in parts:
        rows = leaks.same_rows(parts["train"], parts["valid"])
        if len(rows):
            plan.say(
                f"{len(rows)} rows of validation are also in training (row {leaks.some(rows)} of "
                "validation): measures may flatter"
            )
    for name, column in features.items():
        if plan.split.startswith("drawn") and plan.roles[name].role in ("id", "category"):
            _say_groups(name, column, parts, plan)


def _usual(column: Column) -> str:
    return {"text": "category"}.get(column.kind, column.kind)


def _say_groups(name: str, column: Column, parts: Mapping[str, Table], plan: Plan) -> None:
    """Say that a column called an id has groups of which rows are in both parts."""
    lowered = name.lower()
    if (
        not lowered.endswith(("id", "_key", "group", "patient", "subject", "user"))
        or "valid" not in parts
    ):
        return
    both = np.intersect1d(column.values, parts["valid"][name].values)
    if len(both) > 0.5 * len(np.unique(parts["valid"][name].values)) and len(column) > 2 * len(
        both
    ):
        plan.say(
            f"rows of the same {name!r} are in training and in validation ({len(both):,} of them): "
            f"split=splits.by_group({name!r}) keeps them apart"
        )


def _tensors(
    recipe: TableRecipe, part: Table, weight: str | None, stage: str
) -> list[torch.Tensor]:
    """What batches are made of: numbers, codes, target, and weights."""
    numbers, codes = recipe.encode_table(recipe.read(_only(part, recipe)), stage == "train")
    made = [numbers, codes, encoded(recipe.target, part, stage)]
    if weight is not None:
        made.append(torch.from_numpy(part[weight].values.astype(np.float32)))
    return made


def _only(part: Table, recipe: TableRecipe) -> Table:
    """The columns that the recipe reads, so that no other is called ignored."""
    return Table({name: part[name] for name in recipe.steps_by_column}, part.name)
