"""Pictures of batches, results and confusion."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_learner import evaluation
from trainbus_learner.fitter import Fitter
from trainbus_learner.learning_data import Source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inputs, target, prediction or None, and a further line.
Item = tuple[Sequence[Tensor], Any, Any, str]


def batch(learner: Fitter, count: int) -> Figure:
    """See `Learner.show_batch`."""
    _check_count("show_batch", count)
    inputs, target = learner.source.split(evaluation.seen_batch(learner))
    rows = range(min(count, len(inputs[0])))
    return grid(
        learner.source,
        [(tuple(part[i].cpu() for part in inputs), _row(target, i), None, "") for i in rows],
    )


def results(learner: Fitter, count: int) -> Figure:
    """See `Learner.show_results`."""
    _check_count("show_results", count)
    source = learner.source
    if source.valid is None:
        raise UsageError("show_results: the learner has no validation data")
    items: list[Item] = []
    passes = evaluation.outputs(learner, _spread(source, count))
    try:
        for inputs, target, output in passes:
            given = source.target.read(source.target.activation(output)).cpu()
            for i in range(min(count - len(items), len(given))):
                row = tuple(part[i].cpu() for part in inputs)
                items.append((row, _row(target, i), given[i], ""))
            if len(items) >= count:
                break
    finally:
        passes.close()  # type: ignore[attr-defined]
    return grid(source, items)


def _spread(source: Source, count: int) -> Any:
    """Batches with items from all over the validation data, the same ones each time.

    The first ones of a folder would be of one class. Of plain loaders they are the first.
    """
    if source.data is None:
        return source.valid
    total = len(source.data.items("valid"))
    draw = random.Random(0)
    step = total / min(count, total)
    places = [int((number + draw.random()) * step) for number in range(min(count, total))]
    return source.data.part("valid", places)


def grid(source: Source, items: Sequence[Item]) -> Figure:
    """Items side by side, each with its target, and below it what was predicted.

    A prediction is green where it is the target, and red where it is not; of masks and points,
    which are drawn onto the image, the target stands left and the prediction right.
    """
    from matplotlib.figure import Figure

    block = source.target
    drawn = getattr(block, "in_picture", False)
    twice = drawn and any(given is not None for _, _, given, _ in items)
    columns = max(1, min(len(items), math.ceil(math.sqrt(len(items)))))
    rows = math.ceil(len(items) / columns)
    wide = columns * (2 if twice else 1)
    figure = Figure(figsize=(2.2 * wide, 2.5 * rows), layout="constrained")
    places = figure.subplots(rows, wide, squeeze=False).flatten().tolist()
    for axes in places:
        axes.set_axis_off()
    for number, (inputs, target, given, note) in enumerate(items):
        axes = places[number * 2 if twice else number]
        _draw_inputs(source, axes, inputs)
        _draw_target(block, axes, target)
        if given is not None and twice:
            right = places[number * 2 + 1]
            _draw_inputs(source, right, inputs)
            block.draw(right, given)
            right.set_title("predicted", fontsize=9)
            axes.set_title("target", fontsize=9)
        elif given is not None:
            block.draw(axes, given, color=_color(block, target, given))
        if note:
            axes.set_title(f"{axes.get_title()}\n{note}" if axes.get_title() else note, fontsize=8)
    if not twice and any(given is not None for _, _, given, _ in items):
        figure.supxlabel("target above, prediction below", fontsize=8)
    return figure


def _draw_inputs(source: Source, axes: Any, inputs: Sequence[Tensor]) -> None:
    for block, value in zip(source.input_blocks, inputs, strict=False):
        block.draw(axes, value)


def _draw_target(block: Any, axes: Any, target: Any) -> None:
    if isinstance(target, tuple):
        target = target[-1]  # the block is for the last one
    if block.kind == "category" and isinstance(target, Tensor) and target.ndim:
        # A mixture of classes, made by an augmentation: its two largest parts.
        values, indices = target.float().topk(min(2, len(target)))
        pairs = zip(indices, values.tolist(), strict=True)
        axes.set_title("\n".join(f"{block.decode(i)} {v:.0%}" for i, v in pairs if v), fontsize=9)
    else:
        block.draw(axes, target, color="black")


def _color(block: Any, target: Any, given: Any) -> str:
    if block.kind not in ("category", "categories") or not isinstance(target, Tensor):
        return "black"
    same = target.shape == given.shape and bool((target.cpu() == given).all())
    return "green" if same else "red"


def confusion(matrix: Tensor, words: Sequence[Any], normalize: bool, axes: Any) -> Figure:
    """A confusion matrix as a picture."""
    from matplotlib.figure import Figure

    size = min(14.0, max(4.0, 1.5 + 0.45 * len(words)))
    figure = Figure(figsize=(size, size), layout="constrained") if axes is None else axes.figure
    axes = figure.add_subplot() if axes is None else axes
    shown = matrix.double()
    if normalize:
        shown = shown / shown.sum(dim=1, keepdim=True).clamp(min=1)
    axes.imshow(shown.numpy(), cmap="Blues", vmin=0)
    names = [str(word) for word in words]
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(names) <= 20:
        limit = float(shown.max()) / 2
        for i in range(len(names)):
            for j in range(len(names)):
                value = float(shown[i, j])
                if value:
                    text = f"{value:.2f}" if normalize else str(int(matrix[i, j]))
                    color = "white" if value > limit else "black"
                    axes.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    made: Figure = figure
    return made


def _row(target: Any, index: int) -> Any:
    if isinstance(target, Tensor):
        return target[index].cpu()
    return tuple(torch.as_tensor(part[index]).cpu() for part in target)


def _check_count(verb: str, count: int) -> None:
    if count < 1:
        raise UsageError(f"{verb}({count}): show at least one item")
