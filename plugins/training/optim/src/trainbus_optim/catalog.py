"""What there is, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainbus.errors import UsageError, nearest
from trainbus_optim import classic, modern, sharpness
from trainbus_optim.recipe import READY, Recipe

assert classic and modern and sharpness


@dataclass(frozen=True)
class Entry:
    """A ready optimizer.

    Args:
        name: of the function.
        summary: the first line of its description.
        blocks: what it is made of.
        lists: what it keeps, in copies of the parameters; None where it depends on the shape.
        kernel: fused or foreach, on the CPU.
    """

    name: str
    summary: str
    blocks: tuple[str, ...]
    lists: float | None
    kernel: str


class Catalog(list[Entry]):
    """The entries; printed, a table."""

    def __str__(self) -> str:
        rows = [("name", "keeps", "kernel", "what it is")]
        for each in self:
            kept = "by shape" if each.lists is None else f"{each.lists:g} x"
            rows.append((each.name, kept, each.kernel, each.summary))
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = []
        for *cells, last in rows:
            padded = [text.ljust(width) for text, width in zip(cells, widths, strict=True)]
            lines.append("  ".join([*padded, last]))
        return "\n".join(lines)


def optimizers() -> Catalog:
    """The ready optimizers, with what they keep for each parameter."""
    return Catalog(_entry(name) for name in READY)


def _entry(name: str) -> Entry:
    from trainbus_optim.fused import recognised

    recipe: Recipe = READY[name]()
    program = recipe.traced(recipe.defaults, 1)[0]
    by_shape = any(callable(each.start) for each in program.kept.values())
    lists = None if by_shape else sum(each.elementwise for each in program.kept.values())
    summary = (READY[name].__doc__ or "").strip().split("\n")[0]
    kernel = "fused" if recognised(recipe)[0] is not None else "foreach"
    return Entry(name, summary, tuple(each.name for each in recipe.blocks), lists, kernel)


def recipe_of(name: str, **options: Any) -> Recipe:
    """The recipe of a name, with values. Raises `UsageError` for an unknown one."""
    if name not in READY:
        raise UsageError(f"there is no optimizer {name!r}{nearest(name, READY)}")
    return READY[name](**options)  # type: ignore[no-any-return]
