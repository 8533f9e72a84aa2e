"""What a step costs in two processes, beside a loop by hand around DDP; gloo, one thread each.

Arms take turns in each round, in the same two processes; the smallest time of each counts.
"""

from __future__ import annotations

import time

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trainbus import Task, Trainer
from trainbus.testing.processes import ranks
from trainbus_distributed import Distributed

STEPS, ROUNDS = 300, 5


class Net(Task):
    """A small model, with one number logged in each step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, run):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def by_hand(batches) -> float:
    """Seconds for each step of a loop by hand."""
    net = Net().net
    model = DistributedDataParallel(net, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    started = time.perf_counter()
    for x, y in batches:
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / len(batches)


def by_trainbus(batches) -> float:
    """Seconds for each step of a fit with the default plugins and checkpoints."""
    moments = []
    trainer = Trainer(plugins=["distributed", "checkpoint"], run_dir="runs-processes")
    trainer.on("train_batch_end")(lambda run: moments.append(time.perf_counter()))
    trainer.fit(Net(), batches)
    return (moments[-1] - moments[0]) / (len(moments) - 1)


def measure() -> dict[str, float]:
    """The smallest of each arm, and meetings for each step."""
    torch.set_num_threads(1)
    peers = Distributed().provide_peers()
    share = [(torch.randn(16, 32), torch.randint(10, (16,))) for _ in range(STEPS)]
    times: dict[str, list[float]] = {"by hand": [], "trainbus": []}
    before = peers.meetings
    for _ in range(ROUNDS):
        times["by hand"].append(by_hand(share))
        times["trainbus"].append(by_trainbus([each for each in share for _ in range(2)]))
    meetings = (peers.meetings - before) / ROUNDS / STEPS
    return {**{name: 1000 * min(each) for name, each in times.items()}, "meetings": meetings}


if __name__ == "__main__":
    found = ranks(2, measure, seconds=600)[0]
    print(f"{'a loop by hand around DDP':34} {found['by hand']:.3f} ms a step")
    print(f"{'trainbus, journal and checkpoint':34} {found['trainbus']:.3f} ms a step")
    print(f"{'meetings beside DDP':34} {found['meetings']:.3f} a step, with those of start and end")
