"""Sets of transforms that are known to be good."""

from __future__ import annotations

from trainbus import UsageError
from trainbus_augment.color import Brightness, Contrast
from trainbus_augment.geometry import Crop, Flip, Rotate, Warp, Zoom
from trainbus_augment.transforms import Transform


def standard(
    flip: bool | float = True,
    vertical: bool | float = False,
    rotate: float = 10.0,
    zoom: float = 1.1,
    warp: float = 0.2,
    lighting: float = 0.2,
    p_affine: float = 0.75,
    p_lighting: float = 0.75,
    size: int | tuple[int, int] | None = None,
    min_scale: float = 1.0,
) -> list[Transform]:
    """What is good for photos: mirrored, turned, enlarged and tilted a little, in another light.

    The ranges come from fastai's `aug_transforms` (Howard and Gugger, 2020). 0, or False, and
    for `zoom` 1, leaves a transform out.

    Args:
        flip: mirror left and right: True for half of the images, or a probability.
        vertical: the same for top and bottom (photos from above, microscopes).
        rotate: the largest angle in degrees.
        zoom: the largest factor.
        warp: the largest tilt; see `Warp`.
        lighting: the largest change of brightness, and of contrast.
        p_affine: the probability of rotation, zoom and warp, each.
        p_lighting: the probability of brightness and contrast, each.
        size: resize to this, by a random crop of at least `min_scale` of the area.
        min_scale: the least part of the area that a crop keeps; below 1 it needs `size`.

    Raises:
        UsageError: a value is out of its range.
    """
    transforms: list[Transform] = []
    if flip:
        transforms.append(Flip(0.5 if flip is True else flip))
    if vertical:
        transforms.append(Flip(0.5 if vertical is True else vertical, vertical=True))
    if warp:
        transforms.append(Warp(warp, p=p_affine))
    if rotate:
        transforms.append(Rotate(rotate, p=p_affine))
    if zoom != 1:
        transforms.append(Zoom(zoom, p=p_affine))
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        play = 4 / 3 if min_scale < 1 else 1.0
        ratio = (width / height / play, width / height * play)
        transforms.append(Crop((height, width), scale=(min_scale, 1.0), ratio=ratio))
    elif min_scale != 1:
        raise UsageError(f"min_scale={min_scale} needs size=: a crop is resized to one size")
    if lighting:
        transforms.append(Brightness(lighting, p=p_lighting))
        transforms.append(Contrast(lighting, p=p_lighting))
    return transforms


def policy_named(name: str) -> list[Transform]:
    """A learned or random policy, with the options of its paper."""
    from trainbus_augment.policies import AutoAugment, RandAugment, TrivialAugment

    policies: dict[str, type[Transform]] = {
        "randaugment": RandAugment,
        "trivialaugment": TrivialAugment,
        "autoaugment": AutoAugment,
    }
    if name not in policies:
        raise UsageError(f"policy={name!r}: there are {', '.join(policies)}")
    return [policies[name]()]


def mixing(
    erase: float, mixup: float, cutmix: float, smoothing: float, classes: int | None
) -> list[Transform]:
    """What is done to the finished images and their targets; 0 leaves a transform out."""
    from trainbus_augment.erasing import Erase
    from trainbus_augment.mixing import CutMix, LabelSmoothing, MixUp

    transforms: list[Transform] = []
    p = 0.5 if mixup and cutmix else 1.0
    if erase:
        transforms.append(Erase(erase))
    if mixup:
        transforms.append(MixUp(mixup, classes, p=p))
    if cutmix:
        transforms.append(CutMix(cutmix, classes, p=p))
    if smoothing:
        transforms.append(LabelSmoothing(smoothing, classes))
    return transforms
