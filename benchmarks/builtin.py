"""What built-in plugins add to a training step: a small network on the CPU, arms in turn."""

import statistics
from time import perf_counter

import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus.builtin import EMA, OOM, Checkpoint, Nonfinite

ROUNDS, STEPS = 15, 1000
ARMS = {
    "no plugin": lambda: ["-nonfinite"],
    "nonfinite: warn": lambda: [Nonfinite()],
    "nonfinite: skip": lambda: [Nonfinite("skip")],
    "checkpoint": lambda: ["-nonfinite", Checkpoint(every_epochs=10**6)],
    "oom": lambda: ["-nonfinite", OOM()],
    "oom in 4 parts": lambda: ["-nonfinite", OOM(parts=4)],
    "ema": lambda: ["-nonfinite", EMA()],
}


class Small(Task):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, run):
        loss = self.net(batch).mean()
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def seconds(plugins):
    """Of one epoch, without the start and the end of the run."""
    trainer = Trainer(plugins=["-journal", "-manifest", *plugins])
    clock = []
    trainer.on("train_epoch_start")(lambda: clock.append(perf_counter()))
    trainer.on("train_epoch_end", tryfirst=True)(lambda: clock.append(perf_counter()))
    trainer.fit(Small(), [torch.randn(16, 32)] * STEPS)
    return clock[1] - clock[0]


def main():
    torch.set_num_threads(1)
    times = {name: [] for name in ARMS}
    for _ in range(ROUNDS):
        for name, make in ARMS.items():
            times[name].append(seconds(make()) / STEPS * 1e6)
    base = times["no plugin"]
    for name, values in times.items():
        more = statistics.median(a - b for a, b in zip(values, base, strict=True))
        print(f"{name:18}{statistics.median(values):7.1f} us a step, {more:+6.1f}")


if __name__ == "__main__":
    main()
