"""A device that the core never heard of, installed from a wheel, trains, is killed and resumes."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hatchling.builders.wheel import WheelBuilder

HERE = Path(__file__).parent
NAME = "acme_chip"


def environment(site):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("TRAINBUS_", "PYTEST"))}
    return inherited | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


def command(*arguments, site, cwd):
    """Run Python where the packages of `site` are installed, too."""
    done = subprocess.run(
        [sys.executable, *arguments], env=environment(site), cwd=cwd, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the wheel of a vendor's plugin, begun with `trainbus new-plugin`, was installed."""
    root = tmp_path_factory.mktemp("vendor")
    target = root / "site"
    begin = ("-m", "trainbus", "new-plugin", NAME, "--kind", "accelerator")
    command(*begin, site=target, cwd=root)
    project = root / f"trainbus-{NAME}"
    device = project / "src" / f"trainbus_{NAME}" / "device.py"
    assert device.is_file()
    device.write_text((HERE / "fake_device.py").read_text())
    wheel = next(WheelBuilder(str(project)).build(directory=str(root / "wheels")))
    install = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps")
    command(*install, "--no-index", "--target", str(target), wheel, site=target, cwd=root)
    return target


def train(directory, site, plugins=NAME, precision="-", kill_after=None, delay=0.0):
    """Train in `directory`; what the training left, or None when it was killed."""
    directory.mkdir(exist_ok=True)
    arguments = [sys.executable, str(HERE / "train_on_it.py"), plugins, precision, "out.pt"]
    with subprocess.Popen(
        arguments, cwd=directory, env=environment(site), stdout=subprocess.PIPE, text=True
    ) as process:
        for step in process.stdout:
            if kill_after is not None and int(step) >= kill_after:
                time.sleep(delay)
                process.kill()
    if kill_after is not None:
        assert process.returncode == -9, "it was killed, and not faster than that"
        return None
    assert process.returncode == 0
    return torch.load(directory / "out.pt", weights_only=True)


def alike(one, other):
    return all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


@pytest.fixture(scope="module")
def whole(site, tmp_path_factory):
    """What a training leaves that nobody disturbed."""
    return train(tmp_path_factory.mktemp("whole"), site)


def test_auto_takes_it_and_the_header_says_why(whole):
    assert whole["accelerator"] == NAME
    assert whole["header"]["device"].startswith("acme_chip, cpu (auto, before cpu")


def test_the_loop_asks_it_for_all_it_does(whole):
    assert whole["asked"] == {
        "module": 1, "batch": 48, "loader": 3, "optimizer_step": 48, "save": 27,
    }  # fmt: skip


def test_killed_and_resumed_it_ends_with_the_same_bits(site, tmp_path, whole):
    train(tmp_path / "broken", site, kill_after=22, delay=0.003)
    resumed = train(tmp_path / "broken", site)
    assert resumed["asked"]["optimizer_step"] < 48, "it went on, and did not begin anew"
    assert alike(whole, resumed)
    assert resumed["metrics"] == whole["metrics"]


# --- with mixed precision, another plugin --------------------------------------------------------

with_amp = pytest.mark.skipif(
    importlib.util.find_spec("trainbus_amp") is None, reason="trainbus-amp is not installed"
)


@pytest.fixture(scope="module")
def mixed(site, tmp_path_factory):
    """What a training in bfloat16 leaves that nobody disturbed."""
    return train(tmp_path_factory.mktemp("mixed"), site, f"{NAME},amp", "bf16")


@with_amp
def test_mixed_precision_computes_in_the_type(mixed, whole):
    assert mixed["accelerator"] == NAME
    assert mixed["dtype"] == "torch.bfloat16"
    assert mixed["header"]["precision"].startswith("bf16")
    assert mixed["asked"]["optimizer_step"] == 48
    assert not alike(mixed, whole)


@pytest.mark.slow
@with_amp
def test_killed_and_resumed_mixed_precision_ends_with_the_same_bits(site, tmp_path, mixed):
    train(tmp_path / "broken", site, f"{NAME},amp", "bf16", kill_after=21, delay=0.003)
    resumed = train(tmp_path / "broken", site, f"{NAME},amp", "bf16")
    assert resumed["asked"]["optimizer_step"] < 48
    assert alike(mixed, resumed)


@with_amp
def test_a_precision_that_the_device_lacks_names_those_that_it_has(site, tmp_path):
    script = (
        "from trainbus import Task, Trainer; import torch\n"
        f"trainer = Trainer(precision='fp16', plugins=['amp', '{NAME}'])\n"
        "task = Task.supervised(torch.nn.Linear(2, 2))\n"
        "trainer.fit(task, [(torch.ones(2, 2), torch.zeros(2).long())])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(site), cwd=tmp_path,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    (message,) = re.findall(r"^\S*Error: (.*)$", done.stderr, re.MULTILINE)
    assert "fp16" in message
    assert "bf16" in message
    assert NAME in message
