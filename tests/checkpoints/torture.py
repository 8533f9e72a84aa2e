"""End trainings at random moments, resume them, and compare the ends bit by bit.

Half of the ends are a SIGKILL. The others are one behind a backup that read the run's directory, a
SIGTERM that comes twice within milliseconds, and a disk on which no file grows any more.

`make torture` runs it; `torture.py [KILLS] [SEED]` leaves with status 1 when one end differs.
"""

import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import torch

SCRIPT = Path(__file__).with_name("training.py")
WAYS = ("kill", "kill", "kill", "backup", "twice", "full")
CASES = list(product((0, 1), (0, 2), (0, 1), (0, 1), ("torch", "own")))


def end(process, directory, way):
    """End a training, or make it end."""
    if way == "backup":
        for path in Path(directory).glob("runs/*/*"):
            if path.is_file():
                path.read_bytes()
    if way == "twice":
        for _ in range(2):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.003)
    elif way == "full":
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, hard))
    else:
        process.kill()


def attempt(directory, case, kill_after=None, delay=0.0, way="kill"):
    """Run the training; returns whether it ended by itself, and the steps that were seen."""
    *numbers, kind = case
    command = [sys.executable, str(SCRIPT), *map(str, numbers), kind, "out.pt"]
    steps = []
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        if kill_after == 0:  # anywhere, while modules are imported or a checkpoint is read, too
            time.sleep(delay)
            end(process, directory, way)
        for line in process.stdout:
            steps.append(int(line))
            if kill_after is not None and len(steps) == max(kill_after, 1):
                time.sleep(delay)
                end(process, directory, way)
    return process.returncode == 0, steps


def lineage(case, kills, chance):
    """One training, killed several times; returns what happened."""
    seen = set()
    told = {"ends": 0, "before the first step": 0, "in a write": 0, "ended before": 0}
    told |= dict.fromkeys(WAYS, 0)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        assert attempt(whole, case)[0]
        while told["ends"] < kills:
            anywhere = chance.random() < 0.2
            delay = chance.uniform(0, 4) if anywhere else chance.uniform(0, 0.03)
            way = chance.choice(WAYS)
            after = 0 if anywhere else chance.randrange(1, 12)
            ended, steps = attempt(broken, case, after, delay, way)
            if ended:  # it was faster; begin anew, and look at this end, too
                told["ended before"] += 1
                if not alike(whole, broken):
                    return case, told, False
                for path in Path(broken).iterdir():
                    subprocess.run(["rm", "-r", str(path)], check=True)
                continue
            told["ends"] += 1
            told[way] += 1
            told["before the first step"] += not steps
            parts = set(Path(broken).glob("runs/*/checkpoints/.*.part"))
            told["in a write"] += not parts <= seen
            seen |= parts
        ended, _ = attempt(broken, case)
        return case, told, ended and alike(whole, broken)


def alike(whole, broken):
    expected, found = (
        torch.load(Path(place, "out.pt"), weights_only=True) for place in (whole, broken)
    )
    same = all(
        torch.equal(found[part][name], weight)
        for part in ("model", "average")
        for name, weight in expected[part].items()
    )
    return same and all(found[name] == expected[name] for name in ("metrics", "best", "step"))


def main(kills=128, seed=0):
    chance = random.Random(seed)
    each = -(-kills // len(CASES))
    sums = {}
    failed = 0
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(lineage, case, each, random.Random(chance.random())) for case in CASES]
        for job in jobs:
            case, told, right = job.result()
            failed += not right
            for name, count in told.items():
                sums[name] = sums.get(name, 0) + count
            print(*case, told, "the same bits" if right else "DIFFERS", flush=True)
    minutes = (time.perf_counter() - started) / 60
    print(f"{len(CASES)} trainings, {sums}, {failed} differ, {minutes:.0f} minutes")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
