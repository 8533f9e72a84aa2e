"""Real digits, photos and street scenes: trained a little, predicted, shown and exported."""

import json
import os
import subprocess
import sys

import pytest
import torch

from trainbus_learner import load
from trainbus_vision import ImageLearner, image_folder, mnist, segmentation

OFF = ["-progress", "-journal", "-manifest"]


def test_the_digits_are_those_that_were_published(real):
    data = mnist(real)
    assert (len(data.train_items), len(data.valid_items)) == (60_000, 10_000)
    images, labels = data.one_batch("valid")
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert images.float().mean() / 255 == pytest.approx(0.13, abs=0.02)


def few(data, count):
    """The first items of data in memory."""
    from trainbus_data import Data

    parts = [
        [part[:count] for part in items.parts] for items in (data.train_items, data.valid_items)
    ]
    return Data.from_tensors(*parts, blocks=data.blocks)


def test_a_few_digits_are_learned(real):
    learner = ImageLearner(few(mnist(real), 2000), "small_cnn", seed=0, plugins=OFF)
    learner.fine_tune(2)
    assert learner.validate()["accuracy"] > 0.9


def photos(real, **options):
    return image_folder(real / "hymenoptera-160", size=64, batch_size=16, num_workers=0, **options)


def scenes(real, **options):
    codes = 12
    return segmentation(
        real / "camvid-160" / "val", real / "camvid-160" / "valannot", codes, ignore=11,
        size=(48, 64), batch_size=8, num_workers=0, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_photos_train_predict_show_and_export(real):
    learner = ImageLearner(photos(real), "resnet18", pretrained=False, seed=0, plugins=OFF)
    before = learner.validate()["loss"]
    learner.fit_one_cycle(4)
    after = learner.validate()
    assert after["loss"] < before and after["accuracy"] > 0.5
    photo = next((real / "hymenoptera-160/val/bees").glob("*.jpg"))
    prediction = learner.predict(photo)
    assert prediction.label in ("ants", "bees")
    learner.show_results(9).savefig("photos.png")
    same_in_a_fresh_process(learner, photo, prediction)


@pytest.mark.slow
def test_masks_train_predict_show_and_export(real):
    learner = ImageLearner(scenes(real), "resnet18", pretrained=False, seed=0, plugins=OFF)
    before = learner.validate()["pixel_accuracy"]
    learner.fit_one_cycle(4)
    assert learner.validate()["pixel_accuracy"] > max(0.4, before)
    scene = next((real / "camvid-160/test").glob("*.jpg"))
    prediction = learner.predict(scene)
    assert prediction.label.shape == (48, 64)
    learner.show_results(4).savefig("scenes.png")
    same_in_a_fresh_process(learner, scene, prediction)


LOADED = """
import json, sys
from trainbus_learner import load
print(json.dumps(load("model").predict(sys.argv[1]).probabilities.tolist()))
"""


def same_in_a_fresh_process(learner, file, prediction):
    learner.export("model")
    torch.testing.assert_close(load("model").predict(file).probabilities, prediction.probabilities)
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(file)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), prediction.probabilities)
