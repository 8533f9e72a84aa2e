"""Small pictures in folders, and where real data are."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


def picture(path, size=(20, 16), mode="RGB", seed=0):
    """Write a picture of noise, `size` being (width, height)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    Pillow.fromarray(noise.squeeze(), mode).save(path)
    return path


@pytest.fixture
def make_picture():
    """`make_picture(path, size, mode, seed)` writes a file."""
    return picture


@pytest.fixture
def animals(tmp_path):
    """A folder with 12 cats and 8 dogs, 20 x 16 pixels each."""
    for number in range(20):
        kind = "cat" if number < 12 else "dog"
        picture(tmp_path / "animals" / kind / f"{number:02}.png", seed=number)
    return tmp_path / "animals"


@pytest.fixture
def staged(tmp_path):
    """The same kinds in folders train (8 + 4), val (2 + 2) and test (1 + 1)."""
    for stage, counts in {"train": (8, 4), "val": (2, 2), "test": (1, 1)}.items():
        for kind, count in zip(("cat", "dog"), counts, strict=True):
            for number in range(count):
                picture(tmp_path / "staged" / stage / kind / f"{number}.png", seed=number)
    return tmp_path / "staged"


@pytest.fixture
def real_data():
    """The folder with real data, or a skip."""
    if not (folder := os.environ.get("TRAINBUS_DATA")):
        pytest.skip("TRAINBUS_DATA names no folder with real data")
    return Path(folder)
