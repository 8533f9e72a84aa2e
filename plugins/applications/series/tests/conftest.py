"""Each test in an empty directory; small series that are learned in a second."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

QUIET = ["-progress", "-journal", "-manifest"]


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture
def etth1():
    """The file of ETTh1, where there is one."""
    path = Path(os.environ.get("TRAINBUS_DATA", "nowhere")) / "etth1" / "ETTh1.csv.gz"
    if not path.is_file():
        pytest.skip("TRAINBUS_DATA has no etth1")
    return path


def _hours(count, start=datetime(2020, 1, 1)):
    return [start + timedelta(hours=n) for n in range(count)]


def _waves(count, seed=0, level=10.0, noise=0.1):
    draw = np.random.default_rng(seed)
    turn = 2 * np.pi * np.arange(count) / 24
    return level + np.sin(turn) + 0.5 * np.cos(2 * turn) + noise * draw.normal(size=count)


@pytest.fixture(scope="session")
def hours():
    """Gives so many times, an hour apart."""
    return _hours


@pytest.fixture(scope="session")
def waves():
    """Gives so many values of a day that comes again, with noise."""
    return _waves


@pytest.fixture
def load(hours, waves):
    """600 hours of one series."""
    return {"when": hours(600), "load": waves(600)}


@pytest.fixture
def shops(hours, waves):
    """Three series of unequal length in one long table, with a covariate that matters."""
    rows = []
    for number, (shop, count) in enumerate((("a", 400), ("b", 300), ("c", 350))):
        draw = np.random.default_rng(number)
        sale = draw.random(count) < 0.2
        values = waves(count, number, 10.0 * (number + 1)) + 2.0 * sale
        rows += [
            {"when": when, "shop": shop, "sold": float(value), "sale": int(each),
             "town": "north" if number else "south"}
            for when, value, each in zip(hours(count), values, sale, strict=True)
        ]  # fmt: skip
    return rows
