"""What all tests share: a tiny task, its data, the command, and a guard of what is left behind."""

import logging
import os
import random
import signal
import subprocess
import sys
import traceback
from contextvars import copy_context
from functools import partial
from textwrap import dedent
from types import SimpleNamespace

import pytest
import torch

from trainbus import Trainer
from trainbus.cli import main
from trainbus.testing import Line, make_line_loader
from trainbus.testing.fixtures import clean_environment, own_directory  # noqa: F401

environment = clean_environment()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Each test leaves the process as it found it."""
    random.seed(0)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def line():
    """A new `Line`."""
    return Line()


@pytest.fixture
def make_line():
    """The class `Line`, to subclass or to make with arguments."""
    return Line


@pytest.fixture
def make_loader():
    """`make_loader(batches=5, size=2, rest=0, **options)`: a loader for a `Line`."""
    return make_line_loader


@pytest.fixture
def loader(make_loader):
    """Five batches of two."""
    return make_loader()


@pytest.fixture
def record():
    """Give a trainer a recorder of all events; returns the list of their names, without `on_`."""

    def start(trainer):
        events = []
        for name, hook in trainer.bus.hooks.items():
            if hook.kind == "event":
                told = name.removeprefix("on_")
                trainer.on(name)(lambda told=told: events.append(told))
        return events

    return start


# --- the command, in a process of its own as a user runs it, or quicker in this one --------------


@pytest.fixture
def python():
    """`python(*arguments, status=0, **variables)`: run Python, which must end with `status`."""

    def run(*arguments, status=0, **variables):
        command = [sys.executable, *map(str, arguments)]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def warm():
    """This process has imported what a first training imports, which takes seconds."""
    Trainer(plugins=["-journal", "-manifest"]).fit(Line(), make_line_loader(1))


@pytest.fixture
def forked(warm, tmp_path):
    """`forked(script)`: run Python code in a child of this process, which has imported all already.

    Returns its `returncode`, `stdout` and `stderr`.
    """

    def run(script):
        out, err = tmp_path / ".stdout", tmp_path / ".stderr"
        child = os.fork()
        if not child:
            _become(script, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return SimpleNamespace(returncode=code, stdout=out.read_text(), stderr=err.read_text())

    return run


def _become(script, out, err):
    """Do in a forked child what an interpreter does with a script, and end."""
    code = 0
    sys.stdout, sys.stderr = out.open("w"), err.open("w")
    for number, file in enumerate((sys.stdout, sys.stderr), 1):
        os.dup2(file.fileno(), number)
    logging.getLogger().handlers.clear()  # so that warnings go to its stderr
    try:
        exec(compile(dedent(script), "script.py", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException as error:
        traceback.print_exc()
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture
def process(python):
    """`process(*arguments, status=0, **variables)`: run the command in a process of its own."""
    return partial(python, "-m", "trainbus")


@pytest.fixture
def trainbus(capsys):
    """The same in this process."""

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
