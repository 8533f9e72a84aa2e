"""Killed anywhere and resumed, a run ends with the same bits as one that was not."""

import random
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("training.py")
MATRIX = list(product((0, 1), (0, 2), (0, 1), (0, 1)))


def train(directory, case, kind, kill_after=None, delay=0.0):
    """Run the training in a directory; True when it came to its end."""
    command = [sys.executable, str(SCRIPT), *map(str, case), kind, "out.pt"]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True) as process:
        for seen, _ in enumerate(process.stdout):
            if kill_after is not None and seen >= kill_after:
                time.sleep(delay)
                process.kill()
    return process.returncode == 0


def test_the_own_loader_gives_the_same_for_any_number_of_workers(tmp_path):
    weights = []
    for workers in (0, 2):
        directory = tmp_path / str(workers)
        directory.mkdir()
        assert train(directory, (1, workers, 1, 1), "own")
        weights.append(torch.load(directory / "out.pt", weights_only=True)["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def ends_alike(tmp_path, case, kind, kills, seed):
    """Compare an uninterrupted run with one that is killed `kills` times at random moments."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    assert train(whole, case, kind)
    chance = random.Random(seed)
    for _ in range(kills):
        # The delay lets the kill fall into the writing of a checkpoint, too.
        train(broken, case, kind, chance.randrange(2, 25), chance.uniform(0, 0.01))
    assert train(broken, case, kind)
    expected = torch.load(whole / "out.pt", weights_only=True)
    found = torch.load(broken / "out.pt", weights_only=True)
    assert found["step"] == expected["step"] == 36
    for part in ("model", "average"):
        for name, weight in expected[part].items():
            assert torch.equal(found[part][name], weight), name
    assert found["metrics"] == expected["metrics"]
    assert found["best"] == expected["best"]


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ((1, 0, 1, 1), "torch"),
        pytest.param((1, 2, 1, 1), "own", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, case, kind):
    ends_alike(tmp_path, case, kind, kills=1, seed=sum(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", MATRIX, ids=str)
@pytest.mark.parametrize("kind", ["torch", "own"])
def test_a_run_that_is_killed_often_ends_with_the_same_bits(tmp_path, case, kind):
    ends_alike(tmp_path, case, kind, kills=6, seed=100 + sum(case))
