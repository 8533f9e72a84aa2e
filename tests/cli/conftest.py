"""The command, in a process of its own as a user runs it, or quicker in this one."""

import os
import subprocess
import sys
from contextvars import copy_context
from types import SimpleNamespace

import pytest

from trainbus.cli import main


@pytest.fixture
def process(tmp_path):
    """`process(*arguments, status=0)`: run the command, which must end with `status`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRAINBUS_")}

    def run(*arguments, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "trainbus", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def trainbus(capsys, monkeypatch):
    """The same in this process."""
    for name in os.environ:
        if name.startswith("TRAINBUS_"):
            monkeypatch.delenv(name)

    def run(*arguments, status=0):
        capsys.readouterr()
        ended = 0
        try:
            copy_context().run(main, list(arguments))
        except SystemExit as error:
            ended = error.code or 0
        written = capsys.readouterr()
        assert ended == status, written.out + written.err
        return SimpleNamespace(stdout=written.out, stderr=written.err)

    return run


VERBS = '''
import click
from trainbus import UsageError, hookimpl


@hookimpl
def register_commands(commands):
    @commands.command()
    @click.option("--name", default="you")
    def greet(name):
        """Say hello."""
        click.echo(f"hello {name}")

    @commands.command()
    @click.pass_context
    def leave(context):
        context.exit(3)

    @commands.command()
    def mistake():
        raise UsageError("the learning rate is too small")

    @commands.command()
    def bug():
        raise KeyError("nobody thought of this")

    @commands.command()
    def interrupt():
        raise KeyboardInterrupt
'''


@pytest.fixture
def verbs(tmp_path):
    """A plugin with verbs, in a file beside the project."""
    (tmp_path / "verbs.py").write_text(VERBS)
    return "./verbs.py"


DIGITS = '''
import torch
from torch.nn import Linear, functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus import Task


class Digits(Task):
    """Four numbers to one of two.

    Args:
        hidden: the width.
    """

    def __init__(self, hidden: int, lr: float = 0.1, label="none"):
        super().__init__()
        if hidden == 13:
            raise ValueError("13 is unlucky")
        self.lr, self.label, self.hidden = lr, label, hidden
        self.net = torch.nn.Sequential(Linear(4, hidden), Linear(hidden, 2))

    def training_step(self, batch, run):
        loss = functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        run.log(loss=functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def loader(split: str, batch_size: int = 4):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(len(split)))
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch_size)


def both(batch_size: int = 4):
    return loader("train", batch_size), loader("valid", batch_size)
'''
CONFIG = """
[task]
class = "digits:Digits"
hidden = 3

[data]
train = {class = "digits:loader", split = "train"}
valid = {class = "digits:loader", split = "valid"}

[trainer]
epochs = 1
seed = 1
"""


@pytest.fixture
def config(tmp_path):
    """The path of `fit.toml`, beside the module `digits` that it names."""
    (tmp_path / "digits.py").write_text(DIGITS)
    path = tmp_path / "fit.toml"
    path.write_text(CONFIG)
    modules, path_before = set(sys.modules), list(sys.path)
    yield path
    assert sys.path == path_before
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
