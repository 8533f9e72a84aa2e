"""How long a checkpoint of 100 million parameters holds the thread that trains.

Beside `torch.save` of the same state to the same disk, in one process, in turn.
"""

import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus.builtin import Checkpoint
from trainbus.engine import state

ROUNDS = 7


class Big(Task):
    """24 layers, 100 million parameters; a step costs little, since few rows are used."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(2040, 2040) for _ in range(24)))

    def training_step(self, batch, run):
        return self.layers(batch[0]).square().mean()

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def main():
    task = Big()
    batches = [(torch.randn(8, 2040),)] * 2
    times = {"torch.save": [], "in front": [], "in the background": [], "its writing": []}
    with tempfile.TemporaryDirectory(dir=".") as directory:
        back = Checkpoint(background=True)
        trainer = Trainer(epochs=1, run_dir=directory, plugins=["-manifest", back])
        plain = Trainer(epochs=1, run_dir=directory, plugins=["-manifest"])

        def timed(name, call):
            started = perf_counter()
            call()
            times[name].append(perf_counter() - started)

        with trainer.open(task) as run, plain.open(task) as other:
            for opened in (run, other):
                for (x,) in opened.batches(batches):
                    opened.step(task.training_step((x,), opened))
            parts = state.capture(run)
            size = sum(p.numel() for p in task.parameters())
            print(f"{size / 1e6:.1f} million parameters, AdamW")
            for number in range(ROUNDS + 1):
                timed("torch.save", lambda: torch.save(parts, Path(directory, "plain.pt")))
                timed("in front", lambda: other.save_checkpoint(Path(directory, "front")))
                path = Path(directory, f"back-{number % 2}")
                timed("in the background", lambda path=path: run.save_checkpoint(path))
                timed("its writing", lambda: back._deliver(run, wait=True))
    first = {name: values.pop(0) for name, values in times.items()}
    base = statistics.median(times["torch.save"])
    print(f"{'':20}{'first':>10}{'median':>10}{'of torch.save':>16}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:20}{first[name]:9.3f}s{middle:9.3f}s{middle / base:15.1%}")


if __name__ == "__main__":
    main()
