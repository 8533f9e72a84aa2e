"""Bodies by name, from torchvision and timm, or of any module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainbus import UsageError
from trainbus_vision.backbone_pieces import check_cut, cut, pieces_of, pool_later
from trainbus_vision.body import Body
from trainbus_vision.channels import adapt_channels
from trainbus_vision.libraries import SMALL, Backbone, choose, torchvision_names
from trainbus_vision.normalize import IMAGENET
from trainbus_vision.small import small_cnn
from trainbus_vision.timm_bodies import timm_backbone
from trainbus_vision.weights import (
    SMALLEST_PRETRAINED,
    Weights,
    from_torchvision,
    load_body,
    read_weights,
)


def backbone(
    arch: str | nn.Module,
    channels: int,
    size: tuple[int, int],
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    maps: bool = False,
) -> Backbone:
    """The body of a network by its name, or of a module.

    Args:
        arch: a classifier of torchvision ("resnet18"), one of timm ("timm/resnet26d", or its name
            alone where torchvision has none of it), "small_cnn", or a module.
        channels: of the images.
        size: height and width of the images.
        pretrained: start with pretrained weights; None for: if images are large enough and they
            can be had.
        weights: a file with weights, in place of those that torchvision or timm provide.
        maps: the maps of each size are needed (for a U-Net), not the last alone.

    Raises:
        UsageError: an unknown name, weights that cannot be had or do not fit, images that it
            cannot take.
    """
    if weights is not None and pretrained is False:
        raise UsageError(f"pretrained=False and weights={str(weights)!r} contradict each other")
    if isinstance(arch, nn.Module):
        return _of_module(arch, channels, size, bool(pretrained), weights)
    if not isinstance(arch, str):
        raise UsageError(
            f"arch={arch!r:.80}: give the name of a network, 'resnet18' for example, or a module"
        )
    if arch == SMALL:
        return _of_small(channels, size, pretrained, weights)
    if arch in torchvision_names():
        return _of_torchvision(arch, channels, size, pretrained, weights)
    return timm_backbone(arch, channels, size, pretrained, weights, maps)


def _of_torchvision(
    arch: str,
    channels: int,
    size: tuple[int, int],
    pretrained: bool | None,
    weights: str | Path | None,
) -> Backbone:
    found, why = choose(pretrained, weights, size, lambda: from_torchvision(arch))
    model, fixed = _torchvision_model(arch, size)
    pieces = pieces_of(model)
    if found is not None:
        if fixed is not None and arch.startswith("vit_"):
            found = _with_positions(model, found)
        load_body(model, nn.ModuleList(pieces), found, arch)
    if min(size) < SMALLEST_PRETRAINED and (moved := pool_later(pieces)) != pieces:
        pieces, why = moved, f"{why}; its max-pooling comes after the first stage, for such images"
    holder = nn.Sequential(*pieces)
    adapt_channels(holder, channels, arch)
    body = Body(list(holder), channels, size, fixed, arch)
    return Backbone(body, found.stats if found else None, why)


def _torchvision_model(
    arch: str, size: tuple[int, int]
) -> tuple[nn.Module, tuple[int, int] | None]:
    """A network of torchvision with weights of chance, and the one size that it takes, if so."""
    from torchvision import models  # type: ignore[import-untyped]

    options: dict[str, Any] = {}
    fixed = None
    if arch in ("googlenet", "inception_v3"):
        options = {"init_weights": True}
    elif arch.startswith("vit_"):
        patch = int(arch.rpartition("_")[2])
        side = -(-max(size) // patch) * patch
        options, fixed = {"image_size": side}, (side, side)
    elif arch.startswith("maxvit"):
        side = -(-max(size) // 224) * 224  # windows of 7 pixels at 1/32 of the size
        options, fixed = {"input_size": (side, side)}, (side, side)
    return models.get_model(arch, weights=None, **options), fixed


def _with_positions(model: Any, found: Weights) -> Weights:
    """Weights of a ViT whose embeddings of positions fit another number of patches."""
    from torchvision.models.vision_transformer import interpolate_embeddings  # type: ignore[import-untyped]

    tensors = interpolate_embeddings(
        model.image_size, model.patch_size, dict(found.tensors), reset_heads=True
    )
    return Weights(tensors, found.source, found.stats)


def _of_small(
    channels: int, size: tuple[int, int], pretrained: bool | None, weights: str | Path | None
) -> Backbone:
    if pretrained and weights is None:
        raise UsageError(
            f"{SMALL} has no pretrained weights; take another arch, or give weights='FILE'"
        )
    model = small_cnn(channels)
    found = Weights(read_weights(weights), str(weights)) if weights is not None else None
    if found is not None:
        load_body(model, model, found, SMALL)
    why = f"weights from {weights}" if found else f"trained from scratch: {SMALL} has no weights"
    return Backbone(
        Body(list(model), channels, size, name=SMALL), found.stats if found else None, why
    )


def _of_module(
    model: nn.Module,
    channels: int,
    size: tuple[int, int],
    pretrained: bool,
    weights: str | Path | None,
) -> Backbone:
    name = type(model).__name__
    pieces = cut(model)
    if weights is not None:
        load_body(model, nn.ModuleList(pieces), Weights(read_weights(weights), str(weights)), name)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and pieces != [model] and type(model) is not nn.Sequential:
        side = max(*size, 64)
        check_cut(model, pieces, torch.rand(1, first.in_channels, side, side))
    if first is not None and first.in_channels != channels:
        raise UsageError(
            f"{name} takes images of {first.in_channels} channels, the data has {channels}: give a "
            f"module for {channels}, or read the images with Image({first.in_channels})"
        )
    known = pretrained or weights is not None
    why = "weights as the module has them" + ("" if known else ", taken as weights of chance")
    body = Body(pieces, channels, size, name=name)
    return Backbone(body, IMAGENET if known else None, why)
