"""Vision for trainbus: classify images, label their pixels, find points in them.

Importing it imports neither torch nor any other third party: names are looked up when they are
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainbus.lazy import face

if TYPE_CHECKING:
    from trainbus_vision.backbones import backbone as backbone
    from trainbus_vision.body import Body as Body
    from trainbus_vision.channels import adapt_channels as adapt_channels
    from trainbus_vision.datasets import cifar10 as cifar10
    from trainbus_vision.datasets import cifar100 as cifar100
    from trainbus_vision.datasets import fashion_mnist as fashion_mnist
    from trainbus_vision.datasets import kmnist as kmnist
    from trainbus_vision.datasets import mnist as mnist
    from trainbus_vision.datasets import read_idx as read_idx
    from trainbus_vision.factories import image_folder as image_folder
    from trainbus_vision.factories import image_table as image_table
    from trainbus_vision.factories import image_tensors as image_tensors
    from trainbus_vision.factories import keypoints as keypoints
    from trainbus_vision.factories import segmentation as segmentation
    from trainbus_vision.geometry import Boxes as Boxes
    from trainbus_vision.geometry import Points as Points
    from trainbus_vision.heads import ConcatPool as ConcatPool
    from trainbus_vision.images import Image as Image
    from trainbus_vision.images import Mask as Mask
    from trainbus_vision.images import find_images as find_images
    from trainbus_vision.learner import ImageLearner as ImageLearner
    from trainbus_vision.libraries import Backbone as Backbone
    from trainbus_vision.metrics import MeanIoU as MeanIoU
    from trainbus_vision.metrics import PixelAccuracy as PixelAccuracy
    from trainbus_vision.metrics import PointDistance as PointDistance
    from trainbus_vision.model import ImageModel as ImageModel
    from trainbus_vision.model import groups as groups
    from trainbus_vision.model import image_model as image_model
    from trainbus_vision.normalize import Normalize as Normalize
    from trainbus_vision.pictures import picture as picture
    from trainbus_vision.plugin import VisionPlugin as VisionPlugin
    from trainbus_vision.small import small_cnn as small_cnn
    from trainbus_vision.transforms import CenterCrop as CenterCrop
    from trainbus_vision.transforms import RandomCrop as RandomCrop
    from trainbus_vision.transforms import RandomFlip as RandomFlip
    from trainbus_vision.transforms import RandomResizedCrop as RandomResizedCrop
    from trainbus_vision.transforms import Resize as Resize
    from trainbus_vision.unet import Unet as Unet
    from trainbus_vision.weights import NoWeights as NoWeights

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "backbones": "backbone",
        "body": "Body",
        "channels": "adapt_channels",
        "datasets": "cifar10 cifar100 fashion_mnist kmnist mnist read_idx",
        "factories": "image_folder image_table image_tensors keypoints segmentation",
        "geometry": "Boxes Points",
        "heads": "ConcatPool",
        "images": "Image Mask find_images",
        "learner": "ImageLearner",
        "libraries": "Backbone",
        "metrics": "MeanIoU PixelAccuracy PointDistance",
        "model": "ImageModel groups image_model",
        "normalize": "Normalize",
        "pictures": "picture",
        "plugin": "VisionPlugin",
        "small": "small_cnn",
        "transforms": "CenterCrop RandomCrop RandomFlip RandomResizedCrop Resize",
        "unet": "Unet",
        "weights": "NoWeights",
    },
)
