"""Pictures of batches, results and confusion."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.arguments import check_whole
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

    A prediction is green where it is the target, and red where it is not. Points and boxes are
    drawn onto the image, the target green and the prediction red; of masks the target stands left
    and the prediction right. What their colours mean is below all.
    """
    from matplotlib.figure import Figure

    block = source.target
    predicted = any(given is not None for _, _, given, _ in items)
    drawn, overlays = (getattr(block, name, False) for name in ("in_picture", "overlays"))
    twice = drawn and predicted and not overlays
    columns = max(1, min(len(items), math.ceil(math.sqrt(len(items)))))
    rows = math.ceil(len(items) / columns)
    wide = columns * (2 if twice else 1)
    figure = Figure(figsize=(2.2 * wide, 2.5 * rows), layout="constrained")
    places = figure.subplots(rows, wide, squeeze=False).flatten().tolist()
    for axes in places:
        axes.set_axis_off()
    for number, item in enumerate(items):
        if twice:
            _side_by_side(source, places[2 * number], places[2 * number + 1], item)
        else:
            _in_one(source, places[number], item, overlays)
    if drawn and hasattr(block, "legend"):
        _legend(figure, block.legend([each for item in items for each in item[1:3]]))
    if predicted and not twice:
        said = "target green, prediction red" if overlays else "target above, prediction below"
        figure.supxlabel(said, fontsize=8)
    return figure


def _side_by_side(source: Source, left: Any, right: Any, item: Item) -> None:
    inputs, target, given, note = item
    for axes, value, title in ((left, target, "target"), (right, given, "predicted")):
        _draw_inputs(source, axes, inputs)
        source.target.draw(axes, value)
        axes.set_title(title, fontsize=9)
    _add_note(left, note)


def _in_one(source: Source, axes: Any, item: Item, overlays: bool) -> None:
    inputs, target, given, note = item
    block = source.target
    _draw_inputs(source, axes, inputs)
    if overlays and given is not None:
        block.draw_both(axes, target, given)
    else:
        _draw_target(block, axes, target)
        if given is not None:
            block.draw(axes, given, color=_color(block, target, given))
    _add_note(axes, note)


def _add_note(axes: Any, note: str) -> None:
    if note:
        axes.set_title(f"{axes.get_title()}\n{note}" if axes.get_title() else note, fontsize=8)


def _legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> None:
    """What colours mean, below the pictures."""
    from matplotlib.patches import Patch

    if entries:
        handles = [Patch(color=color, label=text) for text, color in entries]
        width = float(figure.get_size_inches()[0])
        columns = max(1, min(len(handles), int(width / 1.1)))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8)


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
        block.draw(axes, target, color=None if getattr(block, "in_picture", False) else "black")


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


def confusion_of_labels(matrices: Tensor, words: Sequence[Any]) -> Figure:
    """A matrix of two by two for each of several labels: there or not, predicted or not."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(words), math.ceil(math.sqrt(len(words)))))
    rows = math.ceil(len(words) / columns)
    figure = Figure(figsize=(1.9 * columns + 0.6, 2.1 * rows + 0.4), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes, matrix, word in zip(places, matrices, words, strict=False):
        confusion(matrix, ("no", "yes"), False, axes)
        axes.set_title(str(word), fontsize=9)
        axes.set_xlabel("")
        axes.set_ylabel("")
    for axes in places[len(words) :]:
        axes.set_axis_off()
    figure.supxlabel("predicted", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


def _row(target: Any, index: int) -> Any:
    if isinstance(target, Tensor):
        return target[index].cpu()
    return tuple(torch.as_tensor(part[index]).cpu() for part in target)


def _check_count(verb: str, count: int) -> None:
    check_whole(1, UsageError, verb, count=count)
