"""What `trainbus-profiler` adds to a training step: arms in turn, on the CPU.

`timeline` is the clock alone, at each part and each listener; `default` has the memory, too, and
the operations and the trace, whose steps are left out of the comparison, as they are of the table.
The step lasts 5 ms, by work, or by sleep, after which the caches are cold; or it is that of a tiny
network alone. What is compared is the processor time of the training thread, since that of the
clock tells more of what else the machine does; of each arm the quickest quarter of the steps.
"""

import gc
import statistics
import tempfile
from time import perf_counter, sleep, thread_time

import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus_profiler import Profiler

ROUNDS, STEPS, SKIPPED = 7, 100, 20
STEP = 5e-3
ARMS = {
    "off": list,
    "off, once more": list,
    "timeline": lambda: [Profiler(trace=0, memory=False, flops=False, show=False)],
    "default": lambda: [Profiler(show=False)],
}
#: How a step gets to last 5 ms.
KINDS = ("work", "sleep", "tiny")


class Step(Task):
    """A small network, and after it what makes the step last."""

    def __init__(self, kind):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
        self.kind = kind

    def training_step(self, batch, run):
        end = perf_counter() + STEP
        loss = self.net(batch).mean()
        run.log(loss=loss)
        if self.kind == "sleep":
            sleep(max(0.0, end - perf_counter()))
        elif self.kind == "work":
            for _ in range(PRODUCTS):
                torch.mm(MATRIX, MATRIX)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


MATRIX = torch.randn(192, 192)
PRODUCTS = 1


def calibrate():
    """Products that take as long as a step is to last."""
    times = []
    for _ in range(200):
        started = thread_time()
        torch.mm(MATRIX, MATRIX)
        times.append(thread_time() - started)
    return max(1, round(STEP / statistics.median(times)))


def seconds(kind, plugins):
    """Of the processor, in a step, without the first ones."""
    clock = []
    trainer = Trainer(plugins=["-manifest", *plugins], run_dir=tempfile.mkdtemp())
    trainer.on("train_batch_start", tryfirst=True)(lambda: clock.append(thread_time()))
    gc.collect()
    trainer.fit(Step(kind), [torch.randn(16, 32)] * STEPS)
    steps = [b - a for a, b in zip(clock[SKIPPED:], clock[SKIPPED + 1 :], strict=False)]
    return statistics.quantiles(steps)[0]


def main():
    global PRODUCTS
    torch.set_num_threads(1)
    PRODUCTS = calibrate()
    for kind in KINDS:
        times = {name: [] for name in ARMS}
        for round_ in range(ROUNDS + 1):
            for name, make in ARMS.items():
                value = seconds(kind, make())
                if round_:  # the first one warms up
                    times[name].append(value)
        base = times["off"]
        print(f"{kind}: {statistics.median(base) * 1e3:.2f} ms of the processor in a step")
        for name, values in times.items():
            more = statistics.median(a - b for a, b in zip(values, base, strict=True))
            print(f"  {name:16}{more * 1e6:+8.1f} us a step, {more / STEP:+.2%} of 5 ms")


if __name__ == "__main__":
    main()
