"""Vision for trainbus: classify images, label their pixels, find points in them.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainbus_vision.backbones import Backbone, backbone
    from trainbus_vision.body import Body
    from trainbus_vision.channels import adapt_channels
    from trainbus_vision.datasets import cifar10, cifar100, fashion_mnist, kmnist, mnist, read_idx
    from trainbus_vision.factories import image_folder, image_table, keypoints, segmentation
    from trainbus_vision.heads import ConcatPool
    from trainbus_vision.learner import ImageLearner
    from trainbus_vision.model import ImageModel, groups, image_model
    from trainbus_vision.normalize import Normalize
    from trainbus_vision.pictures import picture
    from trainbus_vision.plugin import VisionPlugin
    from trainbus_vision.small import small_cnn
    from trainbus_vision.unet import Unet
    from trainbus_vision.weights import NoWeights

_LAZY = {
    "Backbone": "backbones",
    "Body": "body",
    "ConcatPool": "heads",
    "ImageLearner": "learner",
    "ImageModel": "model",
    "NoWeights": "weights",
    "Normalize": "normalize",
    "Unet": "unet",
    "VisionPlugin": "plugin",
    "adapt_channels": "channels",
    "backbone": "backbones",
    "cifar10": "datasets",
    "cifar100": "datasets",
    "fashion_mnist": "datasets",
    "groups": "model",
    "image_folder": "factories",
    "image_model": "model",
    "image_table": "factories",
    "keypoints": "factories",
    "kmnist": "datasets",
    "mnist": "datasets",
    "picture": "pictures",
    "read_idx": "datasets",
    "segmentation": "factories",
    "small_cnn": "small",
}

__all__ = [
    "Backbone",
    "Body",
    "ConcatPool",
    "ImageLearner",
    "ImageModel",
    "NoWeights",
    "Normalize",
    "Unet",
    "VisionPlugin",
    "adapt_channels",
    "backbone",
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "groups",
    "image_folder",
    "image_model",
    "image_table",
    "keypoints",
    "kmnist",
    "mnist",
    "picture",
    "read_idx",
    "segmentation",
    "small_cnn",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'trainbus_vision' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"trainbus_vision.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
