"""Finders for a task of one's own, which leave everything as it was."""

import pytest
import torch
from torch.nn import functional
from torch.optim.lr_scheduler import ExponentialLR

from trainbus import Loader, Task, Trainer, UsageError
from trainbus.builtin import Checkpoint
from trainbus_learner import find_batch_size, find_lr

torch.manual_seed(0)
X = torch.randn(64, 3)
Y = X @ torch.tensor([[1.0], [-2.0], [0.5]])


class Line(Task):
    """A line with a schedule of its own."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.line = torch.nn.Linear(3, 1)

    def training_step(self, batch, run):
        return functional.mse_loss(self.line(batch["x"]), batch["y"])

    def configure_optimizer(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return optimizer, ExponentialLR(optimizer, 0.9)


def loader(**options):
    samples = [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]
    return torch.utils.data.DataLoader(samples, batch_size=8, **options)


def test_a_rate_is_found_and_nothing_is_changed():
    task, data = Line(), loader(shuffle=True, generator=torch.Generator().manual_seed(1))
    before = [p.clone() for p in task.parameters()], data.generator.get_state(), torch.rand(1)
    torch.manual_seed(5)
    rates = find_lr(task, data)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert drawn == torch.rand(1)
    assert 1e-4 < rates.suggestion < 1.0
    assert len(rates.rates) == len(rates.losses)
    assert all(map(torch.equal, before[0], task.parameters()))
    assert torch.equal(before[1], data.generator.get_state())


def test_the_options_of_a_trainer_take_part_and_its_checkpoints_do_not(tmp_path):
    trainer = Trainer(accumulate=2, min_steps=9, plugins=[Checkpoint(every_steps=1)])
    found = find_lr(Line(), loader(), trainer, steps=20)
    assert len(found.rates) <= 20
    assert not list(tmp_path.rglob("checkpoints"))


def test_a_batch_size_is_found_and_nothing_is_changed():
    task, data = Line(), Loader(loader().dataset, batch_size=8, shuffle=True)
    before = [p.clone() for p in task.parameters()]
    found = find_batch_size(task, data, maximum=32, steps=2)
    assert set(found.speeds) <= {8, 16, 32}
    assert found.suggestion in found.speeds
    assert all(map(torch.equal, before, task.parameters()))


@pytest.mark.parametrize("find", [find_lr, find_batch_size])
def test_what_is_no_task_or_no_loader_is_refused(find):
    with pytest.raises(UsageError, match="give a Task"):
        find(torch.nn.Linear(3, 1), loader())
    with pytest.raises(UsageError, match="a generator can be read only once"):
        find(Line(), iter(loader()))
