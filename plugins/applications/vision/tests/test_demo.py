"""`trainbus demo vision`: what it trains on, and what it leaves."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainbus_vision.demo import digits


def test_the_digits_are_images_of_their_own_in_both_parts():
    data = digits(seed=3)
    train, valid = data.train_items.parts[0], data.valid_items.parts[0]
    assert (len(train), len(valid)) == (1438, 359)
    assert train.shape[1:] == (1, 32, 32)
    assert train.dtype is torch.uint8
    assert data.target.outputs == 10
    assert int(train.max()) == 255


@pytest.mark.slow
def test_the_demo_learns_to_read_and_leaves_its_pictures_and_an_export():
    command = [sys.executable, "-m", "trainbus", "demo", "vision", "--epochs", "4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    (run,) = Path("runs").iterdir()
    names = ("batch", "rates", "results", "confusion", "worst")
    assert all((run / f"{name}.png").stat().st_size > 5_000 for name in names)
    assert (run / "export" / "description.json").is_file()
    header, _ = done.stdout.split("  epoch  ")  # the table of the run begins
    assert len(header.splitlines()) <= 11  # the rate that was found, and the header
    assert all(done.stdout.count(text) == 1 for text in ("cross_entropy", "resnet18 for"))
    accuracy = float(done.stdout.split("validation accuracy ")[1].split("%")[0])
    assert accuracy > 94
