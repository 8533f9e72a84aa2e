"""What a training step does to the weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import SkipBatch, SkipStep, Task, Trainer


def by_hand(model, batches, window, epochs=1, lr=0.01):
    """Plain PyTorch: a step for each window of batches, with the mean of their gradients."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for start in range(0, len(batches), window):
            part = batches[start : start + window]
            optimizer.zero_grad()
            for x, y in part:
                (functional.mse_loss(model(x), y) / len(part)).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("sized", [True, False])
def test_weights_equal_those_of_a_hand_written_loop(line, make_loader, window, sized):
    batches = list(make_loader(5))
    expected = by_hand(copy.deepcopy(line), batches, window)
    run = Trainer(accumulate=window).fit(line, batches if sized else iter(batches))
    assert run.global_step == -(-5 // window)
    for mine, theirs in zip(line.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_without_accumulation_the_weights_are_the_same_bits(line, make_loader):
    batches = list(make_loader(5))
    expected = by_hand(copy.deepcopy(line), batches, 1, epochs=3)
    Trainer(epochs=3).fit(line, batches)
    assert torch.equal(line.linear.weight, expected.linear.weight)


def test_a_batch_skipped_at_the_end_of_a_window_leaves_the_mean_of_the_others(line, make_loader):
    batches = list(make_loader(2))
    expected = by_hand(copy.deepcopy(line), batches[:1], 1)
    trainer = Trainer(accumulate=2)

    @trainer.on("train_batch_start")
    def skip(run):
        if run.batch_index == 1:
            raise SkipBatch

    run = trainer.fit(line, batches)
    assert run.global_step == 1
    torch.testing.assert_close(line.linear.weight, expected.linear.weight)


def test_a_skipped_step_changes_nothing_and_is_counted(line, make_loader):
    before = line.linear.weight.detach().clone()
    trainer = Trainer()

    @trainer.on("before_optimizer_step")
    def veto(run):
        raise SkipStep

    run = trainer.fit(line, make_loader(3))
    assert torch.equal(line.linear.weight, before)
    assert (run.global_step, run.skipped_steps) == (0, 3)
    assert line.linear.weight.grad is None


def test_an_optimizer_step_that_reports_a_skip_is_not_counted(line, make_loader):
    trainer = Trainer()

    @trainer.on("optimizer_step")
    def overflow(run):
        return False

    run = trainer.fit(line, make_loader(3))
    assert (run.global_step, run.skipped_steps) == (0, 3)


def test_what_is_differentiated_may_be_replaced_without_changing_what_is_logged(line, make_loader):
    trainer = Trainer()
    before = line.linear.weight.detach().clone()

    @trainer.on("after_loss")
    def vanish(run):
        run.loss_to_backward = run.loss_to_backward * 0

    run = trainer.fit(line, make_loader(1))
    assert torch.equal(line.linear.weight, before)
    assert run.loss.item() > 0


def test_the_batch_may_be_replaced(make_line, make_loader):
    seen = []

    class Watching(make_line):
        def training_step(self, batch, run):
            seen.append(batch[0].clone())
            return super().training_step(batch, run)

    trainer = Trainer()

    @trainer.on("train_batch_start")
    def augment(run):
        x, y = run.batch
        run.batch = (torch.zeros_like(x), y)

    trainer.fit(Watching(), make_loader(1))
    assert not seen[0].any()


def test_an_action_may_be_wrapped(line, make_loader):
    trainer = Trainer()
    seen = []

    @trainer.on("training_step", wrapper=True)
    def watch(run):
        seen.append("before")
        loss = yield
        seen.append(loss.item())
        return loss * 0

    run = trainer.fit(line, make_loader(1))
    assert seen[0] == "before" and seen[1] > 0
    assert run.loss.item() == 0


def test_a_mapping_with_the_loss_will_do(make_line, make_loader):
    class Mapped(make_line):
        def training_step(self, batch, run):
            return {"loss": super().training_step(batch, run), "extra": 1}

    outputs = []
    trainer = Trainer()
    trainer.on("train_batch_end")(lambda run: outputs.append(run.output["extra"]))
    run = trainer.fit(Mapped(), make_loader(2))
    assert (run.global_step, outputs) == (2, [1, 1])


def test_several_optimizers_step_together_and_count_once(make_line, make_loader):
    class Two(make_line):
        def configure_optimizer(self):
            return [
                torch.optim.SGD([self.linear.weight], lr=0.01),
                torch.optim.SGD([self.linear.bias], lr=0.01),
            ]

    task = Two()
    batches = list(make_loader(3))
    expected = by_hand(copy.deepcopy(task), batches, 1)
    run = Trainer().fit(task, batches)
    assert run.global_step == 3
    assert torch.equal(task.linear.weight, expected.linear.weight)
    assert torch.equal(task.linear.bias, expected.linear.bias)


class Gan(Task):
    """Two models, two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(2, 1)
        self.critic = nn.Linear(1, 1)

    def training_step(self, batch, run):
        critic, generator = run.optimizers
        real, noise = batch
        fake = self.generator(noise)
        run.backward(self.critic(fake.detach()).mean() - self.critic(real).mean(), critic)
        run.optimizer_step(critic)
        run.backward(-self.critic(fake).mean(), generator)
        self.leak = self.critic.weight.grad
        run.optimizer_step(generator)

    def configure_optimizer(self):
        return [
            torch.optim.SGD(self.critic.parameters(), lr=0.1),
            torch.optim.SGD(self.generator.parameters(), lr=0.1),
        ]


def test_a_gan_steps_by_hand_through_the_same_hooks(record):
    task = Gan()
    before = copy.deepcopy(task.state_dict())
    trainer = Trainer()
    events = record(trainer)
    run = trainer.fit(task, [(torch.randn(4, 1), torch.randn(4, 2)) for _ in range(3)])
    per_optimizer = ["after_loss", "after_backward", "before_optimizer_step"]
    per_optimizer.append("after_optimizer_step")
    batch = ["train_batch_start", *per_optimizer * 2, "train_batch_end", "savepoint"]
    assert events[4:-5] == batch * 3
    assert run.global_step == 3, "two optimizers in one batch are one step"
    assert task.leak is None, "the generator's loss leaves the critic without a gradient"
    for name in ("critic.weight", "generator.weight"):
        assert not torch.equal(before[name], task.state_dict()[name])


def test_clip_norm_limits_each_step(line, make_loader):
    norms = []
    trainer = Trainer(clip_norm=0.5)
    trainer.on("after_optimizer_step")(
        lambda run: norms.append(
            torch.stack([p.grad.norm() for p in run.task.parameters()]).norm().item()
        )
    )
    trainer.fit(line, make_loader(4))
    assert norms and all(norm <= 0.5 + 1e-5 for norm in norms)


def test_max_steps_counts_optimizer_steps_and_still_validates(line, make_loader):
    run = Trainer(max_steps=3, accumulate=2).fit(line, make_loader(4), make_loader(1))
    assert (run.global_step, run.status) == (3, "completed")
    assert "valid/loss" in run.metrics


def test_max_time_ends_the_run(line, make_loader):
    run = Trainer(epochs=10_000, max_time=0.5).fit(line, make_loader(2))
    assert run.status == "completed"
    assert 0 < run.epoch < 10_000


def test_a_batch_skipped_after_its_backward_makes_no_step(line, make_loader):
    before = line.linear.weight.detach().clone()
    trainer = Trainer()

    @trainer.on("after_backward")
    def skip(run):
        raise SkipBatch

    run = trainer.fit(line, make_loader(2))
    assert run.global_step == 0
    assert torch.equal(line.linear.weight, before)


def test_a_veto_of_one_optimizer_leaves_the_other_its_gradients(make_line, make_loader):
    class Two(make_line):
        def configure_optimizer(self):
            return [
                torch.optim.SGD([self.linear.weight], lr=0.01),
                torch.optim.SGD([self.linear.bias], lr=0.01),
            ]

    task = Two()
    weight, bias = (p.detach().clone() for p in task.parameters())
    trainer = Trainer()

    @trainer.on("before_optimizer_step")
    def veto_the_first(run):
        if run.optimizer is run.optimizers[0]:
            raise SkipStep

    run = trainer.fit(task, make_loader(1))
    assert (run.global_step, run.skipped_steps) == (1, 1)
    assert torch.equal(task.linear.weight, weight)
    assert not torch.equal(task.linear.bias, bias)


def test_a_veto_after_the_step_comes_too_late_to_count(line, make_loader):
    trainer = Trainer()

    @trainer.on("after_optimizer_step")
    def too_late(run):
        raise SkipStep

    run = trainer.fit(line, make_loader(2))
    assert (run.global_step, run.skipped_steps) == (2, 0)


def test_what_configure_model_returns_is_trained(line, make_line, make_loader):
    other = make_line()
    before = other.linear.weight.detach().clone()
    trainer = Trainer()

    @trainer.on("configure_model", wrapper=True)
    def replace(run):
        yield
        return other

    run = trainer.fit(line, make_loader(1))
    assert run.task is other and run.model is other
    assert not torch.equal(other.linear.weight, before)


def test_a_resumed_run_that_has_all_its_steps_makes_no_more(line, make_loader):
    run = Trainer(max_steps=4, plugins=["checkpoint"]).fit(line, make_loader(2))
    path = run.dir / "checkpoints" / "step-00000004"
    again = Trainer(max_steps=3).fit(line, make_loader(2), resume=path)
    assert again.global_step == 4


def test_every_means_the_same_step_for_each_optimizer(record):
    seen = []
    trainer = Trainer()

    @trainer.on("before_optimizer_step", every=2)
    def note(run):
        seen.append((run.batch_index, run.optimizers.index(run.optimizer)))

    trainer.fit(Gan(), [(torch.randn(4, 1), torch.randn(4, 2)) for _ in range(4)])
    assert seen == [(1, 0), (1, 1), (3, 0), (3, 1)]


def test_no_validation_twice_at_one_step(line, make_loader, record):
    trainer = Trainer(validate_every=0.5, max_steps=2)
    events = record(trainer)
    trainer.fit(line, make_loader(4), make_loader(1))
    assert events.count("validation_start") == 1
