"""Cut a network before its classifier, by rule."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus_learner.snapshots import evaluating

#: How the children are called that follow the body of a classifier: pooling and what comes after.
_AFTER = {
    "avgpool",
    "global_pool",
    "pool",
    "flatten",
    "dropout",
    "classifier",
    "fc",
    "head",
    "heads",
}
#: Plain containers, whose children are pieces of their own.
_INSIDE = (nn.Sequential, nn.ModuleList)


def pieces_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a classifier before its global pooling, in the order of its children.

    Side branches (`aux...`, used in training alone) are left out. A DenseNet applies a ReLU outside
    of its children, which is added.
    """
    from torchvision.models import DenseNet, VisionTransformer  # type: ignore[import-untyped]

    if isinstance(model, VisionTransformer):
        model.heads = nn.Identity()  # gives its class token
        return [model]
    pieces: list[nn.Module] = []
    for name, child in model.named_children():
        if name in _AFTER or _pools_all(child):
            break
        if not name.lower().startswith("aux"):
            pieces += _opened(child)
    if isinstance(model, DenseNet):
        pieces.append(nn.ReLU(inplace=True))
    return pieces


def pool_later(pieces: list[nn.Module]) -> list[nn.Module]:
    """For small images: the max-pooling behind a strided stem comes after the first stage instead.

    A ResNet for photos makes 7 x 7 of 28 x 28 pixels before its first stage, and 1 x 1 before its
    last. The parameters are the same; the work grows by about a half. Networks of another kind
    stay as they are.
    """
    pools = [i for i, piece in enumerate(pieces) if isinstance(piece, nn.MaxPool2d)]
    if not pools or not any(map(_strides, pieces[: pools[0]])):
        return pieces
    first = pools[0]
    end = next((i for i in range(first + 1, len(pieces)) if _strides(pieces[i])), first + 1)
    return [*pieces[:first], *pieces[first + 1 : end], pieces[first], *pieces[end:]]


def _strides(piece: nn.Module) -> bool:
    """Whether a convolution in it makes maps smaller."""
    convolutions = (m for m in piece.modules() if isinstance(m, nn.Conv2d))
    return any(max(convolution.stride) > 1 for convolution in convolutions)


def cut(model: nn.Module) -> list[nn.Module]:
    """The pieces of a module that somebody gave: checked, for what its `forward` does is unknown.

    A module without pooling and classifier is one piece, a sequence its parts.
    """
    if type(model) in _INSIDE:
        return [piece for child in model.children() for piece in _opened(child)]
    children = dict(model.named_children())
    tail = [name for name, child in children.items() if name in _AFTER or _pools_all(child)]
    return pieces_of(model) if tail else [model]


def check_cut(model: nn.Module, pieces: list[nn.Module], image: Tensor) -> None:
    """Compare what the pieces give with what the model itself hands to what follows them.

    Raises:
        UsageError: it does something else in between.
    """
    kept = {id(module) for piece in pieces for module in piece.modules()}
    after = [m for m in model.modules() if id(m) not in kept and not list(m.children())]
    seen: list[Tensor] = []

    def note(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0])

    hooks = [module.register_forward_pre_hook(note) for module in after]
    try:
        with evaluating(model):
            model(image)
            value = image
            for piece in pieces:
                value = piece(value)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or not _same(value, seen[0]):
        raise UsageError(
            f"{type(model).__name__} cannot be cut before its classifier by rule: its children one "
            "after the other do not give what it computes. Give the body alone, as nn.Sequential "
            "or a module that returns maps; or use it whole: head='whole'"
        )


def _same(value: Tensor, seen: Tensor) -> bool:
    """Whether the classifier sees these maps, or their mean."""
    if value.ndim == 4 and seen.ndim == 2:
        value = value.mean((2, 3)) if value.shape[1] == seen.shape[1] else value.flatten(1)
    return value.shape == seen.shape and torch.allclose(value, seen, rtol=1e-3, atol=1e-5)


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) in _INSIDE:
        for child in module.children():
            yield from _opened(child)
    else:
        yield module


def _pools_all(module: nn.Module) -> bool:
    """Whether it makes one pixel of a map."""
    pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return isinstance(module, pools) and module.output_size in (1, (1, 1), (7, 7), (6, 6))
