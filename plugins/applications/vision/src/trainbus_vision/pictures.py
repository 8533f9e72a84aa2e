"""Pictures of images with targets and predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: The side of a picture's cell, in inches.
_CELL = 1.7


def picture(batch: Any, output: Any, recipe: Any = None) -> Any:
    """A figure of the images of a batch, each with its target and its prediction.

    Labels and numbers are above the image, the target first; labels are green where they are right,
    else red. Points and boxes are green, those predicted red; masks are side by side.

    Args:
        batch: (images, targets), on any device.
        output: what the model gave for it.
        recipe: says what they are; without it images with class numbers are drawn.

    Returns:
        A matplotlib figure that no window manager knows; None for batches that are no images.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not isinstance(output, Tensor):
        return None
    if recipe is None:
        recipe = _guessed(batch, output)
    if recipe is None or recipe.kinds[0] != "image":
        return None
    image, target = recipe.input, recipe.target
    pack = getattr(target, "pack", None)
    images, truth = batch[0].cpu(), (batch[-1] if pack is None else pack(batch[1:])).cpu()
    predicted = target.read(target.activation(output.float())).cpu()
    apart = target.kind == "mask"  # two masks on one image would hide each other
    figure, cells = _grid(len(images), 2 if apart else 1)
    for index, value in enumerate(images):
        axes = cells[index * (2 if apart else 1)]
        image.draw(axes, value)
        right = torch.equal(predicted[index], truth[index])
        target.draw(axes, truth[index], _color(target.kind, right, _TRUE))
        if apart:
            axes.set_title("target", fontsize=9)
            axes = cells[2 * index + 1]
            image.draw(axes, value)
            axes.set_title("predicted", fontsize=9)
        target.draw(axes, predicted[index], _color(target.kind, right, _PREDICTED))
    figure.tight_layout()
    return figure


_TRUE, _PREDICTED = "tab:green", "tab:red"


def _color(kind: str, right: bool, usual: str) -> str | None:
    """Labels are green or red as they are right or wrong; numbers are neither."""
    if kind in ("category", "categories"):
        return _TRUE if right else _PREDICTED
    return None if kind == "number" else usual


def _grid(count: int, wide: int) -> tuple[Any, list[Any]]:
    """A figure with cells in rows that are about as many as its columns."""
    from matplotlib.figure import Figure

    columns = min(count, max(1, round(count**0.5))) * wide
    rows = -(-count * wide // columns)
    figure = Figure(figsize=(_CELL * columns, (_CELL + 0.4) * rows))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for cell in cells:
        cell.set_axis_off()
    return figure, cells


def _guessed(batch: Any, output: Tensor) -> Any:
    """A recipe for batches of images with class numbers, or None if they are something else."""
    images, target = batch[0], batch[-1]
    if not (isinstance(images, Tensor) and images.ndim == 4 and images.shape[1] in (1, 3)):
        return None
    numbers = isinstance(target, Tensor) and target.ndim == 1 and not target.is_floating_point()
    if not numbers or output.ndim != 2 or len(output) != len(target):
        return None
    from trainbus_data import Category, Recipe
    from trainbus_vision.images import Image

    return Recipe((Image(images.shape[1]), Category(list(range(output.shape[1])))))
