"""Models: normalization, a body and a head, made to fit the data; and made again from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.storage.untrusted import (
    Unfit,
    anything,
    choice,
    fields,
    mapping,
    maybe,
    one_of,
    pair,
    text,
    whole,
    within,
)
from trainbus_learner import weights as starting_weights
from trainbus_learner.snapshots import evaluating
from trainbus_vision.backbones import backbone
from trainbus_vision.body import Body
from trainbus_vision.heads import make_head
from trainbus_vision.libraries import Backbone
from trainbus_vision.normalize import IMAGENET, Normalize, for_channels
from trainbus_vision.unet import Unet
from trainbus_vision.weights import Weights, is_own, load_body, read_weights

Stats = tuple[list[float], list[float]]


class ImageModel(nn.Module):
    """Normalize, then a body and a head, or a U-Net: from images to outputs.

    `description` has the JSON values that make it again, without its weights; None if a module was
    given that only the program knows.
    """

    def __init__(
        self,
        normalize: Normalize,
        network: nn.Module,
        pretrained: bool = False,
        why: str = "",
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self.pretrained = pretrained
        self.why = why
        self.description = None if description is None else dict(description)

    def forward(self, images: Tensor) -> Tensor:
        """Images N x C x height x width, uint8 or floats in [0, 1] -> outputs."""
        result: Tensor = self.network(self.normalize(images))
        return result


class Classifier(nn.Sequential):
    """A body and a head."""

    def __init__(self, body: Body, head: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = head


def groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a model in three parts: the body's first half, its second, the rest.

    The body is halved by the number of its layers that have parameters. A model without a body is
    one part.
    """
    body = next((each for each in model.modules() if isinstance(each, Body)), None)
    if body is None:
        return [list(model.parameters())]
    layers = [list(module.parameters(recurse=False)) for module in body.modules()]
    layers = [parameters for parameters in layers if parameters]
    middle = len(layers) // 2
    own = {id(parameter) for parameter in body.parameters()}
    return [
        [parameter for parameters in layers[:middle] for parameter in parameters],
        [parameter for parameters in layers[middle:] for parameter in parameters],
        [parameter for parameter in model.parameters() if id(parameter) not in own],
    ]


def image_model(
    arch: str | nn.Module,
    outputs: int,
    channels: int = 3,
    size: tuple[int, int] = (224, 224),
    *,
    pixels: bool = False,
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    stats: Stats | None = None,
    head: nn.Module | Literal["new", "whole"] | None = None,
    dropout: float | None = None,
    classes: Sequence[Any] | None = None,
) -> ImageModel:
    """A model from images to a number of outputs.

    Args:
        arch: the name of a network, or a module: see `backbone`. A module that gives exactly the
            outputs is used whole; an `ImageModel` (`learner.model`) keeps its normalization.
        outputs: for an image, or for each of its pixels.
        channels: of the images.
        size: height and width of the images.
        pixels: whether each pixel has outputs (a U-Net).
        pretrained: start with pretrained weights; None for: where they help and can be had.
        weights: a file with pretrained weights; or what a learner trained: a directory of its
            export, or a file of `model.state_dict()`, of which the body has to fit.
        stats: mean and standard deviation of the channels in [0, 1], for weights that are not
            pretrained; by default ImageNet has them.
        head: a module in place of the usual head; "new": replace the classifier of a module that
            was given; "whole": use that module as it is.
        dropout: of the head; None for 0.5 with pretrained weights. Without them it is 0: the head
            is then the mean of each map and one linear layer, as networks are trained from scratch.
        classes: what the outputs mean; where an export has other ones, its last layer is not taken.

    Raises:
        UsageError: the parts do not fit together; says which.
    """
    made = partial(
        _made, outputs=outputs, channels=channels, size=size, pixels=pixels, stats=stats, head=head
    )
    if isinstance(arch, ImageModel):
        return _again(arch, weights, dropout, made)
    found = None if weights is None else starting_weights.read(weights)
    if found is None or not is_own(found.tensors):
        return made(arch, pretrained=pretrained, weights=weights, dropout=dropout)
    if dropout is None:
        dropout = 0.5 if any("network.head.7." in name for name in found.tensors) else 0.0
    model = made(arch, pretrained=False, weights=None, dropout=dropout)
    _take(model, found, classes, arch if isinstance(arch, str) else type(arch).__name__)
    return model


def _made(
    arch: str | nn.Module,
    outputs: int,
    channels: int,
    size: tuple[int, int],
    pixels: bool,
    pretrained: bool | None,
    weights: str | Path | None,
    stats: Stats | None,
    head: nn.Module | Literal["new", "whole"] | None,
    dropout: float | None,
) -> ImageModel:
    """See `image_model`: a model that is made here, with weights of a library or of chance."""
    if isinstance(arch, nn.Module) and head in (None, "whole"):
        given = _whole(arch, channels, size, pixels)
        if head == "whole" or given == outputs:
            if weights is not None:
                name = type(arch).__name__
                load_body(arch, arch, Weights(read_weights(weights), str(weights)), name)
            knows = bool(pretrained) or weights is not None
            return _as_given(arch, given, outputs, channels, knows, stats)
        if given is not None and _ends_in_outputs(arch):
            raise UsageError(
                f"{type(arch).__name__} gives {given} outputs, but the data needs {outputs}; give "
                f"a module with {outputs}, or replace its classifier: head='new'"
            )
    # The program alone knows a module that was given: it cannot be made again from JSON.
    again = isinstance(arch, str) and not isinstance(head, nn.Module)
    found = backbone(arch, channels, size, pretrained, weights, maps=pixels)
    if pixels:
        if isinstance(head, nn.Module):
            raise UsageError("head=...: a U-Net has its own; leave head out")
        network: nn.Module = Unet(found.body, channels, outputs, size)
    else:
        if dropout is None:
            dropout = 0.5 if found.pretrained else 0.0
        if not isinstance(head, nn.Module):
            head = make_head(found.body, outputs, dropout)
        network = Classifier(found.body, head)
    mean, std = for_channels(_stats(found, stats), channels)
    description = {
        "arch": arch,
        "outputs": outputs,
        "channels": channels,
        "size": list(size),
        "pixels": pixels,
        "dropout": dropout,
        "pretrained": found.pretrained,
    }
    return ImageModel(
        Normalize(mean, std),
        network,
        found.pretrained,
        found.why,
        description if again else None,
    )


def _again(
    model: ImageModel,
    weights: str | Path | None,
    dropout: float | None,
    made: Callable[..., ImageModel],
) -> ImageModel:
    """A model of this package as the start of a training: with its one normalization."""
    if weights is not None:
        raise UsageError("arch is a model with its weights, and weights= has others: give one")
    network = model.network
    if made.keywords["head"] != "new":  # type: ignore[attr-defined]
        made(model, pretrained=True, weights=None, dropout=dropout)  # it checks that all fits
        return model
    if not isinstance(network, Classifier):
        raise UsageError("head='new': the model given is no body with a head; leave head out")
    dropout = 0.5 if dropout is None else dropout
    outputs = made.keywords["outputs"]  # type: ignore[attr-defined]
    fresh = Classifier(network.body, make_head(network.body, outputs, dropout))
    description = model.description and {
        **model.description, "outputs": outputs, "dropout": dropout,
    }  # fmt: skip
    return ImageModel(model.normalize, fresh, True, "the body of the model given", description)


def _take(
    model: ImageModel, found: starting_weights.Found, classes: Sequence[Any] | None, arch: str
) -> None:
    """Go on from weights that a learner trained: the body must fit, a head that does not is new."""
    body = starting_weights.body_of(model, groups(model))
    last = starting_weights.last_layer(model)
    model.why = str(starting_weights.take(model, found, body, last, classes, arch))
    model.pretrained = True


#: What `ImageModel.description` says; a network is one of a library, and never a place to get it.
_DESCRIPTION = {
    "arch": text(200, r"\w[\w./-]*"),
    "outputs": whole(1, 10**7),
    "channels": whole(1, 10**4),
    "size": pair(whole(1, 2**15), whole(1, 2**15)),
    "pixels": one_of(bool),
    "dropout": maybe(within(0.0, 1.0)),
    "pretrained": one_of(bool),
}


def rebuild(*, pretrained: bool, size: list[int], **options: Any) -> ImageModel:
    """The model that `ImageModel.description` describes, with weights of chance: an export's.

    Raises:
        UsageError: it describes something else.
    """
    described = {"pretrained": pretrained, "size": size, **options}
    try:
        mapping(key=choice(*_DESCRIPTION))(described, "the description of a model")
        fields({"arch": anything, "outputs": anything}, _DESCRIPTION)(described, "it")
    except Unfit as error:
        raise UsageError(f"{error}") from None
    model = image_model(**options, size=(size[0], size[1]), pretrained=False)
    model.pretrained = pretrained
    return model


def _stats(found: Backbone, stats: Stats | None) -> Any:
    if found.stats is not None:
        return found.stats
    return stats or IMAGENET


def _whole(model: nn.Module, channels: int, size: tuple[int, int], pixels: bool) -> int | None:
    """How many outputs a module gives by itself, or None if it gives something else."""
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels != channels:
        raise UsageError(
            f"{type(model).__name__} takes images of {first.in_channels} channels, the data has "
            f"{channels}: give a module for {channels}, or read the images with "
            f"Image({first.in_channels})"
        )
    try:
        with evaluating(model):
            given = model(torch.zeros(1, channels, *size))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot take images of {channels} x {size[0]} x {size[1]}: "
            f"{error}"
        ) from None
    shape = tuple(getattr(given, "shape", ()))
    if pixels:
        return shape[1] if len(shape) == 4 and shape[2:] == size else None
    return shape[1] if len(shape) == 2 else None


def _as_given(
    model: nn.Module,
    given: int | None,
    outputs: int,
    channels: int,
    pretrained: bool,
    stats: Stats | None,
) -> ImageModel:
    if given != outputs:
        shown = "something else" if given is None else f"{given}"
        raise UsageError(
            f"{type(model).__name__} gives {shown} outputs, but the data needs {outputs}"
        )
    mean, std = for_channels(IMAGENET if pretrained else stats or IMAGENET, channels)
    return ImageModel(Normalize(mean, std), model, pretrained, "the module as it was given")


def _ends_in_outputs(model: nn.Module) -> bool:
    """Whether its last layer is a linear one: the end of a classifier, and not of a body."""
    leaves = [module for module in model.modules() if not list(module.children())]
    with_weights = [leaf for leaf in leaves if list(leaf.parameters(recurse=False))]
    return bool(with_weights) and isinstance(with_weights[-1], nn.Linear)
