"""Left and right of points: exchanged where an image is mirrored, or no default mirrors."""

import logging

import numpy as np
import pytest
import torch

from trainbus import Task, Trainer
from trainbus_augment import Augment, Augmenter, Flip, Rotate
from trainbus_data import DataError
from trainbus_vision import Image, ImageLearner, Points, RandomFlip, keypoints

LEFT_RIGHT = torch.tensor([[[10.0, 20.0], [30.0, 20.0], [32.0, 5.0]]])
OFF = ["-progress", "-journal", "-manifest"]


def points_of(flip_pairs, size=64):
    images = [np.full((size, size, 3), i, np.uint8) for i in range(20)]
    points = [[(10.0, 20.0), (30.0, 20.0), (32.0, 5.0)]] * 20
    return keypoints(images, points, size=size, num_workers=0, flip_pairs=flip_pairs)


def seen(data, *plugins):
    """Points of the first training batch, as the loss gets them."""
    found = []

    class Watching(Task):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, run):
            found.append(batch[1])
            return self.w * 0

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    Trainer(epochs=1, plugins=[*OFF, *plugins]).fit(Watching(), data.train)
    return found[0]


def test_pairs_are_exchanged_where_an_image_is_mirrored():
    """Of two images one; a mirror of both axes is a turn, and exchanges nothing."""
    image = torch.rand(1, 3, 40, 64)
    mirror = Augmenter([Flip(1.0)], flip_pairs=[(0, 1)])
    found = mirror((image, LEFT_RIGHT), ("image", "points"))[1]
    assert found.tolist() == [[[34.0, 20.0], [54.0, 20.0], [32.0, 5.0]]]
    turn = Augmenter([Flip(1.0), Flip(1.0, vertical=True)], flip_pairs=[(0, 1)])
    found = turn((image, LEFT_RIGHT), ("image", "points"))[1]
    assert found.tolist() == [[[54.0, 20.0], [34.0, 20.0], [32.0, 35.0]]]


def test_a_pair_that_is_not_there_is_an_error():
    mirror = Augmenter([Flip(1.0)], flip_pairs=[(0, 7)])
    with pytest.raises(Exception, match=r"flip_pairs: \(0, 7\), but the points are 0 to 2"):
        mirror((torch.rand(1, 3, 40, 64), LEFT_RIGHT), ("image", "points"))
    with pytest.raises(DataError, match="each point, from 0 on, is in one pair"):
        Points(flip_pairs=[(0, 1), (1, 2)])
    with pytest.raises(DataError, match=r"give pairs of places, \[\(0, 1\)\]"):
        Points(flip_pairs=[0, 1])


def test_the_plugin_takes_the_pairs_from_the_data():
    """A mirror that is always done; the data say which points belong together."""
    found = seen(points_of([(0, 1)]), Augment([Flip(1.0)]))
    assert found[0].tolist() == [[34.0, 20.0], [54.0, 20.0], [32.0, 5.0]]


def test_no_option_mirrors_points_of_which_nobody_names_pairs(caplog):
    """The mirror is left out and said; [] is an answer, and so is an own list of transforms."""
    options = {"flip": 1.0, "rotate": 0, "zoom": 1, "warp": 0, "lighting": 0, "padding": "zeros"}
    with caplog.at_level(logging.WARNING, "trainbus"):
        assert seen(points_of(None), Augment(**options))[0].tolist()[0] == [10.0, 20.0]
    assert "points are not mirrored" in caplog.text
    assert seen(points_of([]), Augment(**options))[0].tolist()[0] == [54.0, 20.0]
    assert seen(points_of(None), Augment([Flip(1.0)]))[0].tolist()[0] == [54.0, 20.0]


def test_a_learner_mirrors_where_pairs_are_named():
    """By default it turns and tilts, and mirrors if it knows what to exchange."""
    for pairs, mirrors in ((None, False), ([], True), ([(0, 1)], True)):
        learner = ImageLearner(points_of(pairs), arch="small_cnn", plugins=OFF)
        kinds = [type(each) for each in learner.plugins[0].transforms]
        assert (Flip in kinds, Rotate in kinds) == (mirrors, True)


def test_a_transform_of_items_exchanges_them_too(caplog):
    """RandomFlip takes the pairs of the block; without any it says what it does."""
    blocks = (Image(), Points(flip_pairs=[(0, 1)]))
    parts = (torch.zeros(3, 40, 64, dtype=torch.uint8), LEFT_RIGHT[0])
    flip = RandomFlip(1.0).for_blocks(blocks)
    assert flip(parts, ("image", "points"))[1].tolist()[0] == [34.0, 20.0]
    assert not caplog.text
    RandomFlip().for_blocks((Image(), Points()))
    assert "a left one is then called right" in caplog.text


def test_pairs_are_kept_with_the_recipe():
    from trainbus_data import Recipe

    recipe = points_of([(0, 1)]).recipe
    assert Recipe.from_state(recipe.state()).target.flip_pairs == ((0, 1),)
