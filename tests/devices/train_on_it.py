"""A training to be killed: `python train_on_it.py PLUGINS PRECISION OUT` (`-` for no precision).

It prints each step, and at the end writes weights, header and what the device was asked.
"""

import sys

import torch
from torch import nn

from trainbus import Loader, Task, Trainer
from trainbus.builtin import Checkpoint


class Net(Task):
    """Two layers with dropout between them."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.seen = ""

    def training_step(self, batch, run):
        x, y = batch
        predicted = self.net(x)
        self.seen = str(predicted.dtype)
        loss = nn.functional.mse_loss(predicted.float(), y)
        run.log(loss=loss)
        return loss

    def configure_optimizer(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(plugins, precision, out):
    torch.manual_seed(3)
    x = torch.randn(64, 4)
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    task = Net()
    trainer = Trainer(
        epochs=3,
        seed=5,
        plugins=[*plugins.split(","), Checkpoint(every_steps=2)],
        precision=None if precision == "-" else precision,
    )

    @trainer.on("train_batch_end")
    def tell(run):
        print(run.global_step, flush=True)

    run = trainer.fit(task, Loader(data, batch_size=4, shuffle=True), resume="auto")
    torch.save(
        {
            "model": task.state_dict(),
            "metrics": run.metrics,
            "header": run.header,
            "accelerator": run.accelerator.name,
            "asked": getattr(run.accelerator, "asked", {}),
            "dtype": task.seen,
        },
        out,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
