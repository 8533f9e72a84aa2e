"""What the libraries of networks share: a body with its weights, and names that are unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from trainbus import UsageError
from trainbus_vision.body import Body
from trainbus_vision.weights import SMALLEST_PRETRAINED, NoWeights, Stats, Weights, read_weights

SMALL = "small_cnn"


@dataclass(frozen=True)
class Backbone:
    """A body, and what is known of its weights."""

    body: Body
    #: The statistics of the images that its weights know; None for weights of chance.
    stats: Stats | None
    #: In words: where the weights are from, or why there are none.
    why: str

    @property
    def pretrained(self) -> bool:
        """Whether its weights have learned something."""
        return self.stats is not None


def torchvision_names() -> list[str]:
    """The classifiers that torchvision has."""
    from torchvision import models  # type: ignore[import-untyped]

    return list(models.list_models(module=models))


def unknown(arch: str, names: Sequence[str], more: str = "") -> UsageError:
    """The error for a name that nobody has, with the nearest that somebody has."""
    known = sorted({SMALL, *names})
    near = get_close_matches(arch.removeprefix("timm/"), known, n=3, cutoff=0.5)
    hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
    return UsageError(f"arch={arch!r}: there is no such network{hint}{more}")


def choose(
    pretrained: bool | None,
    weights: str | Path | None,
    size: tuple[int, int],
    find: Any,
) -> tuple[Weights | None, str]:
    """The weights to start with, or none, and why.

    Raises:
        UsageError: those that were asked for cannot be had.
    """
    if weights is not None:
        return Weights(read_weights(weights), str(weights)), f"weights from {weights}"
    if pretrained is False:
        return None, "trained from scratch: pretrained=False"
    if pretrained is None and min(size) < SMALLEST_PRETRAINED:
        return None, (
            f"trained from scratch: images of {size[0]} x {size[1]} pixels are smaller than "
            f"{SMALLEST_PRETRAINED}, too small for what pretrained weights know"
        )
    try:
        found = find()
    except NoWeights as problem:
        if pretrained:
            raise
        return None, f"trained from scratch: {problem}"
    return found, f"pretrained weights: {found.source}"
