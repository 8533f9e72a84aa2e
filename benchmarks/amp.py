"""What the plugin `amp` adds to a training step over autocast and a scaler written by hand.

The arms take turns on one thread, and differences are paired round by round. Times are those of the
processor, so that what else the machine does counts less. On an accelerator of torch's the arms
run there, and what is measured is what it costs to give it its work.
"""

import gc
import statistics
from time import process_time

import torch
from torch import nn

from trainbus import Task, Trainer

ROUNDS, STEPS = 150, 100
OFF = ["-journal", "-manifest", "-nonfinite"]
DEVICE = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


class Plain(Task):
    """A small network, in the precision of whoever calls it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch, run):
        return self.net(batch).float().mean()

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class ByHand(Plain):
    """The same with `torch.autocast` in the step."""

    def training_step(self, batch, run):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            return self.net(batch).float().mean()


def fit(task, precision=None):
    """Processor seconds of one epoch with trainbus, without the start and the end of the run."""

    def seconds(batches):
        trainer = Trainer(plugins=[*OFF, *(["amp"] if precision else [])], precision=precision)
        clock = []
        trainer.on("train_epoch_start")(lambda: clock.append(process_time()))
        trainer.on("train_epoch_end", tryfirst=True)(lambda: clock.append(process_time()))
        trainer.fit(task(), batches)
        return clock[1] - clock[0]

    return seconds


def loop(dtype=None):
    """Processor seconds of a loop without trainbus; for float16 with a scaler."""

    def seconds(batches):
        task = Plain().to(DEVICE)
        optimizer = task.configure_optimizer()
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=dtype is torch.float16)
        begun = process_time()
        for batch in batches:
            if dtype is None:
                loss = task.training_step(batch, None)
            else:
                with torch.autocast(DEVICE.type, dtype):
                    loss = task.training_step(batch, None)
            if dtype is torch.float16:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
            optimizer.zero_grad()
        return process_time() - begun

    return seconds


ARMS = {
    "loop": loop(),
    "loop, float16": loop(torch.float16),
    "trainbus": fit(Plain),
    "trainbus, autocast by hand": fit(ByHand),
    "trainbus, bf16": fit(Plain, "bf16"),
    "trainbus, fp16": fit(Plain, "fp16"),
    "trainbus, fp32 by amp": fit(Plain, "fp32"),
}


def main():
    torch.set_num_threads(1)
    batches = [torch.randn(16, 32, device=DEVICE)] * STEPS
    times = {name: [] for name in ARMS}
    for arm in ARMS.values():  # what is done once in a process
        arm(batches)
    for number in range(ROUNDS):
        # Each second round backwards, so that no arm is always behind the same one.
        for name in list(ARMS) if number % 2 else list(ARMS)[::-1]:
            gc.collect()
            times[name].append(ARMS[name](batches) / STEPS * 1e6)
    print(f"torch {torch.__version__}, {DEVICE}, one thread, {ROUNDS} rounds of {STEPS} steps")
    for name, values in times.items():
        print(f"{name:28}{statistics.median(values):8.1f} us a step, {min(values):8.1f} at least")
    print()
    print(
        f"{'what amp adds, us a step':42}{'median':>8}{'quartiles':>16}{'fastest':>9}{'target':>8}"
    )
    show("bf16, over autocast by hand", times, ["trainbus, bf16"], ["trainbus, autocast by hand"])
    show(
        "fp16, over autocast and scaler by hand",
        times,
        ["trainbus, fp16", "loop"],
        ["loop, float16", "trainbus"],
    )
    show("fp32, over no plugin", times, ["trainbus, fp32 by amp"], ["trainbus"])


def show(name, times, more, less):
    """The sum of some arms without that of others: paired by round, and of the fastest rounds."""
    rounds = range(len(times[more[0]]))
    paired = [sum(times[a][i] for a in more) - sum(times[a][i] for a in less) for i in rounds]
    fastest = sum(min(times[a]) for a in more) - sum(min(times[a]) for a in less)
    low, middle, high = statistics.quantiles(paired, n=4)
    quartiles = f"{low:.1f} .. {high:.1f}"
    print(f"{name:42}{middle:8.1f}{quartiles:>16}{fastest:9.1f}{'<=10':>8}")


if __name__ == "__main__":
    main()
