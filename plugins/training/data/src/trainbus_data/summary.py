"""One sample followed through every step, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from trainbus_data.errors import DataError, message
from trainbus_data.item_loader import ItemLoader
from trainbus_data.items import Items, Tensors, where
from trainbus_data.memory_loader import MemoryLoader
from trainbus_data.recipe import Recipe, shape_text, type_text
from trainbus_data.transforms import transform_name


def summary_of(
    recipe: Recipe, stores: Mapping[str, Items | Tensors | None], loader: ItemLoader | MemoryLoader
) -> str:
    """What happens to a sample: see `Data.summary`.

    Args:
        recipe: blocks and transforms.
        stores: the items of each stage.
        loader: of training.
    """
    shown = ", ".join(f"{stage} {len(items)}" for stage, items in stores.items() if items)
    lines = [f"items: {shown}", f"blocks, {recipe.inputs} of them inputs:"]
    lines += [f"  {block!r}" for block in recipe.blocks]
    store = stores["train"]
    assert store is not None
    lines.append(f"one sample: {where(store, 0, 'train')}")
    try:
        if isinstance(store, Items):
            for line in _steps(recipe, store[0]):
                lines.append(f"  {line}")
        else:
            lines.append(f"  in memory: {_values(recipe, store[0])}")
        batch: Any = loader.first()
        lines.append(f"a batch: {_values(recipe, batch)}")
        for transform in loader.batch_transforms:
            name = getattr(transform, "__name__", None) or repr(transform)
            try:
                batch = transform(batch, recipe.kinds)
            except Exception as error:
                raise DataError(f"the batch transform {name}: {message(error)}") from error
            lines.append(f"  {name}: {_values(recipe, batch)}")
        lines += _target_lines(recipe)
    except DataError as error:
        lines.append(f"FAILED: {error}")
    return "\n".join(lines)


def _steps(recipe: Recipe, raws: tuple[Any, ...]) -> list[str]:
    given = (f"{block.kind} {raw!r:.80}" for block, raw in zip(recipe.blocks, raws, strict=True))
    lines = [f"given: {', '.join(given)}"]
    try:
        for step, parts in recipe.steps(raws, training=True):
            name = step if isinstance(step, str) else transform_name(step)
            lines.append(f"{name}: {_values(recipe, parts)}")
    except DataError as error:
        lines.append(f"FAILED: {error}")
    return lines


def _values(recipe: Recipe, parts: tuple[Any, ...]) -> str:
    shown = zip(recipe.blocks, parts, strict=False)
    return "; ".join(f"{block.kind} {_value(part)}" for block, part in shown)


def _value(part: Any) -> str:
    """`3 x 160 x 160 uint8, 0 to 255`, or a few numbers themselves."""
    if not isinstance(part, Tensor):
        return f"{part!r:.80}"
    kind = type_text(part)
    if part.numel() <= 4:
        return f"{part.tolist()} {kind}"
    known = part[~part.isnan()] if part.is_floating_point() else part
    extent = f"{known.min().item():.4g} to {known.max().item():.4g}" if known.numel() else "all NaN"
    return f"{shape_text(part)} {kind}, {extent}"


def _target_lines(recipe: Recipe) -> list[str]:
    """What the target asks of a model."""
    target = recipe.target
    lines = [f"a model gives {target.needs()}"]
    try:
        loss: Any = target.loss()
    except DataError as error:
        return [*lines, f"loss: {error}"]
    metrics = ", ".join(target.metrics()) or "none"
    return [*lines, f"loss: {getattr(loss, '__name__', None) or repr(loss)}; metrics: {metrics}"]
