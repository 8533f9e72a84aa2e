"""What the tests of the learner have in common: a directory of their own, and digits."""

from __future__ import annotations

import os

import matplotlib
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

matplotlib.use("Agg")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Runs of a test go to its own directory, and its random numbers are the same each time."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits of scikit-learn, 1797 of 8 x 8: (images N x 1 x 8 x 8 uint8, labels)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    pixels = (torch.tensor(images) * 255 / 16).round().to(torch.uint8).view(-1, 1, 8, 8)
    return pixels[shuffled], torch.tensor(labels)[shuffled]


def network(seed: int = 0) -> nn.Sequential:
    """A body with a norm, and a head of ten outputs."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.Flatten(), nn.Linear(128, 10)))


@pytest.fixture
def model():
    """A body with a norm, and a head of ten outputs."""
    return network()


@pytest.fixture
def make_model():
    """The function that makes the model, always with the same weights."""
    return network


def loaders_of(digits, batch_size: int = 100):
    images, labels = digits
    data = TensorDataset(images.float() / 255, labels)
    train = torch.utils.data.Subset(data, range(1000))
    valid = torch.utils.data.Subset(data, range(1000, 1797))
    return DataLoader(train, batch_size, shuffle=True), DataLoader(valid, 400)


@pytest.fixture
def loaders(digits):
    """A plain pair of loaders: 10 batches of 100 for training, 2 for validation."""
    return loaders_of(digits)


@pytest.fixture(scope="session")
def image_block():
    """A block of grey images, which read files, too: trainbus-vision has one."""
    return pytest.importorskip("trainbus_vision").Image(1)


@pytest.fixture(scope="session")
def data(digits, image_block):
    """The same as a `Data` with named classes; images in uint8."""
    from trainbus_data import Category, Data

    images, labels = digits
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    return Data.from_tensors(
        train=(images[:1000], labels[:1000]),
        valid=(images[1000:], labels[1000:]),
        blocks=(image_block, Category(names)),
        batch_size=100,
    )


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory):
    """A learner that knows the digits; tests only look at it."""
    from trainbus_learner import Learner

    learner = Learner(
        data, network(), seed=0, run_dir=tmp_path_factory.mktemp("runs"), plugins=["-progress"]
    )
    learner.fit_one_cycle(12, 0.02)
    return learner
