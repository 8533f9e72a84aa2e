"""Policies: a few operations for each image, out of a list, chosen at random or learned.

Operations that move pixels join the one interpolation of the batch. Brightness, color, contrast and
inversion are tones; what is neither is done in a pass of its own over the images that drew it.
Contrast is about mid-grey, not about the mean of the image, and shears are about the middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import effects, host
from trainbus_augment.color import saturation
from trainbus_augment.learned import POLICIES
from trainbus_augment.transforms import Effect, Look, Size, Tone, Transform, affine, check_range

#: What a policy may choose from; an operation is an index into it.
OPERATIONS = (
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert",
)  # fmt: skip
_INDEX = {name: number for number, name in enumerate(OPERATIONS)}
_EFFECTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Sharpness": effects.sharpness, "Posterize": effects.posterize, "Solarize": effects.solarize,
    "AutoContrast": effects.autocontrast, "Equalize": effects.equalize,
}  # fmt: skip


@dataclass(frozen=True)
class Strongest:
    """What each operation does at a strength of 1."""

    shear: float = 0.3
    #: Of width or height; or pixels, above 1.
    translate: float = 150 / 331
    degrees: float = 30.0
    #: How far brightness, color, contrast and sharpness are from a factor of 1.
    factor: float = 0.9
    #: That are dropped, of 8.
    bits: int = 4


@dataclass
class Step:
    """One operation for each image: its index, its strength in [0, 1] and its sign; N each."""

    operation: Tensor
    strength: Tensor
    sign: Tensor

    def amount(self, name: str, most: float) -> Tensor:
        """Signed, for the images with this operation, and 0 for others."""
        chosen = self.operation == _INDEX[name]
        return torch.where(chosen, self.strength * self.sign * most, 0.0)


class Policy(Transform):
    """A sequence of operations for each image."""

    strongest = Strongest()

    def steps(self, draw: Tensor) -> list[Step]:
        """What each image gets, in order."""
        raise NotImplementedError

    def matrix(self, draw: Tensor, size: Size) -> Tensor:
        """Those of the operations that move pixels, one after the other."""
        composed: Tensor | None = None
        for step in self.steps(draw):
            new = self._matrix(step, size)
            composed = new if composed is None else composed @ new
        assert composed is not None
        return composed

    def _matrix(self, step: Step, size: Size) -> Tensor:
        most = self.strongest
        across = down = most.translate
        if most.translate <= 1:
            across, down = most.translate * size.width, most.translate * size.height
        angle = step.amount("Rotate", most.degrees) * (math.pi / 180)
        cos, sin = angle.cos(), angle.sin()
        # Each image has one of these at most: the others are 0.
        return affine(
            len(angle),
            xx=cos, xy=step.amount("ShearX", most.shear) - sin, x=step.amount("TranslateX", across),
            yx=step.amount("ShearY", most.shear) + sin, yy=cos, y=step.amount("TranslateY", down),
        )  # fmt: skip

    def looks(self, draw: Tensor, channels: int) -> Sequence[Look]:
        """A tone for each step, and the effects of the images that drew one."""
        looks: list[Look] = []
        for step in self.steps(draw):
            looks.append(self._tone(step, channels))
            looks += self._effects(step)
        return looks

    def _tone(self, step: Step, channels: int) -> Tone:
        factor = self.strongest.factor
        brightness, contrast = step.amount("Brightness", factor), step.amount("Contrast", factor)
        invert = (step.operation == _INDEX["Invert"]).to(host.FLOAT)
        color = step.amount("Color", factor)
        # Images without three channels have no colors: there it does nothing.
        matrix = saturation(1 + color) if channels == 3 else None
        return Tone(1 + brightness + contrast - 2 * invert, invert - contrast / 2, matrix)

    def _effects(self, step: Step) -> list[Look]:
        amounts = {
            "Sharpness": 1 + step.strength * step.sign * self.strongest.factor,
            "Posterize": 8 - (step.strength * self.strongest.bits).round(),
            "Solarize": 1 - step.strength,
        }
        looks: list[Look] = []
        for name, function in _EFFECTS.items():
            if rows := host.true_rows(step.operation == _INDEX[name]):
                looks.append(Effect(function, rows, amounts.get(name, step.strength)[rows]))
        return looks


class RandAugment(Policy):
    """Some operations at one strength (Cubuk et al., 2020, "RandAugment").

    Args:
        operations: for each image.
        magnitude: how strong they are, from 0 to 30.
    """

    def __init__(self, operations: int = 2, magnitude: float = 9) -> None:
        if not 1 <= operations <= 10:
            raise UsageError(f"RandAugment: operations={operations!r}: give a number from 1 to 10")
        self.operations = operations
        self.magnitude = check_range("RandAugment", "magnitude", magnitude, 0, 30)
        self.draws = 2 * operations

    def steps(self, draw: Tensor) -> list[Step]:
        """Any operation but inversion, at the same strength."""
        strength = torch.full_like(draw[:, 0], self.magnitude / 30)
        return [
            Step(_any(pair[:, 0]), strength, _sign(pair[:, 1]))
            for pair in torch.split(draw, 2, dim=1)
        ]


class TrivialAugment(Policy):
    """One operation at a random strength, with wide ranges.

    Müller and Hutter (2021), "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation".
    """

    draws = 3
    strongest = Strongest(shear=0.99, translate=32, degrees=135, factor=0.99, bits=6)

    def steps(self, draw: Tensor) -> list[Step]:
        """Any operation but inversion, at 31 strengths."""
        strength = (draw[:, 1] * 31).floor() / 30
        return [Step(_any(draw[:, 0]), strength, _sign(draw[:, 2]))]


class AutoAugment(Policy):
    """One of 25 learned pairs of operations (Cubuk et al., 2019, "AutoAugment").

    Args:
        policy: of the data that it was learned on.
    """

    draws = 5

    def __init__(self, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet") -> None:
        if policy not in POLICIES:
            raise UsageError(f"AutoAugment: policy={policy!r}: there are {', '.join(POLICIES)}")
        self.policy = policy

    def steps(self, draw: Tensor) -> list[Step]:
        """The two operations of a pair, each with its probability and its strength."""
        # Pairs x 2 x (operation, probability, strength).
        pairs = torch.tensor(
            [
                [(_INDEX[name], p, (magnitude or 0) / 9) for name, p, magnitude in pair]
                for pair in POLICIES[self.policy]
            ],
            dtype=host.FLOAT,
        )
        chosen = pairs[(draw[:, 0] * len(pairs)).long()]
        steps = []
        for number in range(2):
            operation, p, strength = chosen[:, number].unbind(dim=1)
            coin, sign = draw[:, 1 + number], draw[:, 3 + number]
            steps.append(Step(torch.where(coin < p, operation, 0.0).long(), strength, _sign(sign)))
        return steps


def _any(draw: Tensor) -> Tensor:
    """Any operation but the last, inversion, which random policies do without."""
    return (draw * (len(OPERATIONS) - 1)).long()


def _sign(draw: Tensor) -> Tensor:
    return torch.where(draw < 0.5, -1.0, 1.0).to(draw)
