"""Transforms of pairs of samples and of targets: MixUp, CutMix, label smoothing.

Classes become probabilities, which `torch.nn.functional.cross_entropy` takes as targets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus_augment import host
from trainbus_augment.erasing import inside
from trainbus_augment.transforms import BatchTransform, Size, check_probability, check_range

_TARGETS = ("category", "categories", "number")


class _Mix(BatchTransform):
    """What MixUp and CutMix share: a partner for each image, and targets in proportion.

    Args:
        alpha: of the Beta(alpha, alpha) distribution of the proportions.
        classes: how many there are; needed where targets are whole numbers.
        p: the probability for each image.
    """

    mixes = True

    def __init__(self, alpha: float, classes: int | None = None, p: float = 1.0) -> None:
        who = type(self).__name__
        if not 0 < alpha <= 1000:
            raise UsageError(f"{who}: alpha={alpha!r}: give a number above 0, as in 0.4")
        self.alpha = float(alpha)
        self.classes = check_classes(who, classes)
        self.p = check_probability(who, p)

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Mix each image with another one of the batch, and so their targets."""
        who = type(self).__name__
        targets = target_places(who, parts, kinds, self.classes)
        image = parts[kinds.index("image")]
        draw = host.uniform(len(image), 3, generator)
        partner = torch.randperm(len(image), generator=generator)
        share = torch.where(draw[:, 0] < self.p, self.proportions(len(image), generator), 1.0)
        mixed = bool(host.true_rows(share < 1))
        box, share = self.box(share, draw[:, 1:], Size(*image.shape[-2:]))
        if not mixed:
            return
        for place, kind in enumerate(kinds):
            part = parts[place]
            if kind == "image":
                others = part[partner.to(part.device, non_blocking=True)]
                parts[place] = self.images(part, others, share, box)
            elif place in targets:
                others = part[partner.to(part.device, non_blocking=True)]
                parts[place] = _lerp(others, part, share)

    def proportions(self, count: int, generator: torch.Generator | None) -> Tensor:
        """From Beta(alpha, alpha), as a ratio of two gamma variables."""
        # torch.distributions draws by this function, but takes no generator.
        gamma = torch._standard_gamma(
            torch.full((2, count), self.alpha, dtype=host.FLOAT), generator=generator
        ).clamp(min=1e-300)
        return gamma[0] / gamma.sum(dim=0)

    def box(self, share: Tensor, draw: Tensor, size: Size) -> tuple[Tensor | None, Tensor]:
        """The part that comes from the partner, and the share of the image itself after all."""
        return None, share

    def images(self, own: Tensor, others: Tensor, share: Tensor, box: Tensor | None) -> Tensor:
        """The mixed images."""
        raise NotImplementedError


class MixUp(_Mix):
    """Mix two images and their targets (Zhang et al., 2017, "mixup: Beyond Empirical Risk ...").

    The proportion is drawn for each image, and the larger share is always the image's own: the same
    mixtures, with less of a chance that two of a batch are alike.

    Args:
        alpha: of the Beta(alpha, alpha) distribution of the proportions.
        classes: how many there are; needed where targets are whole numbers.
        p: the probability for each image.
    """

    def __init__(self, alpha: float = 0.4, classes: int | None = None, p: float = 1.0) -> None:
        super().__init__(alpha, classes, p)

    def proportions(self, count: int, generator: torch.Generator | None) -> Tensor:
        """At least one half."""
        share = super().proportions(count, generator)
        return torch.maximum(share, 1 - share)

    def images(self, own: Tensor, others: Tensor, share: Tensor, box: Tensor | None) -> Tensor:
        """A weighted mean."""
        return _lerp(others, own, share)


class CutMix(_Mix):
    """Paste a rectangle of another image (Yun et al., 2019, "CutMix").

    The targets are mixed by the area that is pasted, in whole pixels.

    Args:
        alpha: of the Beta(alpha, alpha) distribution of the area that stays.
        classes: how many there are; needed where targets are whole numbers.
        p: the probability for each image.
    """

    def __init__(self, alpha: float = 1.0, classes: int | None = None, p: float = 1.0) -> None:
        super().__init__(alpha, classes, p)

    def box(self, share: Tensor, draw: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """A rectangle of the shape of the image about a random point, cut off at the edge."""
        whole = draw.new_tensor([size.width, size.height])
        half = (1 - share)[:, None].sqrt() * whole / 2
        low = (draw * whole - half).round().clamp(min=0)
        high = torch.minimum((draw * whole + half).round(), whole)
        box = torch.cat([low, high], dim=1)
        return box, 1 - (high - low).prod(dim=1) / whole.prod()

    def images(self, own: Tensor, others: Tensor, share: Tensor, box: Tensor | None) -> Tensor:
        """One inside of the rectangle, the other outside."""
        assert box is not None
        return torch.where(inside(box, own), others, own)


class LabelSmoothing(BatchTransform):
    """Move a part of each target's probability to all classes (Szegedy et al., 2016).

    "Rethinking the Inception Architecture", section 7. Put it last, after MixUp and CutMix. What is
    logged in training is then the loss of smoothed targets; the loss of validation is not.

    Args:
        amount: the part that is spread evenly over the classes.
        classes: how many there are; needed where targets are whole numbers.
    """

    mixes = True

    def __init__(self, amount: float = 0.1, classes: int | None = None) -> None:
        self.amount = check_range("LabelSmoothing", "amount", amount, 0, 1)
        self.classes = check_classes("LabelSmoothing", classes)

    def apply(
        self, parts: list[Tensor], kinds: Sequence[str], generator: torch.Generator | None
    ) -> None:
        """Smooth the targets that are classes."""
        places = target_places("LabelSmoothing", parts, kinds, self.classes, ("category",))
        for place in places:
            target = parts[place]
            parts[place] = target * (1 - self.amount) + self.amount / target.shape[1]


def check_classes(who: str, classes: int | None) -> int | None:
    """At least two, or not said."""
    if classes is not None and (
        isinstance(classes, bool) or int(classes) != classes or classes < 2
    ):
        raise UsageError(f"{who}: classes={classes!r}: give how many classes there are, at least 2")
    return classes


def target_places(
    who: str,
    parts: list[Tensor],
    kinds: Sequence[str],
    classes: int | None,
    targets: Sequence[str] = _TARGETS,
) -> list[int]:
    """Where the targets are; classes among them are replaced by probabilities.

    Raises:
        UsageError: there is none, or one that cannot be mixed.
    """
    for place, kind in enumerate(kinds):
        if kind in ("mask", "points", "boxes") or (kind in _TARGETS and kind not in targets):
            raise UsageError(
                f"{who} is for targets that are {' or '.join(targets)}; part {place} of the batch "
                f"is {kind!r}: leave {who} out"
            )
    places = [place for place, kind in enumerate(kinds) if kind in targets]
    if not places:
        raise UsageError(
            f"{who} changes targets, and kinds={list(kinds)!r} has none; say what the target is, "
            f"in kinds=['image', '{targets[0]}']"
        )
    for place in places:
        parts[place] = _probabilities(who, parts[place], kinds[place], place, classes)
    return places


def _probabilities(who: str, target: Tensor, kind: str, place: int, classes: int | None) -> Tensor:
    """A target that can be mixed, in float."""
    where = f"{who}: part {place} of the batch, kind {kind!r},"
    if not isinstance(target, Tensor):
        raise UsageError(f"{where} is a {type(target).__name__}; give a tensor")
    if kind != "category":
        return target if target.is_floating_point() else target.float()
    if target.is_floating_point() and target.ndim == 2:
        return target  # probabilities already
    if target.is_floating_point() or target.ndim != 1:
        raise UsageError(
            f"{where} is {target.dtype} of shape {tuple(target.shape)}; it has to be whole numbers "
            "of shape N, or probabilities of shape N x classes"
        )
    if classes is None:
        raise UsageError(
            f"{where} holds whole numbers: say how many classes there are, as in "
            f"{who}(classes=10), or by the option classes of the plugin"
        )
    made = torch.zeros(len(target), classes, device=target.device)
    try:
        return made.scatter_(1, target[:, None].long(), 1.0)
    except (RuntimeError, IndexError) as error:  # a device finds it later
        if not target.is_cpu:
            raise
        raise UsageError(
            f"{where} holds a class that is not in 0..{classes - 1}: {error}"
        ) from error


def _lerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """`share` of `end` and the rest of `start`, for each sample."""
    weight = host.send(share, end.device).to(end.dtype)
    return torch.lerp(start, end, weight.view(-1, *[1] * (end.ndim - 1)))
