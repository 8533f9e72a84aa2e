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
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter
from typing import NamedTuple

COMMAND = Path(sys.executable).parent / "trainbus"
PLUGIN_GROUPS = ("trainbus.plugins", "trainbus.autoload")


class Times(NamedTuple):
    """Seconds of processor time, and on the wall, from start to end of a process."""

    cpu: float
    wall: float


class Arm(NamedTuple):
    """A process to time; seconds over another arm when `base` names one."""

    name: str
    arguments: Sequence[str]
    base: str | None = None
    target: float | None = None


def imports(statement: str, base: str | None = None, target: float | None = None) -> Arm:
    return Arm(statement, (sys.executable, "-c", statement), base, target)


def time_of(arm: Arm) -> Times:
    before, started = getrusage(RUSAGE_CHILDREN), perf_counter()
    subprocess.run(arm.arguments, check=True, stdout=subprocess.DEVNULL)
    wall, after = perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Times(user + system, wall)


def measure(arms: Sequence[Arm], rounds: int) -> dict[str, list[Times]]:
    """The times of each arm in each round; the order within a round is random."""
    for arm in arms:  # fills the file cache and writes the compiled modules
        time_of(arm)
    order = random.Random(0)
    times: dict[str, list[Times]] = {arm.name: [] for arm in arms}
    for _ in range(rounds):
        for arm in order.sample(arms, len(arms)):
            times[arm.name].append(time_of(arm))
    return times


def show(arms: Sequence[Arm], times: dict[str, list[Times]]) -> None:
    print(f"{'seconds (median; least .. most)':48}{'cpu':>7}{'':>16}{'wall':>8}{'target':>8}")
    for arm in arms:
        values, name = times[arm.name], arm.name
        if arm.base is not None:
            pairs = zip(values, times[arm.base], strict=True)
            values = [Times(a.cpu - b.cpu, a.wall - b.wall) for a, b in pairs]
            name = f"  {name}, over {arm.base}"
        cpu, wall = median(each.cpu for each in values), median(each.wall for each in values)
        spread = f"{min(each.cpu for each in values):.3f} .. {max(each.cpu for each in values):.3f}"
        target = ""
        if arm.target is not None:
            target = f"<={arm.target}" + ("" if cpu <= arm.target else "!")
        print(f"{name:48}{cpu:7.3f}{spread:>16}{wall:8.3f}{target:>8}")


def imported_by(arguments: Sequence[str]) -> set[str]:
    """The modules that a Python script imports, as `-X importtime` tells."""
    told = subprocess.run(
        (sys.executable, "-X", "importtime", *arguments), check=True, capture_output=True, text=True
    ).stderr
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def check_command() -> None:
    """Fail if `trainbus plugins` imports torch or the module of any plugin."""
    loaded = imported_by((str(COMMAND), "plugins"))
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

    torch = "import torch"
    arms = [
        imports(torch),
        imports("import torch, trainbus", torch, 0.1),
        imports("import torch; from trainbus import Task, Trainer", torch, 0.1),
        imports("pass"),
    ]
    if COMMAND.exists():
        arms.append(Arm("trainbus plugins", (str(COMMAND), "plugins"), None, 0.3))
    if given.peers:
        for module in ("lightning", "lightning.fabric", "ignite.engine", "accelerate"):
            if importlib.util.find_spec(module.partition(".")[0]) is None:
                print(f"{module} is not installed here: left out")
            else:
                arms.append(imports(f"import torch, {module}", torch))
    show(arms, measure(arms, given.rounds))
    print("! marks a missed target.")
    if COMMAND.exists():
        check_command()


if __name__ == "__main__":
    main()
