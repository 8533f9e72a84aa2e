"""The options of verbs that train in several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def starts_processes(command: F) -> F:
    """Give a verb `--nproc N` and `--restarts N`."""
    for option in (
        click.option(
            "--restarts",
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help="With --nproc: start all again up to N times after a failure, from the newest "
            "state.",
        ),
        click.option(
            "--nproc",
            type=click.IntRange(1),
            metavar="N",
            help="Train in N processes of this machine (trainbus-distributed; -p distributed).",
        ),
    ):
        command = option(command)
    return command
