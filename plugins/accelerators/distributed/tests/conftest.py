"""A small training that is told apart by its weights, and its data."""

import hashlib

import pytest
import torch
from torch import nn

from trainbus import Loader, Task, Trainer
from trainbus.testing.fixtures import own_directory  # noqa: F401
from trainbus_distributed import Distributed


@pytest.fixture(autouse=True)
def one_thread():
    """Processes share two cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Small(Task):
    """Eight numbers to one of two classes, with dropout where it is asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 2))

    def training_step(self, batch, run):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        logits = self.net(batch[0])
        run.log(loss=nn.functional.cross_entropy(logits, batch[1]))
        run.log(accuracy=(logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def dataset(count=64):
    """Samples, their classes and their numbers."""
    x = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    return torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long(), torch.arange(count))


def loader(count=64, size=4, kind=Loader, **options):
    """Batches of them."""
    return kind(dataset(count), batch_size=size, shuffle=True, **options)


def digest(module):
    """A text that is the same for the same bits."""
    data = b"".join(each.detach().numpy().tobytes() for each in module.state_dict().values())
    return hashlib.sha256(data).hexdigest()[:16]


def fit(task, train, valid=None, plugins=(), resume=None, **options):
    """Train, and tell what came of it in plain values."""
    options = {"epochs": 2, "seed": 1, **options}
    trainer = Trainer(plugins=[Distributed(timeout=20.0), *plugins], **options)
    run = trainer.fit(task, train, valid, resume=resume)
    return {
        "digest": digest(task), "metrics": dict(run.metrics), "steps": run.global_step,
        "status": run.status, "dir": str(run.dir), "epoch": run.epoch,
    }  # fmt: skip
