"""Photos and masks: train, show, predict and export, with small models."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus_learner import Learner, load

ROOT = os.environ.get("TRAINBUS_DATA")
pytestmark = [
    pytest.mark.skipif(not ROOT, reason="TRAINBUS_DATA, the folder of real data, is not set"),
    pytest.mark.slow,
]


def convolutions(outputs):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, outputs, 3, padding=1),
    )  # fmt: skip


def test_photos_are_learned_shown_predicted_and_exported(own_directory):
    from trainbus_vision import image_folder

    data = image_folder(Path(ROOT) / "hymenoptera-160", size=64, num_workers=0)
    model = nn.Sequential(convolutions(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    learner = Learner(data, model, seed=0, plugins=["-progress"])
    learner.fit_one_cycle(1, 0.01)
    assert set(learner.validate()) == {"loss", "accuracy"}
    found = learner.interpret()
    assert found.worst(1)[0].name.endswith(".jpg")
    found.plot_worst(4).savefig("worst.png")
    learner.show_results(4).savefig("results.png")
    learner.show_batch(4).savefig("batch.png")
    file = Path(ROOT) / "hymenoptera-160" / found.worst(1)[0].name
    learner.export("out", format="torch.export")
    here, there = learner.predict(file), load("out").predict(file)
    assert here.label in ("ants", "bees")
    assert torch.allclose(here.probabilities, there.probabilities, atol=1e-5)


def test_masks_are_learned_shown_and_predicted(own_directory):
    from trainbus_data import DataBlock, splits
    from trainbus_vision import Image, Mask, find_images

    root = Path(ROOT) / "camvid-160"
    codes = [f"class {number}" for number in range(11)]
    block = DataBlock(
        blocks=(Image(), Mask(codes, ignore=11)),
        items=find_images,
        split=splits.random(0.2),
        label=lambda path: root / "valannot" / f"{path.stem}.png",
    )
    data = block.data(root / "val", batch_size=8, num_workers=0)
    up = nn.Upsample(scale_factor=4)
    learner = Learner(data, nn.Sequential(convolutions(len(codes)), up), plugins=["-progress"])
    learner.fit_one_cycle(1, 0.01)
    assert learner.validate()["loss"] > 0
    learner.show_results(3).savefig("masks.png")
    learner.interpret().plot_worst(2).savefig("worst_masks.png")
    assert learner.interpret().confusion_matrix().shape == (len(codes), len(codes))
    prediction = learner.predict(next(iter(find_images(root / "val"))))
    assert prediction.value.ndim == 2 and prediction.probability is None
