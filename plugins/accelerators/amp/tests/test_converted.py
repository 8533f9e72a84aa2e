"""Models and batches in another type, and back."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from trainbus import Task
from trainbus_amp.conversion import cast

TYPES = {
    "bf16-true": torch.bfloat16,
    "fp16-true": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


@pytest.mark.parametrize(("precision", "dtype"), TYPES.items())
def test_model_and_batches_are_converted_and_the_model_back(
    trainer, task, batches, precision, dtype
):
    """All floating-point tensors of a training have the type; afterwards they are as before."""
    seen = set()
    runner = trainer(precision, epochs=2)

    @runner.on("train_batch_end")
    def note(run):
        seen.update(t.dtype for t in task.state_dict().values())
        seen.update((run.batch[0].dtype, run.batch[1].dtype, run.loss.dtype))
        seen.update(s["momentum_buffer"].dtype for s in run.optimizer.state.values())

    run = runner.fit(task, batches, batches)
    assert seen == {dtype, torch.int64}
    assert run.header["precision"].startswith(precision)
    assert {t.dtype for t in task.state_dict().values()} == {torch.float32, torch.int64}
    task(batches[0][0]).sum().backward()  # as ever


@pytest.mark.parametrize("precision", ["bf16-true", "fp16-true", "fp64"])
def test_it_learns(trainer, task, batches, precision):
    """The loss falls nearly as it does in float32."""
    run = trainer(precision, epochs=5).fit(task, batches)
    assert run.metrics["train/loss_epoch"] < 0.5


def test_an_evaluation_leaves_the_weights_as_they_were(trainer, task, batches):
    """To the last bit, although they were rounded for it."""
    before = {name: value.clone() for name, value in task.state_dict().items()}
    runner = trainer("bf16-true")
    runner.validate(task, batches)
    outputs = list(runner.predict(task, batches))
    assert outputs[0].dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_a_run_that_fails_puts_the_model_back(trainer, task, batches):
    """Types are those of before, and so is the type of gradients and of new tensors."""

    def fail(batch, run):
        task(batch[0]).sum().backward()
        raise RuntimeError("on purpose")

    task.training_step = fail
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer("bf16-true").fit(task, batches)
    assert {p.dtype for p in task.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in task.parameters()} == {torch.float32}
    assert torch.get_default_dtype() == torch.float32


def test_tensors_made_in_a_step_have_the_type(trainer, batches):
    """`torch.randn(3)` in a step fits the model's weights."""

    class Noisy(Task):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(8, 3)

        def training_step(self, batch, run):
            return nn.functional.cross_entropy(self.net(batch[0] + torch.randn(16, 8)), batch[1])

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    assert trainer("bf16-true").fit(Noisy(), batches).global_step == len(batches)


def test_a_ready_made_optimizer_keeps_its_parameters(trainer, task, batches):
    """The parameters stay the same objects, so that an optimizer of a loop by hand moves them."""
    optimizer = torch.optim.SGD(task.net.parameters(), lr=0.1)
    before = task.net[0].weight.detach().clone()
    with trainer("bf16-true").open(task.net, optimizer) as run:
        for inputs, target in run.batches(batches, epochs=1):
            run.step(nn.functional.cross_entropy(task.net(inputs), target))
    assert not torch.equal(task.net[0].weight, before)


def test_complex_numbers_and_integers_are_left_alone(trainer, batches):
    """Only floating-point tensors are converted."""

    class Waves(Task):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(8, 3)
            self.register_buffer("wave", torch.ones(2, dtype=torch.complex64) * 1j)

        def training_step(self, batch, run):
            assert self.wave.dtype == torch.complex64
            return self.net(batch[0]).float().mean()

        def configure_optimizer(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer("bf16-true").fit(Waves(), batches)


def test_nested_batches_are_converted():
    """Tuples, named tuples, lists, mappings, dataclasses; all else goes through."""

    class Pair(NamedTuple):
        x: torch.Tensor
        y: torch.Tensor

    @dataclass
    class Box:
        x: torch.Tensor
        name: str

    x, y = torch.ones(2), torch.ones(2, dtype=torch.long)
    made = cast({"a": [x, y], "b": Pair(x, y), "c": Box(x, "n"), "d": None}, torch.float64)
    assert [t.dtype for t in made["a"]] == [torch.float64, torch.int64]
    assert (made["b"].x.dtype, made["b"].y.dtype) == (torch.float64, torch.int64)
    assert (made["c"].x.dtype, made["c"].name, made["d"]) == (torch.float64, "n", None)
    assert x.dtype == torch.float32
