"""TableData: the parts of a table as batches, and what was decided about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_tabular.layout import TableLayout
from trainbus_tabular.recipe import TableRecipe

if TYPE_CHECKING:
    from trainbus_tabular.table import Plan

#: Rows in a batch that nobody named, at most, and how many steps an epoch is to have.
_BATCH, _STEPS = 256, 20


class TableData(Container):
    """Loaders for training, validation and test of a table: `table` makes it.

    A batch is (numbers, categories, target), with weights behind them where they were asked for:
    see `TableLayout`.

    Args:
        recipe: how rows become tensors.
        train: the tensors of the training part.
        valid: those of the validation part.
        test: those of the test.
        plan: what was decided about columns and rows.
        batch_size: see `table`.
        options: of `Container`.
    """

    recipe: TableRecipe

    def __init__(
        self,
        recipe: TableRecipe,
        train: Tensors,
        valid: Tensors | None = None,
        test: Tensors | None = None,
        *,
        plan: Plan,
        batch_size: int | None = None,
        **options: Any,
    ) -> None:
        self.plan = plan
        by_rule = batch_size is None
        if batch_size is None:
            steps = len(train) // _STEPS
            batch_size = max(16, min(_BATCH, 1 << max(0, steps.bit_length() - 1)))
        super().__init__(recipe, train, valid, test, batch_size=batch_size, **options)
        self.batch_size_by_rule = by_rule
        self.train.about = self.summary()  # type: ignore[union-attr]

    @property
    def layout(self) -> TableLayout:
        """What a model has to know of the columns and the target."""
        recipe, target = self.recipe, self.target
        vocab = None if target.vocab is None else tuple(target.vocab)
        return TableLayout(
            recipe.numbers,
            recipe.categories,
            recipe.cardinalities,
            target.target,
            target.outputs,
            vocab,
        )

    @property
    def target(self) -> Any:
        """What is learned."""
        return self.recipe.target

    def encode(self, source: Any, *, strict: bool = False) -> tuple[Tensor, Tensor]:
        """Numbers and codes of rows of any source: see `TableRecipe.encode`."""
        made: tuple[Tensor, Tensor] = self.recipe.encode(source, strict=strict)
        return made

    def odd(self, source: Any) -> list[list[str]]:
        """What is odd about each row of a source."""
        return self.recipe.odd(source)

    def _again(self, **changed: Any) -> Self:
        """The same data, with some arguments changed."""
        return super()._again(plan=self.plan, **changed)

    def summary(self) -> str:
        """What was decided about rows, columns and target, and why."""
        sizes = {s: getattr(self, f"{s}_items") for s in ("train", "valid", "test")}
        counts = ", ".join(f"{s} {len(each):,}" for s, each in sizes.items() if each is not None)
        layout, recipe = self.layout, self.recipe
        lines = [f"rows      {counts}: {self.plan.split}", f"target    {self._target_text()}"]
        flags = len(recipe.scaling.flags)
        flagged = f", {flags} of them flags of missing values" if flags else ""
        lines.append(
            f"inputs    {len(layout.numbers)} numbers{flagged}; {len(layout.categories)} categories"
        )
        width = max((len(name) for name in self.plan.roles), default=0)
        for name, role in self.plan.roles.items():
            used = "" if role.is_used else "left out: "
            more = self._detail(name)
            lines.append(f"  {name:<{min(width, 30)}}  {role.role:<9} {used}{role.reason}{more}")
        lines += [f"note      {note}" for note in self.plan.notes]
        return "\n".join(lines)

    def _target_text(self) -> str:
        target = self.target
        names = ", ".join(target.names)
        if target.vocab is not None:
            some = ", ".join(map(repr, target.vocab[:6])) + (
                ", ..." if len(target.vocab) > 6 else ""
            )
            return f"{names}: {target.target}, {len(target.vocab)} of them: {some}"
        levels = "" if target.levels is None else f" {', '.join(f'{e:g}' for e in target.levels)}"
        logs = [n for n, log in zip(target.names, target.log.tolist(), strict=False) if log]
        learned = (
            f"; of {', '.join(logs)} the logarithm is learned, for its long tail" if logs else ""
        )
        return f"{names}: {target.target}{levels}{learned}"

    def _detail(self, name: str) -> str:
        """What the step of a column learned, in some words."""
        step = self.recipe.steps_by_column.get(name)
        rare = len(getattr(step, "rare", ()))
        said = f"; {rare} of them rare, and taken as one" if rare else ""
        return said + ("; some rows have none" if name in self.recipe.lacking else "")

    def __repr__(self) -> str:
        return f"TableData({len(self.train_items):,} rows of training, {self.recipe!r})"
