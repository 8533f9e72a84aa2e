"""Labelled series as data: `series_files` and `series_arrays`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data import Block, Categories, Category, DataError, Number, splits
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_data.recipe import Recipe, block_from_state
from trainbus_series.recipe import filled
from trainbus_series.ts_file import Labelled, read_ts

logger = logging.getLogger("trainbus")
Array = np.ndarray[Any, Any]
UNEQUAL = ("stretch", "mask")


def series_files(
    train: str | Path, test: str | Path | None = None, *, split: Any = None,
    unequal: str = "mask", batch_size: int | None = None, seed: int = 0, name: str = "",
) -> SeriesData:  # fmt: skip
    """Labelled series of `.ts` files.

    Args:
        train: the file of training.
        test: that of validation; by default a fifth of the first, with the share of each class.
        split: a function of `trainbus_data.splits`, in place of `test`.
        unequal: of series of unequal length: "mask" what is behind the end of shorter ones, or
            "stretch" them to the longest of training.
        batch_size: series in a batch of training.
        seed: of the order of training.
        name: in the names of runs; by default that of the file.
    """
    first = read_ts(train)
    second = None if test is None else read_ts(test)
    name = name or Path(train).name.partition(".")[0].removesuffix("_TRAIN")
    return _made(first, second, split, unequal, batch_size, seed, name, None)


def series_arrays(
    x: Any, y: Any, *, valid: tuple[Any, Any] | None = None, split: Any = None,
    unequal: str = "mask", number: bool | None = None, batch_size: int | None = None,
    seed: int = 0, name: str = "",
) -> SeriesData:  # fmt: skip
    """Labelled series in memory.

    Args:
        x: N x steps, N x dimensions x steps, or a list of arrays of unequal length.
        y: what each is: N labels, or numbers.
        valid: the same for validation.
        split, unequal, batch_size, seed, name: see `series_files`.
        number: whether y are numbers to be learned; by default where they have fractions.
    """
    first = _labelled(x, y, number, "x")
    second = None
    if valid is not None:
        if not isinstance(valid, (tuple, list)) or len(valid) != 2:
            raise DataError("valid=: give a pair of series and labels, (x, y)")
        second = _labelled(valid[0], valid[1], first.number, "the x of valid")
    return _made(first, second, split, unequal, batch_size, seed, name, None)


def _labelled(x: Any, y: Any, number: bool | None, what: str) -> Labelled:
    series = [one_series(each, f"series {place} of {what}") for place, each in enumerate(x)]
    labels = [each.item() if hasattr(each, "item") else each for each in y]
    if len(series) != len(labels):
        raise DataError(f"{what} has {len(series)} series, and there are {len(labels)} labels")
    if not series:
        raise DataError(f"{what} has no series")
    if number is None:
        number = all(isinstance(each, (int, float)) for each in labels) and any(
            float(each) % 1 != 0 for each in labels
        )
    return Labelled(series, labels, number, what)


def one_series(raw: Any, what: str = "the series") -> Array:
    """Dimensions x steps, float32, of one series as an array of either form.

    Raises:
        DataError: it is none.
    """
    if hasattr(raw, "detach"):
        raw = raw.detach().cpu().numpy()
    try:
        made = np.asarray(raw, np.float32)
    except (TypeError, ValueError):
        raise DataError(f"{what}: {raw!r:.60} are no numbers") from None
    made = made[None] if made.ndim == 1 else made
    if made.ndim != 2 or not made.shape[1]:
        raise DataError(f"{what} has the shape {made.shape}: steps, or dimensions x steps")
    if np.isinf(made).any():
        raise DataError(f"{what} has an infinite value")
    return made


class Values(Block):
    """Series: float32, N x dimensions x steps; 0 behind those that are shorter."""

    kind = "series values"


class Lengths(Block):
    """How many steps a series has: int64, N."""

    kind = "lengths"


class LabelledRecipe(Recipe):
    """What brings series to one length, and says what they are.

    Args:
        dimensions, length: of a series of training.
        unequal: "stretch" or "mask".
        target: what is learned.
    """

    #: What an export names for `trainbus_learner.load`.
    reader = "series_classes"

    def __init__(self, dimensions: int, length: int, unequal: str, target: Block) -> None:
        super().__init__([Values(), Lengths(), target], inputs=2)
        self.dimensions, self.length, self.unequal = dimensions, length, unequal

    @property
    def target(self) -> Any:
        """What is learned."""
        return self.blocks[2]

    def together(self, series: Sequence[Array], what: str = "series {}") -> tuple[Tensor, Tensor]:
        """N x dimensions x steps, and lengths, of series of any length.

        Raises:
            DataError: one has other dimensions.
        """
        made = torch.zeros(len(series), self.dimensions, self.length)
        lengths = torch.full((len(series),), self.length)
        for place, each in enumerate(series):
            if each.shape[0] != self.dimensions:
                raise DataError(
                    f"{what.format(place)} has {each.shape[0]} dimensions, others {self.dimensions}"
                )
            own = torch.from_numpy(np.stack([filled(one) for one in each]))
            if own.shape[1] != self.length and self.unequal == "stretch":
                own = torch.nn.functional.interpolate(
                    own[None], size=self.length, mode="linear", align_corners=True
                )[0]
            own = own[:, : self.length]
            made[place, :, : own.shape[1]] = own
            lengths[place] = own.shape[1]
        return made, lengths

    def encode_input(self, raw: Any) -> tuple[Tensor, ...]:
        """One series."""
        values, lengths = self.together([one_series(raw)], "the series")
        return values[0], lengths[0]

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "dimensions": self.dimensions, "length": self.length, "unequal": self.unequal,
            "target": self.target.state(),
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any], known: Sequence[type] = ()) -> LabelledRecipe:
        """The recipe that `state` described."""
        try:
            target = block_from_state(state["target"], known)
            return cls(state["dimensions"], state["length"], state["unequal"], target)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"this is no recipe of labelled series: {error}") from error


class SeriesData(Container):
    """Loaders of labelled series: `series_files` and `series_arrays` make it."""

    recipe: LabelledRecipe

    def __init__(self, *args: Any, notes: Sequence[str] = (), **options: Any) -> None:
        self.notes = list(notes)
        super().__init__(*args, **options)
        self.train.about = self.summary()  # type: ignore[union-attr]

    def _again(self, **changed: Any) -> Any:
        again = super()._again(**changed)
        again.notes = self.notes
        return again

    def summary(self) -> str:
        """How many series there are, how long, and of which classes."""
        recipe = self.recipe
        stores = {"train": self.train_items, "valid": self.valid_items, "test": self.test_items}
        counts = ", ".join(f"{n} {len(each):,}" for n, each in stores.items() if each is not None)
        lines = [
            f"series    {counts}",
            f"shape     {recipe.dimensions} dimensions x {recipe.length} steps",
            f"target    {recipe.target!r}",
        ]
        return "\n".join([*lines, *(f"note      {note}" for note in self.notes)])


def _made(
    first: Labelled, second: Labelled | None, split: Any, unequal: str, batch_size: int | None,
    seed: int, name: str, target: Block | None,
) -> SeriesData:  # fmt: skip
    if unequal not in UNEQUAL:
        raise DataError(f"unequal={unequal!r}: 'stretch' or 'mask'")
    if second is not None and split is not None:
        raise DataError("the second source is the validation part: leave split= out")
    for each in (first, second) if second is not None else (first,):
        bad = [place for place, label in enumerate(each.labels) if label is None or label != label]
        if bad:
            raise DataError(f"series {bad[0]} of {each.name} has no label ({len(bad)} such)")
    parts: dict[str, tuple[list[Array], list[Any]]] = {}
    if second is not None:
        parts = {"train": (first.series, first.labels), "valid": (second.series, second.labels)}
    else:
        draw = split or (splits.random(0.2) if first.number else splits.stratified(0.2))
        chosen = draw(range(len(first.series)), lambda place: first.labels[place])
        for stage, places in zip(("train", "valid", "test"), chosen, strict=False):
            if places:
                parts[stage] = (
                    [first.series[n] for n in places], [first.labels[n] for n in places]
                )  # fmt: skip
    goal = target or (Number() if first.number else Category())
    goal.setup(parts["train"][1])
    recipe, notes = _recipe(parts, unequal, goal, first.name)
    stores = {}
    for stage, (series, labels) in parts.items():
        for place, label in enumerate(labels if stage != "train" else ()):
            if problem := goal.problem(label):
                raise DataError(f"series {place} of {stage}: {problem}")
        values, lengths = recipe.together(series, "series {} of " + stage)
        stores[stage] = Tensors([values, lengths, goal.encode_all(labels)])
    for note in notes:
        logger.warning("%s", note)
    return SeriesData(
        recipe, stores["train"], stores.get("valid"), stores.get("test"), batch_size=batch_size,
        seed=seed, name=name, notes=notes,
    )  # fmt: skip


def _recipe(
    parts: Mapping[str, tuple[list[Array], list[Any]]], unequal: str, goal: Block, name: str
) -> tuple[LabelledRecipe, list[str]]:
    """The recipe of the shapes of training, and what is said of unequal ones."""
    shapes = [each.shape for each in parts["train"][0]]
    usual = max({shape[0] for shape in shapes}, key=[shape[0] for shape in shapes].count)
    lengths = [each.shape[1] for series, _ in parts.values() for each in series]
    steps = max(shape[1] for shape in shapes)
    notes = []
    if len(set(lengths)) > 1:
        how = {"stretch": f"stretched to {steps}", "mask": "masked behind their end"}[unequal]
        notes.append(f"lengths {min(lengths)} to {max(lengths)}: {how} (unequal=)")
    gaps = sum(bool(np.isnan(each).any()) for series, _ in parts.values() for each in series)
    if gaps:
        notes.append(f"{gaps:,} series have unknown values: taken as the last known one")
    if isinstance(goal, Categories):
        raise DataError("a series has one class")
    return LabelledRecipe(usual, steps, unequal, goal), notes
