"""Random augmentation of whole batches of images, on the device they are on.

Importing it imports no torch: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainbus_augment.augmenter import Augmenter
    from trainbus_augment.color import Brightness, Contrast, Hue, Saturation
    from trainbus_augment.erasing import Erase
    from trainbus_augment.geometry import Crop, Flip, Rotate, Warp, Zoom
    from trainbus_augment.mixing import CutMix, LabelSmoothing, MixUp
    from trainbus_augment.plugin import Augment
    from trainbus_augment.policies import AutoAugment, RandAugment, TrivialAugment
    from trainbus_augment.presets import standard
    from trainbus_augment.transforms import BatchTransform, Transform
    from trainbus_augment.wrappers import Kornia, Torchvision

_LAZY = {
    "Augment": "plugin",
    "Augmenter": "augmenter",
    "AutoAugment": "policies",
    "BatchTransform": "transforms",
    "Brightness": "color",
    "Contrast": "color",
    "Crop": "geometry",
    "CutMix": "mixing",
    "Erase": "erasing",
    "Flip": "geometry",
    "Hue": "color",
    "Kornia": "wrappers",
    "LabelSmoothing": "mixing",
    "MixUp": "mixing",
    "RandAugment": "policies",
    "Rotate": "geometry",
    "Saturation": "color",
    "Torchvision": "wrappers",
    "Transform": "transforms",
    "TrivialAugment": "policies",
    "Warp": "geometry",
    "Zoom": "geometry",
    "standard": "presets",
}

__all__ = [
    "Augment",
    "Augmenter",
    "AutoAugment",
    "BatchTransform",
    "Brightness",
    "Contrast",
    "Crop",
    "CutMix",
    "Erase",
    "Flip",
    "Hue",
    "Kornia",
    "LabelSmoothing",
    "MixUp",
    "RandAugment",
    "Rotate",
    "Saturation",
    "Torchvision",
    "Transform",
    "TrivialAugment",
    "Warp",
    "Zoom",
    "standard",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trainbus_augment' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainbus_augment.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
