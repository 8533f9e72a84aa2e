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
