"""`trainbus fit --nproc 2`: started, watched, and started again."""

import subprocess
import sys
from pathlib import Path

import pytest

TASK = """
import os, signal
import torch
from torch import nn
from trainbus import Loader, Task

class Net(Task):
    def __init__(self, how: str = ""):
        super().__init__()
        self.net, self.how = nn.Linear(8, 2), how

    def training_step(self, batch, run):
        first = os.environ["TRAINBUS_GENERATION"] == "0"
        if run.rank == 1 and run.global_step == 5 and first:
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "raise":
                raise ValueError("a bad batch")
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

def data():
    x = torch.randn(160, 8, generator=torch.Generator().manual_seed(0))
    return Loader(torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)
"""
FILE = """
plugins = ["distributed", "checkpoint"]
options.checkpoint.every_steps = 3
trainer = {epochs = 2, seed = 1}
task = {class = "mine:Net"}
data = {train = {class = "mine:data"}}
"""


def _fit(*arguments):
    Path("mine.py").write_text(TASK, "utf-8")
    Path("train.toml").write_text(FILE, "utf-8")
    command = [sys.executable, "-m", "trainbus", "fit", "train.toml", "--nproc", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_an_exception_is_told_last_and_once():
    done = _fit("--set", "task.how=raise")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("ValueError: a bad batch") == 1
    assert "rank 1 failed, and with it all 2 processes" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("raised by plugin 'distributed'")


@pytest.mark.slow
def test_a_process_that_is_killed_is_started_again_and_the_run_goes_on():
    done = _fit("--set", "task.how=kill", "--restarts", "2")
    assert done.returncode == 0, done.stderr
    assert "killed by SIGKILL" in done.stderr
    (directory,) = Path("runs").iterdir()
    assert (directory / "checkpoints" / "step-00000040").is_dir()
