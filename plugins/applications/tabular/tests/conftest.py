"""Each test works in an empty directory, on one thread."""

import matplotlib
import pytest
import torch

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """An empty directory, and the same random numbers."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.set_num_threads(1)
