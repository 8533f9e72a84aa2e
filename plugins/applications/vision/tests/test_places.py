"""Predicted points and masks come back to the photo, whatever its size was brought to."""

import numpy as np
import pytest
import torch
from torch import nn

from trainbus_data import Data
from trainbus_learner import Learner, load
from trainbus_vision import (
    CenterCrop,
    Image,
    Mask,
    Points,
    RandomFlip,
    Resize,
    keypoints,
)

OFF = ["-progress", "-journal", "-manifest"]
PHOTO = np.zeros((120, 400, 3), dtype=np.uint8)
PHOTO[50:70, 190:230] = 255  # its middle is at (210, 60)


class Brightest(nn.Module):
    """Finds the middle of what is bright, as points; or says which pixels are."""

    def __init__(self, pixels):
        super().__init__()
        self.scale, self.pixels = nn.Parameter(torch.ones(1)), pixels

    def forward(self, x):
        bright = x[:, 0] * self.scale
        if self.pixels:
            return torch.stack((0.5 - bright, bright - 0.5), 1)
        height, width = bright.shape[1:]
        rows, columns = (torch.arange(n) * 2 + 1 - n for n in (height, width))
        weight = bright.sum((1, 2)).clamp(min=1e-9)
        x = (bright * (columns / width)).sum((1, 2)) / weight
        y = (bright * (rows / height)[:, None]).sum((1, 2)) / weight
        return torch.stack((x, y), 1)


def learner_of(block, target, *transforms):
    data = Data.from_lists(
        [PHOTO] * 20, [target] * 20, (Image(), block),
        item_transforms=transforms, num_workers=0,
    )  # fmt: skip
    return Learner(data, Brightest(block.kind == "mask"), plugins=OFF)


WAYS = {
    "crop": [Resize(60)],
    "pad": [Resize(64, "pad")],
    "squish": [Resize((60, 100), "squish")],
    "centre": [CenterCrop(100), RandomFlip()],
    "twice": [Resize((60, 200)), CenterCrop((50, 90))],
    "as it is": [],
}


@pytest.mark.parametrize("way", WAYS)
def test_points_are_in_pixels_of_the_photo(way):
    """And those of the network's image remain in `value`."""
    learner = learner_of(Points(), [(210.0, 60.0)], *WAYS[way])
    prediction = learner.predict(PHOTO)
    torch.testing.assert_close(
        torch.tensor(prediction.label), torch.tensor([[210.0, 60.0]]), atol=1.5, rtol=0
    )
    if way != "as it is":
        assert abs(prediction.value[0, 0] - 210) > 50


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ignore", [None, 255])
def test_masks_have_the_size_of_the_photo(way, ignore):
    """What was cut off is the code to ignore, or -1."""
    learner = learner_of(Mask(2, ignore), np.zeros((120, 400), dtype=np.uint8), *WAYS[way])
    label = learner.predict(PHOTO).label
    assert label.shape == (120, 400)
    assert label[55:65, 195:225].min() == 1
    assert label[55:65, 165:185].max() == 0
    unseen = -1 if ignore is None else ignore
    assert (label[60, 2] == unseen) == (way in ("crop", "centre", "twice"))


def test_an_export_brings_them_back_too():
    learner = learner_of(Points(), [(210.0, 60.0)], Resize(60))
    learner.export("model")
    again = load("model", model=Brightest(False))
    assert again.predict(PHOTO).label == learner.predict(PHOTO).label


def test_a_transform_that_knows_no_places_leaves_them_in_the_networks_pixels():
    """A function of one's own that resizes: nobody can tell how."""

    def half(parts, kinds):
        image, *rest = parts
        return (image[:, ::2, ::2].contiguous(), *rest)

    learner = learner_of(Points(size=(60, 200)), [(105.0, 30.0)], half)
    assert learner.predict(PHOTO).label[0] == pytest.approx([105, 30], abs=1)


def test_key_points_are_not_cut_off_by_default():
    """The photo is filled up and not cut: a point at its edge is there."""
    data = keypoints([PHOTO] * 20, [[(380.0, 60.0)]] * 20, size=64, num_workers=0)
    assert not data.one_batch()[1].isnan().any()
