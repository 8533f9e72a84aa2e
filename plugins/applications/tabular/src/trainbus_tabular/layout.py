"""What a model has to know of a table: its columns after encoding, and its target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from trainbus_data import DataError

TargetKind = Literal["class", "labels", "number", "numbers", "count", "ordinal", "quantiles"]
KINDS: tuple[TargetKind, ...] = get_args(TargetKind)


@dataclass(frozen=True)
class TableLayout:
    """The shape of a batch of rows, and what its target is.

    A batch is (numbers, categories, target) or (numbers, categories, target, weight):
    numbers float32, rows x `len(numbers)`, scaled, none missing; categories int64, rows x
    `len(categories)`, where 0 is unknown or missing; target int64, rows, for "class" and
    "ordinal", else float32, rows x `outputs`, of which all but "count" and "labels" are scaled, and
    those of "quantiles" are the same number, once for each level; weight
    float32, rows.

    Attributes:
        numbers: the names of the number columns after encoding, flags of missing ones at the end.
        categories: the names of the category columns.
        cardinalities: the codes of each of them, 0 included.
        target: what is learned.
        outputs: how many numbers a model gives for one row.
        vocab: the classes or labels, in the order of the outputs; None for numbers.
    """

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    cardinalities: tuple[int, ...]
    target: TargetKind
    outputs: int
    vocab: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        if self.target not in KINDS:
            raise DataError(f"target={self.target!r}: one of {', '.join(KINDS)}")
        if len(self.categories) != len(self.cardinalities):
            raise DataError(
                f"{len(self.categories)} category columns, but {len(self.cardinalities)} "
                "cardinalities"
            )

    def state(self) -> dict[str, Any]:
        """JSON values, from which `from_state` makes the same layout."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TableLayout:
        """The layout that `state` described."""
        try:
            return cls(
                **{
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in state.items()
                }
            )
        except TypeError as error:
            raise DataError(f"this is no layout of a table: {dict(state)!r:.200}") from error
