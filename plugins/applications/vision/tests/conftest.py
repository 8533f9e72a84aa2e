"""Tiny images with every kind of target, the real data where they are, and a machine offline."""

import gzip
import os
import struct
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory, with weights of its own, on one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def offline(monkeypatch):
    """No server can be reached: whatever asks the network asks a port that is closed."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


@pytest.fixture
def real():
    """The folder with the real data."""
    if "TRAINBUS_DATA" not in os.environ:
        pytest.skip("TRAINBUS_DATA is not set: the folder with mnist, hymenoptera-160, camvid-160")
    return Path(os.environ["TRAINBUS_DATA"])


def bright_or_dark(count, size=16, channels=3):
    """Images that are dark (0) or bright (1), and which of both they are."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 80, (count, channels, size, size), generator=generator)
    return (noise + 150 * labels[:, None, None, None]).to(torch.uint8), labels


@pytest.fixture
def make_data():
    """A function of a target's kind that gives Data in memory."""
    from trainbus_data import Categories, Category, Data, Number
    from trainbus_vision import Image, Mask, Points

    def make(kind="category", size=16, channels=3, count=48, batch_size=16):
        images, labels = bright_or_dark(count, size, channels)
        targets = {
            "category": lambda: (Category(["dark", "bright"]), labels),
            "categories": lambda: (
                Categories(["bright", "dark"]),
                torch.stack([labels, 1 - labels], 1).float(),
            ),
            "number": lambda: (Number(), labels.float()[:, None]),
            "mask": lambda: (Mask(2), labels[:, None, None].expand(-1, size, size).contiguous()),
            "points": lambda: (
                Points(2),
                torch.full((count, 2, 2), size / 2) + labels[:, None, None] * size / 4,
            ),
        }
        block, target = targets[kind]()
        train, valid = (images[16:], target[16:]), (images[:16], target[:16])
        return Data.from_tensors(
            train, valid, blocks=(Image(channels), block), batch_size=batch_size
        )

    return make


def idx_bytes(array):
    """An array of bytes in the format of MNIST."""
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


@pytest.fixture
def write_idx():
    """A function that writes the four files of a small MNIST to a folder."""

    def write(folder, packed=True):
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        for part, count in (("train", 40), ("t10k", 20)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            images = random.integers(0, 20, (count, 28, 28)).astype(np.uint8)
            images += labels[:, None, None] * 20
            for name, array in (("images-idx3", images), ("labels-idx1", labels)):
                data = idx_bytes(array)
                path = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
                path.write_bytes(gzip.compress(data) if packed else data)
        return folder

    return write


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
