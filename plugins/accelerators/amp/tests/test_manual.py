"""Tasks and loops that step by themselves, with one optimizer or several."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, UsageError


class Gan(Task):
    """Two networks against each other, as in the guide to loops."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
        self.critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
        self.stale = []
        self.autocast = []

    def configure_optimizer(self):
        return [
            torch.optim.SGD(self.generator.parameters(), lr=0.05),
            torch.optim.SGD(self.critic.parameters(), lr=0.05),
        ]

    def judged(self, inputs, real):
        logits = self.critic(inputs).float()
        return functional.binary_cross_entropy_with_logits(
            logits, torch.full_like(logits, float(real))
        )

    def training_step(self, real, run):
        of_generator, of_critic = run.optimizers
        fake = self.generator(torch.randn_like(real))
        loss = self.judged(real, True) + self.judged(fake.detach(), False)
        run.backward(loss, of_critic)
        run.optimizer_step(of_critic)
        # What autocast keeps of a weight must be that of the weight after the step.
        weight = self.critic[0].weight
        one = torch.ones(1, 1, dtype=weight.dtype)
        output = functional.linear(one, weight)
        self.stale.append(not torch.equal(output, weight.detach().T.to(output.dtype)))
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        run.backward(self.judged(fake, True), of_generator)
        run.optimizer_step(of_generator)
        run.log(critic=loss)


@pytest.fixture
def samples():
    """Twenty batches of a normal distribution with mean 3."""
    generator = torch.Generator().manual_seed(4)
    return [3 + 0.5 * torch.randn(32, 1, generator=generator) for _ in range(20)]


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.parameters()])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_two_optimizers_stepped_by_the_task(trainer, make_task, samples, quick, precision):
    """Weights stay near those of fp32, and the second forward uses the weights of now."""
    quick.first, quick.interval = 2.0**8, 1000
    expected, task = make_task(Gan), make_task(Gan)
    trainer("fp32").fit(expected, samples)
    run = trainer(precision, accelerator=quick).fit(task, samples)
    assert (run.global_step, run.skipped_steps) == (20, 0)
    assert torch.allclose(weights(task), weights(expected), atol=0.02)
    assert not any(task.stale)
    assert all(task.autocast)


def test_the_same_in_an_own_loop(trainer, make_task, samples):
    """`run.backward` and `run.optimizer_step` in the loop's body give the same weights."""
    task, same = make_task(Gan), make_task(Gan)
    trainer("fp16").fit(task, samples)
    with trainer("fp16").open(same) as run:
        for real in run.batches(samples, epochs=1):
            same.training_step(real, run)
    assert torch.equal(weights(task), weights(same))


def test_autocast_is_off_while_the_task_differentiates_and_steps(trainer, make_task, samples):
    """Backward and optimizer run as they do in an automatic step."""
    states = []

    class Watching(Gan):
        def configure_optimizer(self):
            optimizers = super().configure_optimizer()
            for optimizer in optimizers:
                optimizer.register_step_pre_hook(
                    lambda *_: states.append(torch.is_autocast_enabled("cpu"))
                )
            weight = self.critic[2].weight
            weight.register_hook(lambda _: states.append(torch.is_autocast_enabled("cpu")))
            return optimizers

    trainer("bf16").fit(make_task(Watching), samples[:2])
    assert states
    assert not any(states)


def test_an_optimizer_may_step_many_times_in_a_batch(trainer, amp, make_task, samples, quick):
    """Each step has the scale that its gradients were made with, also when the scale grows."""

    class Often(Gan):
        def training_step(self, real, run):
            of_generator, of_critic = run.optimizers
            for _ in range(3):
                fake = self.generator(torch.randn_like(real)).detach()
                run.backward(self.judged(real, True) + self.judged(fake, False), of_critic)
                run.optimizer_step(of_critic)
            run.backward(self.judged(self.generator(torch.randn_like(real)), True), of_generator)
            run.optimizer_step(of_generator)

    quick.first, quick.interval = 2.0**4, 20
    expected, task = make_task(Often), make_task(Often)
    trainer("fp32").fit(expected, samples)
    runner = trainer("fp16", accelerator=quick)
    run = runner.fit(task, samples)
    assert run.skipped_steps == 0
    assert torch.allclose(weights(task), weights(expected), atol=0.02)
    assert amp(runner).state_dict()["scaler"]["scale"] == 2.0**8  # 80 steps, 4 times 20


def test_gradients_that_wait_keep_their_scale(trainer, make_task, samples, quick):
    """An optimizer that steps first does not change the scale of another's gradients."""

    class Waits(Gan):
        def training_step(self, real, run):
            of_generator, of_critic = run.optimizers
            run.backward(self.judged(self.generator(torch.randn_like(real)), True))
            run.optimizer_step(of_critic)
            run.backward(self.judged(self.generator(torch.randn_like(real)), True), of_generator)
            run.optimizer_step(of_generator)

    quick.first, quick.interval = 2.0**4, 10
    expected, task = make_task(Waits), make_task(Waits)
    trainer("fp32").fit(expected, samples)
    run = trainer("fp16", accelerator=quick).fit(task, samples)
    assert run.skipped_steps == 0
    assert torch.allclose(weights(task), weights(expected), atol=0.02)


def test_a_second_step_with_a_scale_in_use_is_refused(trainer, make_task, samples):
    """While another's gradients wait, an optimizer cannot step twice; the message says why."""

    class Twice(Gan):
        def training_step(self, real, run):
            _, of_critic = run.optimizers
            for _ in range(2):
                run.backward(self.judged(self.generator(torch.randn_like(real)), True))
                run.optimizer_step(of_critic)

    with pytest.raises(UsageError, match="a second time while gradients for another"):
        trainer("fp16").fit(make_task(Twice), samples)


def test_gradients_past_the_scaler_are_refused(trainer, make_task, samples):
    """`loss.backward()` in a task gives gradients that would be divided by the scale."""

    class Past(Gan):
        def training_step(self, real, run):
            self.judged(real, True).backward()
            run.optimizer_step(run.optimizers[1])

    with pytest.raises(UsageError, match=r"run\.backward\(loss\) instead of loss\.backward"):
        trainer("fp16").fit(make_task(Past), samples)


def test_several_optimizers_on_one_loss(trainer, amp, make_task, batches, quick):
    """All skip and step together, and the scale is adapted once for all."""
    quick.first = 2.0**60

    class Both(type(make_task())):
        def configure_optimizer(self):
            return [
                torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.net[0], self.net[4])
            ]

    runner = trainer("fp16", accelerator=quick)
    run = runner.fit(make_task(Both), batches)
    assert (run.global_step, run.skipped_steps) == (0, 2 * len(batches))
    assert amp(runner).state_dict()["scaler"]["scale"] == 2.0**48
