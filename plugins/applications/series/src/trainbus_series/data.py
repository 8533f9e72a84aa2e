"""ForecastData: loaders of windows of series, each one gather; `series_table` makes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus_data import WindowLoader
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_series.panel import Panel
from trainbus_series.recipe import Scales, Seen, SeriesRecipe

Array = np.ndarray[Any, Any]
#: Steps that an epoch is to have, and windows of a batch.
_STEPS, _LEAST, _MOST = 200, 32, 512


class Windows(Tensors):
    """The windows of a part: where they begin, and whose they are.

    Args:
        starts: N, in the steps of `seen`.
        owners: N, the number of the series.
        about: S x 3 float64: centre, scale and seasonal difference of each series.
    """

    def __init__(self, starts: Tensor, owners: Tensor, about: Tensor) -> None:
        super().__init__([starts, owners])
        self.about = about

    def joined(self, other: Any) -> Windows:
        """These windows, and then the others."""
        starts, owners = (torch.cat(both) for both in zip(self.parts, other.parts, strict=True))
        return Windows(starts, owners, self.about)

    def of(self, indices: Any) -> Windows:
        """These of them."""
        starts, owners = (part[torch.as_tensor(indices)] for part in self.parts)
        return Windows(starts, owners, self.about)


class ForecastLoader(WindowLoader):
    """Batches (history, ahead, static, wanted, about) of windows.

    Args:
        windows: of the part.
        seen: of all series.
        lookback, horizon: steps.
        kinds: of the parts.
        options: of `MemoryLoader`.
    """

    def __init__(
        self, windows: Windows, seen: Seen, lookback: int, horizon: int, kinds: tuple[str, ...],
        **options: Any,
    ) -> None:  # fmt: skip
        whole = lookback + horizon
        super().__init__(
            [seen.history, seen.ahead, seen.wanted], kinds, windows.parts[0],
            [(0, lookback), (0, whole), (lookback, whole)], **options,
        )  # fmt: skip
        self.dataset = windows
        self._static = seen.static
        #: What the plugin `series` logs.
        self.about = ""

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """The parts of these windows."""
        history, ahead, wanted = super().taken(rows)
        owners = self.dataset.parts[1][rows]
        spread = history[..., 0].std(1, correction=0).double()
        about = torch.cat([self.dataset.about[owners], spread[:, None]], 1)  # type: ignore[attr-defined]
        return [history, ahead, self._static[owners], wanted, about]

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self.one_by_one(skip)


class ForecastData(Container):
    """Loaders of windows of series, and the recipe that they follow.

    Args:
        recipe: fitted to the training part.
        panel: the series.
        values: T, transformed, in their order.
        seen: of all steps.
        parts: the windows of "train", and of "valid" and "test" if there are any.
        bounds: where each part ends in each series.
        how: how that was found.
        statics: the row of each series that says what is static.
        padded: unknown steps in front of each series.
        options: of `Container`.
    """

    recipe: SeriesRecipe

    def __init__(
        self, recipe: SeriesRecipe, panel: Panel, values: Array, seen: Seen,
        parts: dict[str, Windows], bounds: Array, how: str, statics: Array, padded: int = 0,
        batch_size: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.panel, self.values, self.seen, self.bounds = panel, values, seen, bounds
        self.how, self.statics, self.padded = how, statics, padded
        self._parts, self._given = parts, options
        by_rule = batch_size is None
        if batch_size is None:
            count = len(parts["train"])
            batch_size = min(_MOST, max(_LEAST, 1 << max(0, (count // _STEPS).bit_length() - 1)))
        super().__init__(
            recipe, parts["train"], parts.get("valid"), parts.get("test"), batch_size=batch_size,
            **options,
        )  # fmt: skip
        self.batch_size_by_rule = by_rule
        self.train.about = self.summary()  # type: ignore[union-attr]

    @property
    def scales(self) -> Scales:
        """Of the series of this panel."""
        return self.recipe.scales

    @property
    def notes(self) -> list[str]:
        """What was found and done when the table was read."""
        return self.panel.notes

    def _loader(
        self, store: Any, stage: str, drop_last: bool = False, weights: Tensor | None = None
    ) -> Any:
        training = stage == "train"
        return ForecastLoader(
            store, self.seen, self.recipe.lookback, self.recipe.horizon, self.kinds,
            batch_size=self.batch_size if training else max(self.batch_size, 256),
            shuffle=training, drop_last=drop_last, seed=self._given.get("seed", 0),
            blocks=self.blocks,
        )  # fmt: skip

    def part(self, stage: str, indices: Sequence[int]) -> Any:
        """Windows of a stage, in this order, as in validation."""
        store: Any = self.items(stage)
        return self._loader(store.of(indices), "predict")

    def describe(self, stage: str, index: int) -> str:
        """The series of a window, and when its forecast begins."""
        store: Any = self.items(stage)
        start, owner = (int(part[index]) for part in store.parts)
        begin = int(self.panel.starts[owner]) + self.padded * (owner + 1)
        step = start + self.recipe.lookback - begin
        when = self.panel.shown(int(self.panel.times(owner, 1, step)[0]))
        name = self.panel.names[owner]
        return f"{name}, from {when}" if name else f"from {when}"

    def _again(self, **changed: Any) -> Self:
        given = {
            "batch_size": None if self.batch_size_by_rule else self.batch_size, **self._given,
            **{name: each for name, each in changed.items() if name not in STAGES},
        }  # fmt: skip
        parts = {**self._parts, **{n: each for n, each in changed.items() if n in STAGES}}
        return type(self)(
            self.recipe, self.panel, self.values, self.seen,
            {name: each for name, each in parts.items() if each is not None}, self.bounds,
            self.how, self.statics, self.padded, **given,
        )  # fmt: skip

    def summary(self) -> str:
        """Series, frequency, parts and windows, covariates, and what was said."""
        recipe, panel = self.recipe, self.panel
        first = panel.shown(int(panel.firsts.min()))
        covariates = {"past": recipe.past.names, "static": recipe.static.names,
                      "future": [*recipe.future.names, *recipe.calendar]}  # fmt: skip
        lines = [
            f"series    {len(panel.names):,} of {panel.counts.min():,} to {panel.counts.max():,} "
            f"steps of {recipe.frequency}, from {first} on",
            f"season    {recipe.season} steps",
            f"window    {recipe.lookback} steps are looked back at, {recipe.horizon} are forecast",
            f"split     {self.how}",
        ]
        sizes = np.diff(self.bounds, axis=1, prepend=0)
        for place, (stage, part) in enumerate(self._parts.items()):
            some = len(np.unique(part.parts[1].numpy()))
            without = len(panel.names) - some
            lines.append(
                f"{stage:<9} {len(part):,} windows, of {int(sizes[:, place].sum()):,} steps"
                + (f"; {without:,} series have none" if without else "")
            )
        lines += [f"{kind:<9} {', '.join(names)}" for kind, names in covariates.items() if names]
        return "\n".join([*lines, *(f"note      {note}" for note in self.notes)])

    def __repr__(self) -> str:
        sizes = ", ".join(f"{stage} {len(part):,}" for stage, part in self._parts.items())
        return f"ForecastData({sizes} windows, {self.recipe!r})"


STAGES = ("train", "valid", "test")
