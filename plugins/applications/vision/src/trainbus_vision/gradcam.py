"""Grad-CAM: where in an image a network saw what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError
from trainbus.batches import move
from trainbus_learner import Interpretation, Learner
from trainbus_learner.snapshots import evaluating
from trainbus_vision.body import Body

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = ("category", "categories", "number")


@dataclass(frozen=True)
class Heat:
    """Where an image speaks for a label.

    Attributes:
        image: what the model saw, C x H x W.
        heat: H x W in 0..1, 1 where it speaks most for the label; all 0 where nothing does.
        label: which one.
        probability: of it; None for numbers.
    """

    image: Tensor
    heat: Tensor
    label: Any
    probability: float | None


def explain(learner: Learner, images: Tensor, label: Any = None) -> list[Heat]:
    """The heat of a label in each image (Selvaraju et al., 2017).

    The last maps of the body that are large enough are added up, each with the mean of the gradient
    of the label's output in it; what speaks against the label is left out. Gradients and modes are
    as before.

    Args:
        learner: of an image model that classifies, or gives numbers.
        images: N x C x H x W, as the model gets them.
        label: by default the most probable one of each image; of numbers the first.

    Raises:
        UsageError: the model has no maps, or the label is unknown.
    """
    target, task = learner.source.target, learner.task
    if target.kind not in _KINDS:
        raise UsageError(
            f"gradcam: it is for {', '.join(_KINDS)}, and the target is {type(target).__name__}"
        )
    kept: list[Any] = []
    handles = [
        layer.register_forward_hook(lambda module, given, output: kept.append(output))
        for layer in _layers(learner.model)
    ]
    trained = [(p, p.requires_grad) for p in learner.model.parameters()]
    try:
        with evaluating(task), torch.enable_grad():
            for parameter, _ in trained:  # a frozen body has gradients of its maps, too
                parameter.requires_grad_(False)
            inputs = move(images, learner.device)
            inputs = inputs.float() / 255 if not inputs.is_floating_point() else inputs
            output = task(inputs.clone().requires_grad_())
            codes = _codes(target, output, label)
            score = output.gather(1, codes[:, None].to(output.device)).sum()
            maps = _chosen(kept, learner.model)
            (gradient,) = torch.autograd.grad(score, maps)
    finally:
        for handle in handles:
            handle.remove()
        for parameter, trains in trained:
            parameter.requires_grad_(trains)
    heat = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu().detach()
    heat = functional.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)
    top = heat.amax((1, 2, 3), keepdim=True)
    heat = torch.where(top > 0, heat / top.clamp(min=1e-12), 0.0)[:, 0].cpu()
    sure = target.activation(output.detach()).cpu()
    rows = zip(images.cpu(), heat, codes.tolist(), sure, strict=True)
    return [_heat(target, *each) for each in rows]


def _heat(target: Any, image: Tensor, heat: Tensor, code: int, probabilities: Tensor) -> Heat:
    words = getattr(target, "vocab", None) or range(len(probabilities))
    numbers = target.kind == "number"
    return Heat(image, heat, words[code], None if numbers else float(probabilities[code]))


def _codes(target: Any, output: Tensor, label: Any) -> Tensor:
    """The index of the output to explain, of each image."""
    if target.kind == "number":
        code = 0 if label is None else label
        if not isinstance(code, int) or not 0 <= code < output.shape[1]:
            raise UsageError(f"gradcam(label={label!r}): give the index of one of the numbers")
        return torch.full((len(output),), code)
    if label is None:
        return output.detach().argmax(dim=1).cpu()
    return torch.full((len(output),), int(target.code(label)))


def _layers(model: nn.Module) -> list[nn.Module]:
    """What may give maps, in order: the body and its pieces, or all convolutions."""
    bodies = [module for module in model.modules() if isinstance(module, Body)]
    if bodies:
        return [*bodies[-1].channels_first_pieces(), bodies[-1]]
    found: list[nn.Module] = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    if not found:
        raise UsageError(f"gradcam: {type(model).__name__} has no convolution, and no maps")
    return found


def _chosen(maps: Sequence[Any], model: nn.Module) -> Tensor:
    """The last maps that are large enough to say where; or else the last that have places at all.

    Those behind the pooling of a network for small images are of one pixel.
    """
    places = [each for each in maps if isinstance(each, Tensor) and each.ndim == 4]
    for least in (4, 2):
        large = [each for each in places if min(each.shape[2:]) >= least]
        if large:
            return large[-1]
    raise UsageError(
        f"gradcam: no maps of {type(model).__name__} have places; take larger images, or a network "
        "of convolutions"
    )


def heats_of(learner: Learner, of: Any, count: int, label: Any) -> tuple[list[Heat], list[str]]:
    """The heats of items, or of the worst of an interpretation, and what to write above each."""
    if isinstance(of, Interpretation):
        worst, inputs = of.worst(count), of.worst_inputs(count)
        if not worst:
            raise UsageError("gradcam: the interpretation has no items")
        notes = [f"is {each.target}, loss {each.loss:.2f}" for each in worst]
        return explain(learner, torch.stack([each[0] for each in inputs]), label), notes
    items = list(of) if isinstance(of, (list, tuple)) else [of]
    if not items:
        raise UsageError("gradcam: there are no items")
    encoded = [learner.source.encode(item)[0] for item in items[:count]]
    heats = [explain(learner, image[None], label)[0] for image in encoded]
    return heats, [""] * len(heats)


def draw(learner: Learner, heats: Sequence[Heat], notes: Sequence[str]) -> Figure:
    """The images in pairs: as they are, and with what speaks for the label in red."""
    from matplotlib.figure import Figure

    columns = max(1, min(len(heats), math.ceil(math.sqrt(len(heats)))))
    rows = math.ceil(len(heats) / columns)
    figure = Figure(figsize=(4.2 * columns, 2.5 * rows), layout="constrained")
    places = figure.subplots(rows, 2 * columns, squeeze=False).flatten().tolist()
    for axes in places:
        axes.set_axis_off()
    image = learner.source.input_blocks[0]
    for number, (each, note) in enumerate(zip(heats, notes, strict=True)):
        plain, hot = places[2 * number : 2 * number + 2]
        image.draw(plain, each.image)
        hot.imshow(each.image.float().mean(0).numpy(), cmap="gray")  # colours are the heat's
        shown = hot.imshow(each.heat.numpy(), cmap="jet", alpha=0.45, vmin=0, vmax=1)
        sure = "" if each.probability is None else f" {each.probability:.0%}"
        hot.set_title(f"{each.label}{sure}", fontsize=9)
        plain.set_title(note, fontsize=8)
    bar = figure.colorbar(shown, ax=places, shrink=0.5, ticks=[0, 1])
    bar.ax.set_yticklabels(["little", "much"], fontsize=7)
    return figure
