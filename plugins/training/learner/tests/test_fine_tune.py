"""Freezing, and fine-tuning in two cycles of one run."""

from __future__ import annotations

import signal

import pytest
import torch
from torch import nn

from trainbus import UsageError, hookimpl
from trainbus_learner import Learner

QUIET = ["-progress"]


def body_and_head(model):
    return [[model[0]], [model[1]]]


class Watch:
    """Notes at each step the rates by group, and which weights have a gradient."""

    def __init__(self):
        self.rates, self.trained = [], []

    @hookimpl(tryfirst=True)
    def on_before_optimizer_step(self, run):
        groups = run.optimizer.param_groups
        self.rates.append({group["name"]: group["lr"] for group in groups})
        names = [name for name, p in run.task.named_parameters() if p.grad is not None]
        self.trained.append(names)


class Started:
    """Notes at which step a run begins or goes on."""

    def __init__(self, steps):
        self.steps = steps

    @hookimpl
    def on_epoch_start(self, run):
        self.steps.append(run.global_step)


def learner_of(data, model, *plugins, **options):
    options = {"groups": body_and_head, "pretrained": True, "seed": 0, **options}
    return Learner(data, model, plugins=[*QUIET, *plugins], **options)


def test_freezing_trains_the_head_and_the_norms_alone(data, model):
    learner = learner_of(data, model)
    learner.freeze()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner.fit(1, 0.01)
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert "0.0.weight" not in moved and "0.0.bias" not in moved
    assert moved == set(before) - {"0.0.weight", "0.0.bias"}
    learner.unfreeze()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_freeze_to_counts_from_either_end(data, model):
    learner = learner_of(data, model)
    for n, frozen in ((1, 1), (-1, 1), (0, 0), (-2, 0)):
        learner.freeze_to(n)
        assert learner.groups.frozen_to == frozen
        assert model[0][0].weight.requires_grad == (frozen == 0)
    with pytest.raises(UsageError, match=r"2 groups \(body, head\)"):
        learner.freeze_to(2)


def test_what_the_user_froze_stays_frozen(data, model):
    model[1][1].bias.requires_grad_(False)
    learner = learner_of(data, model)
    learner.freeze()
    learner.unfreeze()
    assert not model[1][1].bias.requires_grad and model[0][0].weight.requires_grad


def test_freezing_without_groups_says_what_to_give(data, model):
    with pytest.raises(UsageError, match="give groups="):
        Learner(data, model, plugins=QUIET).freeze()


def test_fine_tuning_is_one_run_of_two_cycles(data, model):
    watch = Watch()
    learner = learner_of(data, model, watch)
    run = learner.fine_tune(2, 2e-2)
    assert (run.epoch, run.global_step) == (3, 30)
    assert "model.0.0.weight" not in watch.trained[9] and "model.0.1.weight" in watch.trained[9]
    assert "model.0.0.weight" in watch.trained[10]
    head = [step["head"] for step in watch.rates]
    body = [step["body"] for step in watch.rates]
    assert head[0] == pytest.approx(2e-2 / 25) and max(head[:10]) > 0.9 * 2e-2
    assert body[:10] == pytest.approx([rate / 10 for rate in head[:10]])  # its norms
    assert head[10] == pytest.approx(1e-2 / 5) and max(head[10:]) == pytest.approx(1e-2, rel=0.01)
    assert body[10:] == pytest.approx([rate / 100 for rate in head[10:]])
    said = run.header["schedule"]
    assert "two cycles" in said and "head alone at 0.02" in said
    assert learner.groups.frozen_to == 0


def test_a_model_with_nothing_pretrained_gets_one_cycle_and_is_told(data, model):
    watch = Watch()
    learner = learner_of(data, model, watch, pretrained=False)
    run = learner.fine_tune(1)
    assert run.epoch == 1 and "model.0.0.weight" in watch.trained[0]
    said = run.header["schedule"]
    assert "one cycle" in said and said.endswith("nothing is frozen: nothing is pretrained")


@pytest.mark.parametrize("steps", [4, 10, 17])
def test_an_interrupted_fine_tuning_resumes_to_the_same_bits(data, make_model, steps):
    class Stop:
        @hookimpl
        def on_train_batch_end(self, run):
            if run.global_step == steps:
                signal.raise_signal(signal.SIGINT)  # as Ctrl-C

    whole = learner_of(data, make_model(), run_dir="whole")
    whole.fine_tune(1, 2e-2)
    broken = learner_of(data, make_model(), Stop(), run_dir="broken")
    with pytest.raises(KeyboardInterrupt):
        broken.fine_tune(1, 2e-2, resume="auto")
    assert broken.groups.frozen_to == 0  # as it was before the call
    again = learner_of(data, make_model(), run_dir="broken")
    first = []
    again.plugins.append(Started(first))
    run = again.fine_tune(1, 2e-2, resume="auto")
    assert (first[0], run.global_step) == (steps, 20)
    for name, value in whole.model.state_dict().items():
        assert again.model.state_dict()[name].equal(value), name


def test_resume_switches_checkpoints_on(data, model):
    run = learner_of(data, model).fit(1, resume="auto")
    assert (run.dir / "checkpoints").is_dir()


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"epochs": 1.5}, {"epochs": 1, "frozen_epochs": -1}]
)
def test_epochs_that_are_none_are_refused(data, model, bad):
    with pytest.raises(UsageError, match="whole number of epochs"):
        learner_of(data, model).fine_tune(**bad)


def test_a_loader_without_a_length_is_told_before_the_first_step(digits, model):
    class Endless:
        def __iter__(self):
            yield digits[0][:8].float(), digits[1][:8]

    learner = Learner(
        (Endless(), None), model, loss=nn.functional.cross_entropy, groups=body_and_head,
        pretrained=True, plugins=QUIET,
    )  # fmt: skip
    with pytest.raises(UsageError, match="does not say its length"):
        learner.fine_tune(1)
    assert torch.isfinite(model[0][0].weight).all() and learner.groups.frozen_to == 0
