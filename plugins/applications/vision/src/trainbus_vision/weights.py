"""Pretrained weights: from torchvision's cache, its server, or a file; or why there are none."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus_learner import weights as starting_weights
from trainbus_vision.normalize import IMAGENET

#: Below this height or width pretrained weights, learned on images of 224 pixels, help little.
SMALLEST_PRETRAINED = 64
#: Seconds that a server has to answer.
_PATIENCE = 3.0

Stats = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Weights:
    """Tensors by name, where they are from, and the statistics of the images they know."""

    tensors: Mapping[str, Tensor]
    source: str
    stats: Stats = IMAGENET


class NoWeights(UsageError):
    """Pretrained weights cannot be had; the message says what to do."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file: what `torch.save(model.state_dict())` wrote, or safetensors.

    Raises:
        UsageError: there is no such file, or it holds something else.
    """
    return dict(starting_weights.read(path).tensors)


def is_own(tensors: Mapping[str, Tensor]) -> bool:
    """Whether they are of an `ImageModel`, and not of a network of a library."""
    ends = ("normalize.mean", "normalize.std")
    return all(any(name.endswith(end) for name in tensors) for end in ends)


def from_torchvision(arch: str) -> Weights:
    """The default weights of a model of torchvision.

    Raises:
        NoWeights: they are neither in the cache, nor can they be fetched.
    """
    found, choice = _fetched(arch)
    if arch in ("googlenet", "inception_v3"):  # converted from TensorFlow
        return Weights(found.tensors, found.source, ((0.5,) * 3, (0.5,) * 3))
    known = choice.transforms()
    return Weights(found.tensors, found.source, (tuple(known.mean), tuple(known.std)))


def _fetched(arch: str) -> tuple[Weights, Any]:
    """The default weights of a model, and what torchvision says of them."""
    from torchvision import models  # type: ignore[import-untyped]

    try:
        choice = models.get_model_weights(arch).DEFAULT
    except AttributeError:
        raise NoWeights(f"torchvision has no pretrained weights of {arch}") from None
    url = choice.url
    name = Path(urlparse(url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if cached.is_file():
        tensors = read_weights(cached)
    else:
        if problem := unreachable(url):
            raise NoWeights(_missing(arch, cached, url, problem))
        tensors = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    return Weights(tensors, str(cached)), choice


def detector_weights(arch: str) -> Weights:
    """The default weights of a detector of torchvision, which normalizes by itself.

    Raises:
        NoWeights: they are neither in the cache, nor can they be fetched.
    """
    return _fetched(arch)[0]


def unreachable(url: str) -> str | None:
    """Why a file cannot be fetched from its server, or None: known after some three seconds."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PATIENCE):
                answer.append(None)
        except (OSError, ValueError) as error:
            answer.append(str(getattr(error, "reason", None) or error))

    # In a thread: to look up the name of a server has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE + 1)
    host = urlparse(url).hostname
    if not answer:
        return f"{host} does not answer"
    return None if answer[0] is None else f"{host} cannot be reached ({answer[0]})"


def _missing(arch: str, cached: Path, url: str, problem: str) -> str:
    return (
        f"pretrained weights of {arch} are not here: there is no file {cached}, and {problem}. "
        f"Download {url} where there is a network, and place it there; or give its path: "
        "weights='FILE'. pretrained=False trains from scratch"
    )


def load_body(model: nn.Module, body: nn.Module, weights: Weights, arch: str) -> None:
    """Put tensors into a whole model, of which the body must be complete; the rest may differ.

    Raises:
        UsageError: the tensors belong to another architecture.
    """
    own = model.state_dict(keep_vars=True)
    needed = {id(tensor) for tensor in body.state_dict(keep_vars=True).values()}
    counters = "num_batches_tracked"  # old files have none
    wanted = [
        name for name, tensor in own.items() if id(tensor) in needed and not name.endswith(counters)
    ]
    given = weights.tensors
    missing = [name for name in wanted if name not in given]
    differ = [name for name in wanted if name in given and given[name].shape != own[name].shape]
    if missing or differ:
        example = missing[0] if missing else _differing(differ[0], given, own)
        raise UsageError(
            f"{weights.source} holds weights of another architecture than {arch}: of "
            f"{len(wanted)} tensors {len(missing)} are missing and {len(differ)} have another "
            f"shape, {example} for example"
        )
    fitting = {
        name: tensor
        for name, tensor in given.items()
        if name in own and own[name].shape == tensor.shape
    }
    model.load_state_dict(fitting, strict=False)


def _differing(name: str, given: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return f"{name} with {tuple(given[name].shape)} in place of {tuple(own[name].shape)}"
