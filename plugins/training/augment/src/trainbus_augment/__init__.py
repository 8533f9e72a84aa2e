"""Random augmentation of whole batches of images, on the device they are on.

Importing it imports no torch: names are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus_augment.augmenter import Augmenter as Augmenter
    from trainbus_augment.color import Brightness as Brightness
    from trainbus_augment.color import Contrast as Contrast
    from trainbus_augment.color import Hue as Hue
    from trainbus_augment.color import Saturation as Saturation
    from trainbus_augment.erasing import Erase as Erase
    from trainbus_augment.geometry import Crop as Crop
    from trainbus_augment.geometry import Flip as Flip
    from trainbus_augment.geometry import Rotate as Rotate
    from trainbus_augment.geometry import Warp as Warp
    from trainbus_augment.geometry import Zoom as Zoom
    from trainbus_augment.mixing import CutMix as CutMix
    from trainbus_augment.mixing import LabelSmoothing as LabelSmoothing
    from trainbus_augment.mixing import MixUp as MixUp
    from trainbus_augment.plugin import Augment as Augment
    from trainbus_augment.policies import AutoAugment as AutoAugment
    from trainbus_augment.policies import RandAugment as RandAugment
    from trainbus_augment.policies import TrivialAugment as TrivialAugment
    from trainbus_augment.presets import standard as standard
    from trainbus_augment.transforms import BatchTransform as BatchTransform
    from trainbus_augment.transforms import Transform as Transform
    from trainbus_augment.wrappers import Kornia as Kornia
    from trainbus_augment.wrappers import Torchvision as Torchvision

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "augmenter": "Augmenter",
        "color": "Brightness Contrast Hue Saturation",
        "erasing": "Erase",
        "geometry": "Crop Flip Rotate Warp Zoom",
        "mixing": "CutMix LabelSmoothing MixUp",
        "plugin": "Augment",
        "policies": "AutoAugment RandAugment TrivialAugment",
        "presets": "standard",
        "transforms": "BatchTransform Transform",
        "wrappers": "Kornia Torchvision",
    },
)
