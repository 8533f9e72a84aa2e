"""The main job: `trainbus demo`."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

PNG = b"\x89PNG\r\n"


@pytest.fixture
def demo(process):
    """`demo(*arguments, status=0)`: run `trainbus demo`."""
    return partial(process, "demo")


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 6))]
)
def test_the_demo_reads_digits_and_leaves_what_it_says(demo, seed):
    done = demo("--seed", str(seed))
    (run,) = Path("runs").iterdir()
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "completed"
    assert (record["epochs"], record["errors"]) == (20, [])
    assert record["metrics"]["test/accuracy"] >= 0.97
    assert f"test accuracy {record['metrics']['test/accuracy']:.2%}" in done.stdout
    for name in ("curves.png", "confusion.png"):
        assert (run / name).read_bytes().startswith(PNG)
    weights = torch.load(run / "weights.pt", weights_only=True)
    assert weights["net.9.weight"].shape == (10, 1024)
    assert list((run / "tensorboard").glob("events.*"))
    assert (run / "checkpoints" / "best" / "model.pt").exists()


@pytest.mark.slow
def test_the_demo_without_any_plugin_is_silent_and_works(demo):
    done = demo("--no-plugins", "--epochs", "1")
    assert len(done.stdout.splitlines()) == 2
    (run,) = Path("runs").iterdir()
    assert {path.name for path in run.iterdir()} - {".lock"} == {
        "checkpoints", "weights.pt", "curves.png", "confusion.png"
    }  # fmt: skip


def test_a_demo_that_is_not_installed_says_what_is_there(demo):
    done = demo("visoin", status=2)
    assert done.stderr.startswith("error: there is no demo 'visoin' here; did you mean 'vision'?")
    assert "Traceback" not in done.stderr
