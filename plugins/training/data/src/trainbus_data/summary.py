"""One sample followed through every step, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from trainbus_data.errors import DataError, told
from trainbus_data.loaders import Items, where
from trainbus_data.recipe import Recipe, shape_text

if TYPE_CHECKING:
    from trainbus_data.data import Data
    from trainbus_data.datablock import DataBlock


def summary_of(data: Data) -> str:
    """See `Data.summary`."""
    lines = _parts_lines(data)
    lines += [f"  {block!r}" for block in data.blocks]
    store = data.train_items
    lines.append(f"one sample: {where(store, 0, 'train')}")
    try:
        if isinstance(store, Items):
            for line in _steps(data.recipe, store[0]):
                lines.append(f"  {line}")
        else:
            lines.append(f"  in memory: {_values(data.recipe, store[0])}")
        batch: Any = data.train.first()
        lines.append(f"a batch: {_values(data.recipe, batch)}")
        for transform in data.batch_transforms:
            name = getattr(transform, "__name__", None) or repr(transform)
            try:
                batch = transform(batch, data.kinds)
            except Exception as error:
                raise DataError(f"the batch transform {name}: {told(error)}") from error
            lines.append(f"  {name}: {_values(data.recipe, batch)}")
        lines += _target_lines(data.recipe)
    except DataError as error:
        lines.append(f"FAILED: {error}")
    return "\n".join(lines)


def summary_of_source(block: DataBlock, source: Any) -> str:
    """See `DataBlock.summary`."""
    lines = []
    try:
        things = source if block.items is None else block.items(source)
        lines.append(f"source: {len(things)} items, the first is {things[0]!r:.100}")
        return "\n".join([*lines, block.data(source, num_workers=0).summary()])
    except DataError as error:
        return "\n".join([*lines, f"FAILED: {error}"])


def _parts_lines(data: Data) -> list[str]:
    sizes = {"train": data.train_items, "valid": data.valid_items, "test": data.test_items}
    shown = ", ".join(f"{stage} {len(items)}" for stage, items in sizes.items() if items)
    return [f"items: {shown}", f"blocks, {data.recipe.inputs} of them inputs:"]


def _steps(recipe: Recipe, raws: tuple[Any, ...]) -> list[str]:
    given = (f"{block.kind} {raw!r:.80}" for block, raw in zip(recipe.blocks, raws, strict=True))
    lines = [f"given: {', '.join(given)}"]
    try:
        for name, parts in recipe.steps(raws, training=True):
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
    kind = str(part.dtype).removeprefix("torch.")
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
