"""TableRecipe: from rows of any source to tensors, and back; fitted on the training part."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data import Block, DataError
from trainbus_data.recipe import Recipe
from trainbus_data.scaling import Scaling
from trainbus_data.steps import (
    Codes,
    DateParts,
    Frequency,
    Several,
    Step,
    Values,
    step_from_state,
)
from trainbus_data.tables.columns import Column, Reading, Table
from trainbus_data.tables.reader import read_table
from trainbus_tabular.aims import means_of
from trainbus_tabular.arriving import fitting
from trainbus_tabular.roles import Role
from trainbus_tabular.target_means import TargetMeans
from trainbus_tabular.targets import TableTarget

logger = logging.getLogger("trainbus")
#: Rows whose numbers are scaled together.
_ROWS = 32_768
_MAKERS: dict[str, type[Step]] = {
    "number": Values,
    "category": Codes,
    "boolean": Codes,
    "date": DateParts,
    "frequency": Frequency,
}


class Numbers(Block):
    """The numbers of a row, scaled: float32, N x columns."""

    kind = "numbers"


class Categories(Block):
    """The codes of a row: int64, N x columns, 0 for unknown or missing."""

    kind = "categories"


class Weight(Block):
    """How much a row counts: float32, N."""

    kind = "weight"


class TableRecipe(Recipe):
    """What turns rows into numbers and codes, by steps that were fitted on the training part.

    Args:
        steps: by the column that they read, numbers before categories.
        readings: how each column was read.
        scaling: of all numbers.
        target: what is learned.
        weighted: whether batches have weights behind the target.
        lacking: the columns of which some rows of training had no value.
    """

    #: What an export names for `trainbus_learner.load`: see the entry point group
    #: `trainbus.readers`.
    reader = "table"

    def __init__(
        self,
        steps: Mapping[str, Step],
        readings: Mapping[str, Reading],
        scaling: Scaling,
        target: TableTarget,
        weighted: bool = False,
        lacking: Sequence[str] = (),
    ) -> None:
        blocks: list[Block] = [Numbers(), Categories(), target]
        super().__init__([*blocks, Weight()] if weighted else blocks, inputs=2)
        self.steps_by_column = dict(steps)
        self.readings = dict(readings)
        self.scaling = scaling
        self.weighted = weighted
        self.lacking = frozenset(lacking)
        self._number_steps = {n: s for n, s in steps.items() if not s.gives_codes}
        self._code_steps = {n: s for n, s in steps.items() if isinstance(s, Codes)}
        self._noted: set[str] = set()

    @classmethod
    def fit(
        cls, train: Table, roles: Mapping[str, Role], target: TableTarget,
        weighted: bool = False, scaling: str = "quantile",
    ) -> TableRecipe:  # fmt: skip
        """The recipe that the columns of the training part, and their roles, make."""
        used = {name: role for name, role in roles.items() if role.is_used}
        made = {name: _step(role, train[name], train, target) for name, role in used.items()}
        steps = {n: s for n, s in made.items() if not s.gives_codes}
        steps |= {n: s for n, s in made.items() if s.gives_codes}
        plain = [
            n for n, (step, first) in enumerate(
                (step, first) for step in steps.values() if not step.gives_codes
                for first in _firsts(step)
            ) if isinstance(step, Several) or (isinstance(step, DateParts) and not first)
        ]  # fmt: skip
        scaling = Scaling(kind=scaling).fit(_numbers(steps, train, slice(None)), plain)
        lacking = [name for name in steps if train[name].missing.any()]
        readings = {name: train[name].reading for name in steps}
        return cls(steps, readings, scaling, target, weighted, lacking)

    @property
    def target(self) -> Any:
        """What is learned."""
        return self.blocks[2]

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers, flags of missing ones at the end."""
        names = [n for name, step in self._number_steps.items() for n in step.names(name)]
        return (*names, *(f"{names[c]} is missing" for c in self.scaling.flags))

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories."""
        return tuple(self._code_steps)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """How many codes each category has, 0 included."""
        return tuple(step.cardinality for step in self._code_steps.values())

    @property
    def origin(self) -> dict[str, str]:
        """For each name of a number the column of the table that it was made of."""
        found = {n: name for name, step in self._number_steps.items() for n in step.names(name)}
        return found | {f"{name} is missing": column for name, column in found.items()}

    # --- rows ------------------------------------------------------------------------------------

    def read(self, source: Any, strict: bool = False) -> Table:
        """The columns that the steps read, of the kinds that they had in training.

        Raises:
            DataError: a column is missing, or holds what cannot be what it was in training.
        """
        table = read_table(source, like=self.readings)
        absent = [name for name in self.steps_by_column if name not in table.columns]
        if absent:
            raise DataError(self._lacks(absent, table))
        extra = [name for name in table if name not in self.steps_by_column]
        extra = [name for name in extra if name not in {*self.target.names, *self._noted}]
        if extra:
            self._noted |= set(extra)
            logger.warning(
                "ignored %s (not used in training)", ", ".join(map(repr, extra[:8])) +
                (f" and {len(extra) - 8} others" if len(extra) > 8 else "")
            )  # fmt: skip
        columns = {
            name: fitting(name, table[name], self.readings[name], self.steps_by_column[name])
            for name in self.steps_by_column
        }
        found = Table(columns, table.name)
        if strict:
            for row, odd in enumerate(self._odd_of(found)):
                if odd:
                    raise DataError(f"row {row}: {'; '.join(odd)}")
        return found

    def _lacks(self, absent: Sequence[str], table: Table) -> str:
        inputs = len(self.numbers) + len(self.categories)
        share = sum(len(self.steps_by_column[name].names(name)) for name in absent) / max(inputs, 1)
        what = "the row lacks" if table.rows == 1 else f"{table.name} lacks"
        near = nearest(absent[0], table).rstrip(".") if len(absent) == 1 else ""
        which = f"which {100 * share:.0f}% of the inputs of the model come from"
        return (
            f"{what} {', '.join(map(repr, absent[:12]))}, {which}; give "
            f"{'it' if len(absent) == 1 else 'them'}, or None for unknown{near}"
        )

    def encode(self, source: Any, training: Any = False, *, strict: bool = False) -> Any:  # type: ignore[override]
        """Numbers float32, N x columns, and codes int64, N x columns, of rows of any source.

        Args:
            source: a dict (of one row, or of columns), a list of dicts, a frame, a path.
            training: makes no difference.
            strict: refuse rows in which something is odd.
        """
        return self.encode_table(self.read(source, strict))

    def encode_table(self, table: Table, of_training: bool = False) -> tuple[Tensor, Tensor]:
        """The same of columns that `read` gave.

        Args:
            table: the columns.
            of_training: these are the rows that the steps were fitted on: none is told its target.
        """
        # Some rows at once: what is float64 on the way would be several times what is made.
        blocks = [slice(start, start + _ROWS) for start in range(0, table.rows, _ROWS)]
        parts = [table.take(block) for block in blocks] if len(blocks) > 1 else [table]
        scaled = [
            self.scaling.encode(_numbers(self.steps_by_column, part, rows if of_training else None))
            for part, rows in zip(parts, blocks, strict=True)
        ]
        numbers = torch.cat(scaled) if len(scaled) > 1 else scaled[0]
        codes = np.zeros((table.rows, len(self._code_steps)), dtype=np.int64)
        for number, (name, step) in enumerate(self._code_steps.items()):
            codes[:, number] = step.encode(table[name])
        return numbers, torch.from_numpy(codes)

    def decode(self, numbers: Tensor, codes: Tensor) -> dict[str, list[Any]]:
        """The columns that numbers and codes stand for, as far as encoding kept them."""
        values = self.scaling.decode(numbers)
        found: dict[str, list[Any]] = {}
        start = 0
        for name, step in self._number_steps.items():
            width = len(step.names(name))
            found[name] = step.decode(values[:, start : start + width])
            start += width
        for number, (name, step) in enumerate(self._code_steps.items()):
            found[name] = step.decode(codes[:, number].numpy())
        return found

    def encode_and_look(self, source: Any) -> tuple[Tensor, Tensor, list[list[str]]]:
        """Numbers and codes, and what is odd about each row, of one reading."""
        table = self.read(source)
        return *self.encode_table(table), self._odd_of(table)

    def odd(self, source: Any) -> list[list[str]]:
        """What is odd about each row: new words, values out of range, missing ones, other types."""
        return self._odd_of(self.read(source))

    def _odd_of(self, table: Table) -> list[list[str]]:
        said: list[list[str]] = [[] for _ in range(table.rows)]
        for name, step in self.steps_by_column.items():
            column = table[name]
            for row, word in column.strange.items():
                said[row].append(f"{name}: {word!r} is no {column.kind}, and taken as missing")
            for row, value in step.odd(column).items():
                said[row].append(_unusual(name, value, step))
            if name not in self.lacking:
                for row in np.flatnonzero(column.missing):
                    if row not in column.strange:
                        said[row].append(f"{name}: it is missing, which it never was in training")
        return said

    # --- to keep ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON values from which, with `tensors`, `from_state` makes the same recipe."""
        return {
            "columns": [
                {"name": name, "reading": self.readings[name].state(), "step": step.state()}
                for name, step in self.steps_by_column.items()
            ],
            "scaling": self.scaling.options(),
            "target": self.target.options(),
            "weighted": self.weighted,
            "lacking": sorted(self.lacking),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What was learned that is numbers, by name."""
        return {f"quantiles.{name}": each for name, each in self.scaling.tensors().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Any = ()) -> TableRecipe:  # type: ignore[override]
        """The recipe that `state` and `tensors` described; without any library of frames.

        Raises:
            DataError: they describe none.
        """
        given = dict(tensors)
        try:
            columns = state["columns"]
            quantiles = {
                name.removeprefix("quantiles."): each for name, each in given.items()
                if name.startswith("quantiles.")
            }  # fmt: skip
            return cls(
                {each["name"]: step_from_state(each["step"], {}) for each in columns},
                {each["name"]: Reading.from_state(each["reading"]) for each in columns},
                Scaling.from_state(dict(state["scaling"]), quantiles),
                TableTarget.from_options(state["target"]),
                bool(state["weighted"]),
                list(state["lacking"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"this is no recipe of a table: {type(error).__name__}: {error}"
            ) from error

    def __repr__(self) -> str:
        return (
            f"TableRecipe({len(self.steps_by_column)} columns -> {len(self.numbers)} numbers, "
            f"{len(self.categories)} categories -> {self.target!r})"
        )


def _firsts(step: Step) -> list[bool]:
    """For each output of a step, whether it is the first."""
    return [number == 0 for number in range(len(step.names("")))]


def _step(role: Role, column: Column, train: Table, target: TableTarget) -> Step:
    """The step of a role, fitted on a column of the training part."""
    if role.role == "several":
        return Several(role.detail).fit(column)
    if role.role == "target_mean":
        names, values = means_of(target, train)
        return TargetMeans(targets=names).fit_to(column, values)
    return _MAKERS[role.role]().fit(column)


def _numbers(
    steps: Mapping[str, Step], table: Table, of_training: slice | None = None
) -> np.ndarray[Any, Any]:
    """What the steps of numbers give, N x columns float64.

    Args:
        steps: by column.
        table: the columns.
        of_training: which rows of the training part these are; None for others.
    """
    made = []
    for name, step in steps.items():
        known = getattr(step, "of_training", None)
        if of_training is not None and known is not None:
            made.append(known[of_training])
        elif not step.gives_codes:
            made.append(step.encode(table[name]))
    return np.concatenate(made, axis=1) if made else np.zeros((table.rows, 0))


def _unusual(name: str, value: str, step: Step) -> str:
    if isinstance(step, (Codes, Frequency, TargetMeans)):
        return f"{name}: {value!r} is new ({len(step.words)} known), and taken as unknown"
    if isinstance(step, Values):
        extent = f"{step.lowest:.6g} to {step.highest:.6g}"
        return f"{name}: {value} is out of the range of training, {extent}"
    return f"{name}: {value} is out of the range of training"
