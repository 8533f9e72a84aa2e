"""Each test in an empty directory; small interactions whose taste is known."""

import os
from pathlib import Path

import pytest
import torch

from trainbus_collab.demo import generated

QUIET = ["-progress", "-journal", "-manifest"]


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def made():
    """300 users, 120 items in 4 genres; who likes what, and the best possible order."""
    return generated(users=300, items=120, genres=4, seed=0)


@pytest.fixture
def movietweetings():
    """The file of ratings, where there is one."""
    path = (
        Path(os.environ.get("TRAINBUS_DATA", "nowhere")) / "movietweetings-100k" / "ratings.dat.gz"
    )
    if not path.is_file():
        pytest.skip("TRAINBUS_DATA has no movietweetings-100k")
    return path
