from trainbus_vision.average_precision import MeanAveragePrecision as MeanAveragePrecision
from trainbus_vision.backbones import backbone as backbone
from trainbus_vision.body import Body as Body
from trainbus_vision.boxes import Box as Box, Detections as Detections
from trainbus_vision.channels import adapt_channels as adapt_channels
from trainbus_vision.coco import coco as coco
from trainbus_vision.datasets import (
    cifar10 as cifar10,
    cifar100 as cifar100,
    fashion_mnist as fashion_mnist,
    kmnist as kmnist,
    mnist as mnist,
    read_idx as read_idx,
)
from trainbus_vision.detection_learner import (
    DetectionLearner as DetectionLearner,
    detection as detection,
)
from trainbus_vision.detectors import Detector as Detector, detector as detector
from trainbus_vision.duplicates import near_duplicates as near_duplicates
from trainbus_vision.factories import (
    image_folder as image_folder,
    image_table as image_table,
    image_tensors as image_tensors,
    keypoints as keypoints,
    segmentation as segmentation,
)
from trainbus_vision.geometry import Boxes as Boxes, Points as Points
from trainbus_vision.gradcam import Heat as Heat
from trainbus_vision.heads import ConcatPool as ConcatPool
from trainbus_vision.images import Image as Image, Mask as Mask, find_images as find_images
from trainbus_vision.learner import ImageLearner as ImageLearner
from trainbus_vision.libraries import Backbone as Backbone
from trainbus_vision.metrics import (
    MeanIoU as MeanIoU,
    PixelAccuracy as PixelAccuracy,
    PointDistance as PointDistance,
)
from trainbus_vision.model import (
    ImageModel as ImageModel,
    groups as groups,
    image_model as image_model,
)
from trainbus_vision.normalize import Normalize as Normalize
from trainbus_vision.pictures import picture as picture
from trainbus_vision.plugin import VisionPlugin as VisionPlugin
from trainbus_vision.small import small_cnn as small_cnn
from trainbus_vision.transforms import (
    CenterCrop as CenterCrop,
    RandomCrop as RandomCrop,
    RandomFlip as RandomFlip,
    RandomResizedCrop as RandomResizedCrop,
    Resize as Resize,
)
from trainbus_vision.unet import Unet as Unet
from trainbus_vision.weights import NoWeights as NoWeights
