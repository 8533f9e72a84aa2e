"""A training to be killed: `python training.py RANDOM_DATA WORKERS SHUFFLE DROPOUT LOADER OUT`.

It accumulates, has a schedule by step and an average of the weights, and keeps the best; with the
loader of trainbus it writes its checkpoints in the background.
"""

import random
import sys

import numpy
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from trainbus import Loader, Trainer
from trainbus.builtin import EMA, Checkpoint, Schedule
from trainbus.testing import Line


class Data(Dataset):
    """Sums of four numbers, with noise from three random generators."""

    def __init__(self, noisy):
        self.x = torch.randn(96, 4, generator=torch.Generator().manual_seed(1))
        self.noisy = noisy

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index]
        y = x.sum(0, keepdim=True)
        if self.noisy:
            x = x + torch.randn(4) + random.random() + numpy.random.rand(4).astype("float32")
        return x, y


class Net(Line):
    """Two layers with dropout between them."""

    def __init__(self, dropout):
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(4, 16), nn.Dropout(dropout), nn.Linear(16, 1))

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(noisy, workers, shuffle, dropout, kind, out):
    torch.manual_seed(3)
    task = Net(0.5 if dropout else 0.0)
    data = Data(noisy)
    make = Loader if kind == "own" else DataLoader
    loader = make(data, batch_size=4, shuffle=bool(shuffle), num_workers=workers)
    ema = EMA(decay=0.9)
    keep = Checkpoint(monitor="valid/loss", every_steps=2, background=kind == "own")
    plugins = [ema, Schedule(name="one_cycle"), keep]
    trainer = Trainer(epochs=3, seed=5, accumulate=2, validate_every=0.5, plugins=plugins)

    @trainer.on("train_batch_end")
    def tell(run):
        print(run.global_step, flush=True)

    run = trainer.fit(task, loader, DataLoader(data, batch_size=32), resume="auto")
    found = {"model": task.state_dict(), "metrics": run.metrics, "step": run.global_step}
    torch.save({**found, "average": ema.average, "best": keep.best}, out)


if __name__ == "__main__":
    *numbers, kind, out = sys.argv[1:]
    main(*map(int, numbers), kind, out)
