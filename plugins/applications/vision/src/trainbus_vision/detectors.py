"""Detectors: torchvision's networks that find boxes, and a small one, behind one face."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.storage.untrusted import Unfit, choice, fields, mapping, one_of, text, whole
from trainbus_learner import weights as starting_weights
from trainbus_vision.libraries import choose
from trainbus_vision.small import small_cnn
from trainbus_vision.weights import Weights, detector_weights

SMALL = "small_fcos"
#: Parts of the names of tensors that hold an output for each class.
_ANSWERS = ("box_predictor.", "cls_logits.", "classification_head.module_list.")
#: Networks whose published weights were trained with norms that stay as they are.
_FIXED_NORMS = ("fasterrcnn_", "retinanet_resnet50_fpn", "fcos_")
_TRAINED_NORMS = ("_v2",)


class Detector(nn.Module):
    """A network that finds boxes: from images to boxes with their labels and scores.

    `description` has the JSON values that make it again, without its weights; None if a module was
    given that only the program knows.

    Args:
        network: as torchvision has them: of a list of images it gives boxes, or, in training and
            with targets, losses by name. Labels begin with 1.
        why: where its weights are from.
        pretrained: whether they have learned something.
        description: see above.
    """

    def __init__(
        self,
        network: nn.Module,
        why: str = "",
        pretrained: bool = False,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.why = why
        self.pretrained = pretrained
        self.description = None if description is None else dict(description)

    def forward(self, images: Tensor) -> Tensor:
        """Images N x C x H x W in [0, 1] -> boxes N x D x 6: x1, y1, x2, y2, class, score.

        The most certain first, in pixels of the images; NaN where an image has fewer than others.
        """
        self._keep_size(images)
        with _modes_of(self.network, training=False):
            found = self.network(list(images))
        rows = [
            torch.cat(
                (each["boxes"], each["labels"][:, None] - 1.0, each["scores"][:, None]), dim=1
            )[each["labels"] > 0]
            for each in found
        ]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=torch.nan)

    def losses(self, images: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The losses of the network by name, for images and boxes N x K x 5 with their labels.

        In evaluation the same, but norms and dropout stay as they are, and what is drawn at random
        is the same each time.
        """
        self._keep_size(images)
        targets = [_target(rows) for rows in target]
        if self.training:
            losses: dict[str, Tensor] = self.network(list(images), targets)
            return losses
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices), _modes_of(self.network, training=True):
            torch.manual_seed(0)
            return self.network(list(images), targets)

    def _keep_size(self, images: Tensor) -> None:
        """Images are what the data make of them: they are not resized again."""
        transform = getattr(self.network, "transform", None)
        if transform is not None and getattr(transform, "fixed_size", 0) is None:
            height, width = images.shape[-2:]
            transform.min_size, transform.max_size = (min(height, width),), max(height, width)


def _target(rows: Tensor) -> dict[str, Tensor]:
    """The boxes of an image that have a size, and their labels from 1 on."""
    boxes, labels = rows[:, :4], rows[:, 4]
    there = ~rows.isnan().any(dim=1) & (boxes[:, 2:] - boxes[:, :2] > 0.5).all(dim=1)
    return {"boxes": boxes[there], "labels": labels[there].long() + 1}


@contextmanager
def _modes_of(network: nn.Module, training: bool) -> Iterator[None]:
    """What the parts of a detector do in training or evaluation, with norms as they are in it."""
    before = [(module, module.training) for module in network.modules()]
    fixed = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    try:
        for module, _ in before:
            if not training or not isinstance(module, fixed):
                module.training = training
        yield
    finally:
        for module, mode in before:
            module.training = mode


def groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a detector in two parts: the body of its backbone, and the rest."""
    backbone = getattr(getattr(model, "network", model), "backbone", None)
    body = None if backbone is None else getattr(backbone, "body", backbone)
    if body is None:
        return [list(model.parameters())]
    own = {id(parameter) for parameter in body.parameters()}
    return [list(body.parameters()), [p for p in model.parameters() if id(p) not in own]]


# --- making them ---------------------------------------------------------------------------------


def detector(
    arch: str | nn.Module,
    classes: Sequence[Any],
    channels: int = 3,
    size: tuple[int, int] = (320, 320),
    pretrained: bool | None = None,
    weights: str | Path | None = None,
) -> Detector:
    """A detector for these labels.

    Args:
        arch: a detector of torchvision by name, "small_fcos", or a module as torchvision has them,
            for one class more than there are labels.
        classes: the labels.
        channels: of the images: 3, but for "small_fcos" and modules.
        size: height and width of the images.
        pretrained: begin with the weights that torchvision publishes, of COCO; None for: where
            images have at least 64 pixels and the weights are at hand or can be fetched.
        weights: a file with such weights; or what a learner trained: an export, a file, a
            checkpoint. All but the outputs for classes has to fit.

    Raises:
        UsageError: there is no such detector, or the parts do not fit together.
    """
    if not isinstance(arch, str):
        return _of_module(arch, classes, pretrained, weights)
    known = [SMALL, *names()]
    if arch not in known:
        near = get_close_matches(arch, known, n=3, cutoff=0.4) or known
        raise UsageError(
            f"arch={arch!r}: there is no such detector; the nearest are "
            f"{', '.join(map(repr, near))}"
        )
    if channels != 3 and arch != SMALL:
        raise UsageError(
            f"{arch} takes images of 3 channels, the data has {channels}: read them with Image(3), "
            f"or take arch={SMALL!r}"
        )
    find: Callable[[], Weights] = lambda: detector_weights(arch)  # noqa: E731
    if arch == SMALL and weights is None:
        if pretrained:
            raise UsageError(f"{SMALL} has no pretrained weights; give weights='FILE'")
        found, why = None, f"trained from scratch: {SMALL} has no weights"
    elif weights is not None:
        found, why = None, ""
    else:
        found, why = choose(pretrained, None, size, find)
    fixed = (found is not None or weights is not None) and has_fixed_norms(arch)
    network = _network(arch, len(classes), channels, fixed)
    description = {
        "arch": arch, "classes": len(classes), "channels": channels, "fixed": fixed,
    }  # fmt: skip
    model = Detector(network, why, found is not None, description)
    if found is not None:
        take(model, starting_weights.Found(found.tensors, found.source), classes)
        model.why = why
    elif weights is not None:
        take(model, starting_weights.read(weights), classes)
    return model


def take(
    model: Detector, found: starting_weights.Found, classes: Sequence[Any] | None
) -> starting_weights.Taken:
    """Put weights into a detector: all but the outputs for classes has to fit.

    Those of a library are of the network alone. Outputs for as many classes are taken only where
    it is known that they are the same.
    """
    whole = any(name.split("network.")[0] in ("", "model.") for name in found.tensors)
    into = model if whole else model.network
    answers = [name for name in into.state_dict() if any(part in name for part in _ANSWERS)]
    body = [name for name in into.state_dict() if name not in answers]
    if not whole:  # another data set, whose classes are others
        found = starting_weights.Found(found.tensors, found.source, [])
    name = str((model.description or {}).get("arch", type(model.network).__name__))
    taken = starting_weights.take(into, found, body, answers, classes, name)
    model.why, model.pretrained = str(taken), True
    return taken


def names() -> list[str]:
    """The detectors that torchvision has, without those for masks and key points."""
    from torchvision import models  # type: ignore[import-untyped]

    found = models.list_models(module=models.detection)
    return [name for name in found if not name.startswith(("maskrcnn", "keypointrcnn"))]


def has_fixed_norms(arch: str) -> bool:
    """Whether the norms of its pretrained body stay as they are, since batches are small."""
    return arch.startswith(_FIXED_NORMS) and not arch.endswith(_TRAINED_NORMS)


def rebuild(**description: Any) -> Detector:
    """The model that `Detector.description` describes, with weights of chance: an export's.

    Raises:
        UsageError: it describes something else.
    """
    shapes = {
        "arch": text(200, r"\w+"),
        "classes": whole(1, 10**6),
        "channels": whole(1, 10**4),
        "fixed": one_of(bool),
    }
    try:
        mapping(key=choice(*shapes))(description, "the description of a detector")
        fields(shapes)(description, "it")
    except Unfit as error:
        raise UsageError(f"{error}") from None
    arch, fixed = description["arch"], description["fixed"]
    model = detector(arch, range(description["classes"]), description["channels"], pretrained=False)
    if fixed:
        model.network = _with_fixed_norms(model.network)
    model.description = dict(description)
    return model


def _network(arch: str, classes: int, channels: int, fixed: bool) -> nn.Module:
    if arch == SMALL:
        return _small(classes, channels)
    from torchvision import models

    network: nn.Module = models.get_model(
        arch, weights=None, weights_backbone=None, num_classes=classes + 1
    )
    return _with_fixed_norms(network) if fixed else network


def _with_fixed_norms(network: Any) -> nn.Module:
    """The norms of the body as numbers that are not trained."""
    from torchvision.ops import FrozenBatchNorm2d  # type: ignore[import-untyped]

    body = network.backbone.body
    for path, norm in list(body.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            parent, _, last = path.rpartition(".")
            fixed = FrozenBatchNorm2d(norm.num_features, eps=norm.eps)
            setattr(body.get_submodule(parent), last, fixed)
    made: nn.Module = network
    return made


def _of_module(
    network: nn.Module,
    classes: Sequence[Any],
    pretrained: bool | None,
    weights: str | Path | None,
) -> Detector:
    if isinstance(network, Detector):
        network = network.network
    model = Detector(network, "the module as it was given", bool(pretrained))
    if weights is not None:
        take(model, starting_weights.read(weights), classes)
    return model


# --- a small one ---------------------------------------------------------------------------------


class _SmallBody(nn.Module):
    """Maps of 1/4, 1/8 and 1/16 of the size, of the layers of `small_cnn`."""

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        self.layers = small_cnn(channels, width)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images N x C x H x W -> maps by name."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        value = images
        for number, layer in enumerate(self.layers):
            value = layer(value)
            if number:
                maps[str(number)] = value
        return maps


class _SmallBackbone(nn.Module):
    """A small body with a pyramid of features (Lin et al., 2017) of 64 maps each."""

    out_channels = 64

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.body = _SmallBody(channels, width)
        self.fpn = FeaturePyramidNetwork([2 * width, 4 * width, 8 * width], self.out_channels)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images N x C x H x W -> maps N x 64 x h x w by name, the largest first."""
        maps: OrderedDict[str, Tensor] = self.fpn(self.body(images))
        return maps


def _small(classes: int, channels: int) -> nn.Module:
    """FCOS (Tian et al., 2019) on a small body, for small images and a start from scratch."""
    from torchvision.models.detection import FCOS  # type: ignore[import-untyped]
    from torchvision.models.detection.anchor_utils import (  # type: ignore[import-untyped]
        AnchorGenerator,
    )

    network: nn.Module = FCOS(
        _SmallBackbone(channels),
        classes + 1,
        anchor_generator=AnchorGenerator(((4,), (8,), (16,)), ((1.0,),) * 3),
        image_mean=[0.5] * channels,
        image_std=[0.25] * channels,
        score_thresh=0.05,
    )
    return network
