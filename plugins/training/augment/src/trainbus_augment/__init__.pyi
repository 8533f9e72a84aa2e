from trainbus_augment.augmenter import Augmenter as Augmenter
from trainbus_augment.color import (
    Brightness as Brightness,
    Contrast as Contrast,
    Hue as Hue,
    Saturation as Saturation,
)
from trainbus_augment.erasing import Erase as Erase
from trainbus_augment.geometry import (
    Crop as Crop,
    Flip as Flip,
    Rotate as Rotate,
    Warp as Warp,
    Zoom as Zoom,
)
from trainbus_augment.mixing import (
    CutMix as CutMix,
    LabelSmoothing as LabelSmoothing,
    MixUp as MixUp,
)
from trainbus_augment.plugin import Augment as Augment
from trainbus_augment.policies import (
    AutoAugment as AutoAugment,
    RandAugment as RandAugment,
    TrivialAugment as TrivialAugment,
)
from trainbus_augment.presets import standard as standard
from trainbus_augment.transforms import BatchTransform as BatchTransform, Transform as Transform
from trainbus_augment.wrappers import Kornia as Kornia, Torchvision as Torchvision
