"""`text_table`: from any source of rows to texts that a learner takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainbus_data import Block, Categories, Category, DataError, splits
from trainbus_data.tables.columns import Column, Reading, Table
from trainbus_data.tables.reader import read_table
from trainbus_text.data import Part, Plan, TextData
from trainbus_text.recipe import joined
from trainbus_text.targets import ScaledNumber

logger = logging.getLogger("trainbus")
KINDS = ("class", "labels", "number")
#: More whole numbers than these are a number, fewer classes.
_FEW = 20


def text_table(
    source: Any,
    text: str | Sequence[str],
    target: str | Sequence[str],
    *,
    valid: Any = None,
    split: Any = None,
    tokens: Any = None,
    kind: str | None = None,
    delimiter: str | None = None,
    max_length: int | None = None,
    head: int | None = None,
    batch_size: int | None = None,
    batch_tokens: int | None = None,
    seed: int = 0,
    name: str = "",
) -> TextData:
    """Texts of a table, and what is to be learned of each.

    Args:
        source: the path of a CSV file (also packed by gzip) or Parquet file, a frame of any
            library, a dict of columns, or a list of dicts.
        text: the column of the text; of several, as of pairs, the texts are joined.
        target: the column that is learned; or several, of numbers, or of 0 and 1 for a label each.
        valid: a second source, the validation part.
        split: a function of `trainbus_data.splits`, the fraction of validation, or the column that
            says the part of a row; by default a fifth at random, with the share of each class.
        tokens: what texts are made of, see `trainbus_text.tokens`: "ngrams", "words", "bpe:8000",
            "characters", the path of a tokenizer.json, ...; by default what suits the network.
        kind: of the target, where the rules are wrong: "class", "labels" or "number".
        delimiter: what separates several labels in one cell.
        max_length: tokens of a text; of longer ones the middle is cut out.
        head: how many tokens of the beginning of a cut text are kept; a quarter by default.
        batch_size: texts in a batch of training; 64, or fewer for few texts.
        batch_tokens: in its place the most tokens of a batch, padding included.
        seed: of the order of training.
        name: in the names of runs; by default the file's.

    Raises:
        DataError: something of it cannot be; the message says what, where, and what would be right.
    """
    texts = _listed(text, "text")
    targets = _listed(target, "target")
    if both := set(texts) & set(targets):
        raise DataError(f"{both.pop()!r} is both text and target")
    like = {each: Reading("text") for each in texts}
    whole = read_table(source, like=like)
    _check(whole, texts, targets)
    plan = Plan(texts)
    whole = _with_target(whole, targets, plan, "the table")
    parts = _parts(whole, valid, split, targets, kind, like, plan, texts)
    if parts["train"].rows < 2:
        raise DataError(f"the training part has {parts['train'].rows} rows")
    goal = _target_of(parts["train"], targets, kind, delimiter)
    made: dict[str, Part] = {
        stage: (_texts(part, texts, stage, plan), _values(part, targets, goal))
        for stage, part in parts.items()
    }
    goal.setup(made["train"][1])
    _check_labels(goal, made)
    _say_duplicates(made, plan)
    label = name or (Path(source).name.partition(".")[0] if isinstance(source, (str, Path)) else "")
    return TextData(
        made, goal, tokens, plan=plan, max_length=max_length, head=head, batch_size=batch_size,
        batch_tokens=batch_tokens, seed=seed, name=label,
    )  # fmt: skip


def _listed(names: Any, what: str) -> list[str]:
    given = [names] if isinstance(names, str) else list(names)
    if not given or not all(isinstance(each, str) for each in given):
        raise DataError(f"{what}={names!r:.60}: give the name of a column, or several")
    return given


def _check(table: Table, texts: Sequence[str], targets: Sequence[str]) -> None:
    if len(table) == 1 and len(texts) + len(targets) > 1:
        only = next(iter(table))
        raise DataError(
            f"{table.name} has one column, {only!r:.60}: a text and a target are two. Is the "
            "delimiter one that is not known (, ; tab |)?"
        )
    for name in (*texts, *targets):
        table[name]  # an error with the nearest name
    if not table.rows:
        raise DataError(f"{table.name} has no rows")
    for name in texts:
        column = table[name]
        if column.kind != "text":
            raise DataError(
                f"the column {name!r} holds {column.kind}s, {column.shown(0)!r} for example, and "
                "no texts"
            )
        if column.missing.all():
            raise DataError(f"the column {name!r} has no text in any row")


def _with_target(table: Table, targets: Sequence[str], plan: Plan, what: str) -> Table:
    """The rows that have a target."""
    lacking = np.zeros(table.rows, bool)
    for name in targets:
        lacking |= table[name].missing
    rows = np.flatnonzero(lacking)
    if len(rows):
        some = ", ".join(map(str, rows[:4])) + (", ..." if len(rows) > 4 else "")
        _say(plan, f"{len(rows):,} rows of {what} have no target (rows {some}): left out")
        table = table.take(np.flatnonzero(~lacking))
    if not table.rows:
        raise DataError(f"no row of {what} has a target")
    return table


def _parts(
    whole: Table, valid: Any, split: Any, targets: Sequence[str], kind: str | None,
    like: Mapping[str, Reading], plan: Plan, texts: Sequence[str],
) -> dict[str, Table]:  # fmt: skip
    if valid is not None:
        if split is not None:
            raise DataError("valid= is the validation part: leave split= out")
        readings = {each: whole[each].reading for each in targets}
        other = read_table(valid, like={**like, **readings})
        _check(other, texts, targets)
        plan.split = f"the second source, {other.name}"
        return {"train": whole, "valid": _with_target(other, targets, plan, "validation")}
    labels = list(zip(*(whole[name].texts() for name in targets), strict=True))
    if isinstance(split, str):
        cells = [{split: each} for each in whole[split].texts()]
        parts = splits.by_column(split)(cells, lambda cell: None)
        plan.split = f"as the column {split!r} says"
    elif split is None or (isinstance(split, float) and 0 < split < 1):
        fraction = 0.2 if split is None else split
        by_class = len(targets) == 1 and kind in (None, "class") and _is_class(whole[targets[0]])
        draw = splits.stratified(fraction) if by_class else splits.random(fraction)
        parts = draw(range(whole.rows), lambda row: labels[row])
        plan.split = f"{fraction:.0%} at random" + ", with the share of each class" * by_class
    elif callable(split):
        rows = [whole.row(place) for place in range(whole.rows)]
        parts = split(rows, lambda row: row[targets[0]])
        plan.split = "as split= says"
    else:
        raise DataError(
            f"split={split!r:.60}: a function of trainbus_data.splits, a fraction between 0 and 1, "
            "or the name of a column that says the part of a row"
        )
    stages = zip(("train", "valid", "test"), parts, strict=False)
    return {stage: whole.take(np.asarray(rows, np.int64)) for stage, rows in stages if len(rows)}


def _is_class(column: Column) -> bool:
    if column.kind in ("text", "boolean"):
        return True
    values = np.unique(column.values)
    return column.kind == "number" and len(values) <= _FEW and bool((values % 1 == 0).all())


def _target_of(
    train: Table, targets: Sequence[str], kind: str | None, delimiter: str | None
) -> Block:
    """The block of the target, by rule."""
    if kind is not None and kind not in KINDS:
        raise DataError(f"kind={kind!r}: one of {', '.join(KINDS)}")
    columns = [train[name] for name in targets]
    if delimiter is not None or (kind == "labels" and len(targets) == 1):
        return Categories(delimiter=delimiter)
    if len(targets) == 1:
        if kind == "class" or (kind is None and _is_class(columns[0])):
            return Category()
    elif kind != "number" and all(set(np.unique(c.values)) <= {0, 1} for c in columns):
        return Categories(list(targets))
    for name, column in zip(targets, columns, strict=True):
        if column.kind not in ("number", "boolean"):
            raise DataError(
                f"the target {name!r} holds {column.kind}s, {column.shown(0)!r} for example, and "
                "no numbers"
            )
    return ScaledNumber(len(targets), names=targets)


def _texts(part: Table, names: Sequence[str], stage: str, plan: Plan) -> list[str]:
    columns = [part[name].texts() for name in names]
    lacking = [row for row, texts in enumerate(zip(*columns, strict=True)) if None in texts]
    if lacking:
        some = ", ".join(map(str, lacking[:4])) + (", ..." if len(lacking) > 4 else "")
        _say(
            plan,
            f"rows {some} of {stage} have no text: they are read as empty; {len(lacking):,} of "
            f"{part.rows:,}",
        )
    return [joined(texts) for texts in zip(*columns, strict=True)]


def _values(part: Table, targets: Sequence[str], goal: Block) -> list[Any]:
    columns = [part[name] for name in targets]
    if isinstance(goal, Categories) and goal.given:
        return [
            [name for name, value in zip(targets, values, strict=True) if value == 1]
            for values in zip(*(column.values for column in columns), strict=True)
        ]
    if isinstance(goal, ScaledNumber):
        return list(zip(*(column.values.tolist() for column in columns), strict=True))
    return [columns[0].shown(row) for row in range(part.rows)]


def _check_labels(goal: Block, made: Mapping[str, Part]) -> None:
    """Refuse labels that training did not have, with their row."""
    for stage, (_, values) in made.items():
        for row, value in enumerate(values if stage != "train" else ()):
            if problem := goal.problem(value):
                raise DataError(f"row {row} of {stage}: {problem}")


def _say_duplicates(made: Mapping[str, Part], plan: Plan) -> None:
    known = {each.strip() for each in made["train"][0]} - {""}
    for stage in ("valid", "test"):
        again = [each for each in made.get(stage, ([], []))[0] if each.strip() in known]
        if again:
            _say(
                plan,
                f"{len(again):,} texts of {stage} are in training ({again[0]!r:.40}): measures may "
                "flatter",
            )


def _say(plan: Plan, note: str) -> None:
    """Say it once, and keep it for the summary."""
    plan.notes.append(note)
    logger.warning("%s", note)
