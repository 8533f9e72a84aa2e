"""Each test in an empty directory."""

import pytest
import torch


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Each test works in an empty directory."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
