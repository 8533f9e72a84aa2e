"""Time of imports over `import torch`, and of the command `trainbus plugins`.

    python benchmarks/startup.py [--peers] [--rounds N]

What is measured, and how, is told in README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter
from typing import NamedTuple

COMMAND = ("-m", "trainbus", "plugins")
PLUGIN_GROUPS = ("trainbus.plugins", "trainbus.autoload")
PEERS = (
    ("lightning", "from lightning import LightningModule, Trainer"),
    ("ignite", "from ignite.engine import create_supervised_trainer"),
    ("accelerate", "from accelerate import Accelerator"),
)
#: Run in a fresh interpreter: what is there before, then what is timed.
PROGRAM = """
{before}
from time import perf_counter, process_time
cpu, wall = process_time(), perf_counter()
{statement}
print(process_time() - cpu, perf_counter() - wall)
"""


class Times(NamedTuple):
    """Seconds of processor time, and on the wall."""

    cpu: float
    wall: float


class Arm(NamedTuple):
    """Something to time in a process of its own."""

    name: str
    measure: Callable[[], Times]
    target: float | None = None


def imports(statement: str, before: str = "", target: float | None = None) -> Arm:
    """An import statement alone, in a process that ran `before`."""
    program = PROGRAM.format(before=before, statement=statement)

    def measure() -> Times:
        printed = subprocess.run(
            (sys.executable, "-c", program), check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        cpu, wall = printed.split()[-2:]
        return Times(float(cpu), float(wall))

    return Arm(statement, measure, target)


def process(name: str, arguments: Sequence[str], target: float | None = None) -> Arm:
    """A whole process, from its start to its end."""

    def measure() -> Times:
        before, started = getrusage(RUSAGE_CHILDREN), perf_counter()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        wall, after = perf_counter() - started, getrusage(RUSAGE_CHILDREN)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        return Times(user + system, wall)

    return Arm(name, measure, target)


def measure(arms: Sequence[Arm], rounds: int) -> dict[str, list[Times]]:
    """The times of each arm in each round; the order within a round is random."""
    for arm in arms:  # fills the file cache and writes the compiled modules
        arm.measure()
    order = random.Random(0)
    times: dict[str, list[Times]] = {arm.name: [] for arm in arms}
    for _ in range(rounds):
        for arm in order.sample(arms, len(arms)):
            times[arm.name].append(arm.measure())
    return times


def show(arms: Sequence[Arm], times: dict[str, list[Times]]) -> None:
    print(
        f"{'seconds: median, least .. most':60}{'cpu':>7}{'':>16}{'wall':>8}{'':>16}{'target':>8}"
    )
    for arm in arms:
        line = f"{arm.name:60}"
        for values in zip(*times[arm.name], strict=True):
            line += f"{median(values):7.3f}{f'{min(values):.3f} .. {max(values):.3f}':>17}"
        middle = median(each.cpu for each in times[arm.name])
        if arm.target is not None:
            line += f"{f'<={arm.target}':>8}" + ("" if middle <= arm.target else "!")
        print(line)


def imported_by(arguments: Sequence[str]) -> set[str]:
    """The modules that Python imports when it is started so, as `-X importtime` tells."""
    told = subprocess.run(
        (sys.executable, "-X", "importtime", *arguments), check=True, capture_output=True, text=True
    ).stderr
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def check_command() -> None:
    """Fail if `trainbus plugins` imports torch or the module of any plugin."""
    loaded = imported_by(COMMAND)
    plugins = {found.module for group in PLUGIN_GROUPS for found in entry_points(group=group)}
    wrong = sorted(loaded & {"torch", *plugins})
    if wrong:
        sys.exit(f"`trainbus plugins` imports {', '.join(wrong)}")
    print(
        f"`trainbus plugins` imports {len(loaded)} modules: neither torch nor one of the "
        f"{len(plugins)} plugins that are installed"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", action="store_true", help="measure other trainers, too")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()

    torch = "import torch"  # there already where the others are timed
    arms = [
        imports(torch),
        imports("import trainbus", torch, 0.1),
        imports("from trainbus import Task, Trainer", torch, 0.1),
        imports("from trainbus import Trainer; Trainer()", torch),
    ]
    if given.peers:
        for module, statement in PEERS:
            if importlib.util.find_spec(module) is None:
                print(f"{module} is not installed here: left out")
            else:
                arms.append(imports(statement, torch))
    arms.append(process("an empty Python process", (sys.executable, "-c", "pass")))
    arms.append(process("trainbus plugins", (sys.executable, *COMMAND), 0.3))
    print("imports are timed in a process that has torch already, except that of torch itself")
    show(arms, measure(arms, given.rounds))
    print("! marks a missed target.")
    check_command()


if __name__ == "__main__":
    main()
