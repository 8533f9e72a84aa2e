"""What is asked of every plugin of trainbus."""

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from trainbus import Task
from trainbus.testing import conformance


class Classifier(Task):
    """Images of 3 x 8 x 8 to one of three classes."""

    hparams = {"lr": 0.05}

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, inputs):
        return self.head(self.body(inputs))

    def training_step(self, batch, run):
        loss = functional.cross_entropy(self(batch[0]), batch[1])
        run.log(loss=loss)
        return loss

    def validation_step(self, batch, run):
        scores = self(batch[0])
        accuracy = (scores.argmax(dim=1) == batch[1]).float().mean()
        run.log(loss=functional.cross_entropy(scores, batch[1]), accuracy=accuracy)
        return scores

    def configure_optimizer(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def loader():
    """Always the same data."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(20, 3, 8, 8, generator=generator)
    target = inputs.mean(dim=(2, 3)).argmax(dim=1)
    return DataLoader(TensorDataset(inputs, target), batch_size=4, shuffle=True)


TestConformance = conformance("augment", task=Classifier, loader=loader, milliseconds=200)
TestMixing = conformance(
    "augment", task=Classifier, loader=loader, milliseconds=200,
    policy="autoaugment", erase=0.5, mixup=0.4, cutmix=1.0, smoothing=0.1, classes=3,
)  # fmt: skip
