"""What of places and masks counts: said when the data are made, and never a perfect nothing."""

import math

import numpy as np
import pytest
import torch

from trainbus_data import Data
from trainbus_vision import (
    CenterCrop,
    Image,
    ImageLearner,
    Mask,
    MeanIoU,
    PixelAccuracy,
    PointDistance,
    Points,
    keypoints,
    segmentation,
)

OFF = ["-progress", "-journal", "-manifest"]
PHOTO = np.zeros((40, 60, 3), np.uint8)


def test_points_outside_of_their_image_are_counted_with_an_example(caplog):
    """One of two of each item, as (y, x) of a wide image has it."""
    keypoints([PHOTO] * 20, [[(20.0, 30.0), (20.0, 55.0)]] * 20, size=32, num_workers=0)
    assert "16 outside of their image" in caplog.text
    assert "16 counted; item 0 of train" in caplog.text


def test_points_that_a_crop_cuts_off_are_counted(caplog):
    blocks = (Image(), Points())
    points = [[(1.0, 20.0), (30.0, 20.0)]] * 20
    crop = [CenterCrop(20)]
    data = Data.from_lists([PHOTO] * 20, points, blocks, item_transforms=crop, num_workers=0)
    assert "points of 32 in 16 items of training: 16 counted, 16 cut off" in caplog.text
    assert "16 cut off" in data.summary()


def test_missing_points_are_in_the_summary_and_in_no_warning(caplog):
    data = keypoints([PHOTO] * 20, [[None, (30.0, 20.0)]] * 20, size=32, num_workers=0)
    assert not caplog.text
    assert data.summary().endswith("points of 32 in 16 items of training: 16 missing, 16 counted")


def test_masks_that_are_ignored_everywhere_are_said(caplog):
    masks = [np.full((40, 60), 255, np.uint8)] * 20
    segmentation([PHOTO] * 20, masks, codes=3, ignore=255, size=32, num_workers=0)
    assert "ignored" in caplog.text


@pytest.mark.parametrize(
    ("block", "target", "way"),
    [(Points(), [(1.0, 20.0)], "pad"), (Mask(2), np.ones((40, 60), np.uint8), "squish")],
)
def test_a_size_cuts_nothing_off_where_the_target_lies_in_the_picture(block, target, way):
    """Points keep their proportions, masks their pixels; both are whole."""
    data = Data.from_lists([PHOTO] * 20, [target] * 20, (Image(), block), size=32, num_workers=0)
    assert data.recipe.transforms[0].method == way
    seen = data.one_batch()[1].float()
    assert seen.isfinite().all()


@pytest.mark.parametrize(
    "metric",
    [PixelAccuracy(255), MeanIoU(2, 255), PointDistance(lambda output: output)],
    ids=lambda metric: type(metric).__name__,
)
def test_a_metric_over_nothing_is_nan(metric):
    """Before a batch, and after one of which nothing counts."""
    assert math.isnan(metric.compute())
    if isinstance(metric, PointDistance):
        metric.update(torch.zeros(2, 3, 2), torch.full((2, 3, 2), torch.nan))
    else:
        metric.update(torch.rand(2, 2, 4, 4), torch.full((2, 4, 4), 255))
    assert math.isnan(metric.compute())


def test_a_batch_that_is_ignored_everywhere_has_no_weight_in_validation():
    """The loss of validation is that of the pixels that count, however they are in batches."""
    masks = torch.full((20, 32, 32), 255)
    masks[10] = 1
    images = torch.randint(0, 255, (20, 3, 32, 32), dtype=torch.uint8)
    blocks = (Image(), Mask(3, ignore=255))
    data = Data.from_tensors((images, masks), (images, masks), blocks=blocks, batch_size=4)
    learner = ImageLearner(data, arch="resnet18", pretrained=False, plugins=OFF)
    by_batches = learner.validate()["loss"]
    alone = Data.from_tensors((images, masks), (images[10:11], masks[10:11]), blocks=blocks)
    assert by_batches == pytest.approx(learner.validate(alone.valid)["loss"], rel=1e-5)
    learner.fit(1)
    assert all(parameter.isfinite().all() for parameter in learner.model.parameters())
