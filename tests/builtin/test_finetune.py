"""Freezing, unfreezing and learning rates, against loops written by hand."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, Trainer, hookimpl
from trainbus.builtin.finetune import Finetune
from trainbus.errors import CheckpointError, PluginError, UsageError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.low = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
        self.high = nn.Linear(6, 6)
        self.head = nn.Linear(6, 1)

    def forward(self, x):
        return self.head(torch.relu(self.high(torch.relu(self.low(x)))))


def make_task(optimizer=None):
    torch.manual_seed(0)
    optimizer = optimizer or partial(torch.optim.AdamW, lr=0.1, weight_decay=0.1)
    return Task.supervised(Net(), functional.mse_loss, optimizer)


BODY = ["model.low", "model.high"]
STAGES = {1: "model.high", 2: "model.low"}


def trained(task):
    return {name for name, p in task.named_parameters() if p.requires_grad}


def rates(optimizer):
    return {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def watch(trainer):
    """What is trained in each epoch."""
    seen = []
    trainer.on("train_epoch_start")(lambda run: seen.append(trained(run.task)))
    return seen


def test_the_body_is_unfrozen_by_epochs(make_loader):
    task = make_task()
    trainer = Trainer(epochs=4, plugins=[Finetune(BODY, STAGES, train_norms=False)])
    seen = watch(trainer)
    trainer.fit(task, make_loader(2))
    head = {"model.head.weight", "model.head.bias"}
    high = head | {"model.high.weight", "model.high.bias"}
    everything = {name for name, _ in task.named_parameters()}
    assert seen == [head, high, everything, everything]


def test_it_trains_as_a_loop_by_hand_that_adds_groups(make_loader):
    loader = make_loader(3)
    task = make_task()
    trainer = Trainer(epochs=3, plugins=[Finetune(BODY, STAGES, lr_ratio=4, train_norms=False)])
    trainer.fit(task, loader)

    net = copy.deepcopy(make_task().model)
    options = {"weight_decay": 0.1}
    optimizer = torch.optim.AdamW(net.head.parameters(), lr=0.1, **options)
    net.low.requires_grad_(False)
    net.high.requires_grad_(False)
    net.low[1].eval()
    for epoch in range(3):
        if epoch == 1:
            net.high.requires_grad_(True)
            optimizer.add_param_group({"params": list(net.high.parameters()), "lr": 0.05})
        if epoch == 2:
            net.low.requires_grad_(True).train()
            optimizer.add_param_group({"params": list(net.low.parameters()), "lr": 0.025})
        for x, y in loader:
            optimizer.zero_grad()
            functional.mse_loss(net(x), y).backward()
            optimizer.step()
    for (name, one), other in zip(
        task.model.state_dict().items(), net.state_dict().values(), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-6, atol=0), name


def test_what_no_epoch_unfreezes_stays_as_it_was(make_loader):
    task = make_task()
    before = [p.detach().clone() for p in task.model.high.parameters()]
    Trainer(epochs=2, plugins=[Finetune("model.high")]).fit(task, make_loader(3))
    assert same(before, task.model.high.parameters())
    assert not same(make_task().model.head.parameters(), task.model.head.parameters())


@pytest.mark.parametrize("train_norms", [True, False])
def test_train_norms_says_what_batch_norms_of_the_body_do(make_loader, train_norms):
    task = make_task()
    norm, before = task.model.low[1], copy.deepcopy(task.model.low[1])
    plugin = Finetune("model.low", train_norms=train_norms)
    Trainer(plugins=[plugin]).fit(task, make_loader(3), make_loader(1))
    assert torch.equal(norm.running_mean, before.running_mean) is not train_norms
    assert torch.equal(norm.weight, before.weight) is not train_norms
    assert same(make_task().model.low[0].parameters(), task.model.low[0].parameters())


def test_the_rates_fall_geometrically_from_the_head_to_what_is_unfrozen_last(make_loader):
    task = make_task()
    run = Trainer(plugins=[Finetune(BODY, STAGES, lr_ratio=16)]).fit(task, make_loader(1))
    model, lr = task.model, rates(run.optimizer)
    assert lr[id(model.head.weight)] == pytest.approx(0.1)
    assert lr[id(model.high.weight)] == pytest.approx(0.025)
    assert lr[id(model.low[0].weight)] == pytest.approx(0.00625)
    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.1}


def test_groups_of_the_task_keep_their_own_options(make_loader):
    def two_groups(parameters):
        weights = [p for p in parameters if p.ndim > 1]
        return torch.optim.SGD([{"params": weights, "momentum": 0.5}], lr=0.1)

    task = make_task(two_groups)
    with pytest.raises(UsageError, match=r"model\.high\.bias is unfrozen at epoch 1, but no opt"):
        Trainer(plugins=[Finetune(BODY, STAGES, lr_ratio=4)]).fit(task, make_loader(1))
    stages = {1: "*high.weight"}
    run = Trainer(plugins=[Finetune(BODY, stages, lr_ratio=4)]).fit(task, make_loader(1))
    assert [(group["lr"], group["momentum"]) for group in run.optimizer.param_groups] == [
        (0.1, 0.5), (0.025, 0.5)
    ]  # fmt: skip


def test_named_parameters_keep_their_names(make_loader):
    task = make_task()
    task.optimizer = torch.optim.SGD(task.model.named_parameters(), lr=0.1)
    run = Trainer(plugins=[Finetune(BODY, STAGES, lr_ratio=4)]).fit(task, make_loader(1))
    assert [group["param_names"][0] for group in run.optimizer.param_groups] == [
        "head.weight", "high.weight", "low.0.weight"
    ]  # fmt: skip


def test_a_second_fit_with_the_same_optimizer_does_not_scale_twice(make_loader):
    task = make_task()
    task.optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1)
    trainer = Trainer(plugins=[Finetune(BODY, STAGES, lr_ratio=4)])
    first = rates(trainer.fit(task, make_loader(1)).optimizer)
    assert rates(trainer.fit(task, make_loader(1)).optimizer) == first


def test_without_a_ratio_the_optimizer_is_left_alone(make_loader):
    run = Trainer(plugins=[Finetune(BODY, STAGES)]).fit(make_task(), make_loader(1))
    assert [group["lr"] for group in run.optimizer.param_groups] == [0.1]


def test_a_schedule_scales_all_groups_from_the_start(make_loader):
    trainer = Trainer(epochs=3, plugins=[Finetune(BODY, STAGES, lr_ratio=4)])
    schedulers = []

    @trainer.on("fit_start", tryfirst=True)
    def begin(run):
        schedulers.append(torch.optim.lr_scheduler.StepLR(run.optimizer, 1, gamma=0.5))

    trainer.on("epoch_end")(lambda: schedulers[0].step())
    run = trainer.fit(make_task(), make_loader(1))
    assert [group["lr"] for group in run.optimizer.param_groups] == pytest.approx(
        [0.1 / 8, 0.05 / 8, 0.025 / 8]
    )


def test_plugins_that_look_at_the_optimizers_see_all_groups(make_loader):
    counts = []

    class Looks:
        @hookimpl(wrapper=True)
        def configure_optimizer(self):
            optimizers = yield
            counts.append(len(optimizers[0].param_groups))
            return optimizers

    plugins = [Finetune(BODY, STAGES, lr_ratio=4), Looks()]
    Trainer(plugins=plugins).fit(make_task(), make_loader(1))
    assert counts == [3]


def test_going_back_drops_the_gradients_of_what_is_frozen_again(make_loader):
    trainer = Trainer(epochs=2, accumulate=2, plugins=[Finetune("model.high", {1: "model.high"})])
    values = []

    @trainer.on("train_batch_end")
    def go_back(run):
        if run.global_step == 2 and not values and run.accumulating:
            run.load_checkpoint("saved")
            values.append(run.task.model.high.weight.detach().clone())

    @trainer.on("epoch_end")
    def save(run):
        if not values:
            run.save_checkpoint("saved")

    @trainer.on("after_optimizer_step")
    def look(run):
        if values:
            values.append(run.task.model.high.weight.detach().clone())

    trainer.fit(make_task(), make_loader(4))
    assert len(values) > 1
    assert torch.equal(values[0], values[1])


@pytest.mark.parametrize("at", [2, 3, 5, 6, 7])
def test_resuming_gives_the_same_bits(make_loader, at):
    def train(resume=None, stop_at=None):
        task = make_task()
        plugin = Finetune(BODY, STAGES, lr_ratio=4, train_norms=False)
        trainer = Trainer(epochs=3, plugins=[plugin])

        def stop(run):
            if run.global_step == stop_at:
                run.save_checkpoint("saved")
                run.stop()

        trainer.on("train_batch_end")(stop)
        trainer.fit(task, make_loader(3), resume=resume)
        return task

    whole = train()
    train(stop_at=at)
    task = train(resume="saved")
    for (name, one), other in zip(
        task.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_checkpoint_freezes_as_it_was(make_loader):
    plugin = Finetune(BODY, STAGES, train_norms=False)
    trainer = Trainer(epochs=3, plugins=[plugin])
    seen = []

    @trainer.on("epoch_end")
    def look(run):
        if run.epoch == 0:
            run.save_checkpoint("saved")
        if run.epoch == 2:
            run.load_checkpoint("saved")
            seen.append((trained(run.task), run.task.model.low[1].training))
            run.stop()

    trainer.fit(make_task(), make_loader(2))
    assert seen == [({"model.head.weight", "model.head.bias"}, False)]


def test_a_checkpoint_of_another_schedule_is_refused(make_loader):
    trainer = Trainer(plugins=[Finetune(BODY, STAGES)])
    trainer.on("epoch_end")(lambda run: run.save_checkpoint("saved"))
    trainer.fit(make_task(), make_loader(1))
    other = Trainer(epochs=2, plugins=[Finetune(BODY, {1: BODY})])
    with pytest.raises(CheckpointError, match="another body or schedule"):
        other.fit(make_task(), make_loader(1), resume="saved")


def test_what_was_changed_is_put_back_at_the_end_also_after_a_failure(make_loader):
    task = make_task()
    task.model.high.bias.requires_grad_(False)
    before = trained(task)
    plugin = Finetune("model.*", {0: "model.head", 5: "model.low"}, train_norms=False)
    trainer = Trainer(plugins=[plugin])
    during = watch(trainer)
    trainer.on("epoch_end")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(task, make_loader(2))
    assert during == [{"model.head.weight", "model.head.bias"}]
    assert trained(task) == before
    assert task.model.low[1].training


def test_what_the_task_froze_is_not_unfrozen(make_loader):
    task = make_task()
    task.model.high.bias.requires_grad_(False)
    trainer = Trainer(epochs=2, plugins=[Finetune(BODY, {1: BODY})])
    seen = watch(trainer)
    trainer.fit(task, make_loader(2))
    assert "model.high.bias" not in seen[1]
    assert "model.high.weight" in seen[1]


def test_a_tied_parameter_is_frozen_by_any_of_its_names(make_loader):
    task = make_task()
    task.model.tied = nn.Linear(6, 6)
    task.model.tied.weight = task.model.high.weight
    trainer = Trainer(plugins=[Finetune("model.tied")])
    seen = watch(trainer)
    trainer.fit(task, make_loader(2))
    assert "model.high.weight" not in seen[0]


def test_a_loop_of_ones_own_freezes_too(make_loader):
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = copy.deepcopy(net.high)
    plugin = Finetune("model.high", {1: "model.high"}, lr_ratio=2)
    with Trainer(plugins=[plugin]).open(net, optimizer) as run:
        for epoch in run.epochs(2):
            for x, y in run.batches(make_loader(2)):
                assert net.high.weight.requires_grad is (epoch == 1)
                run.step(functional.mse_loss(net(x), y))
    assert not same(before.parameters(), net.high.parameters())
    with (
        pytest.raises(UsageError, match=r"trainer\.open\(model, optimizer\)"),
        Trainer(plugins=[plugin]).open(net),
    ):
        pass


@pytest.mark.parametrize(
    ("body", "stages", "message"),
    [
        ("model.hihg", {}, r"body: 'model\.hihg' matches no .* names are model\.high"),
        ("qqq", {}, "body: 'qqq' matches .* names are model"),
        ("model.low", {1: "model.lwo"}, r"unfreeze_at: epoch 1: 'model\.lwo' .* model\.low"),
        ("model.low", {1: "model.head"}, r"epoch 1: 'model\.head' matches nothing that is frozen"),
        ("*", {}, r"body='\*' freezes every parameter"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(make_loader, body, stages, message):
    task = make_task()
    before = trained(task)
    with pytest.raises(UsageError, match=message):
        Trainer(plugins=[Finetune(body, stages, train_norms=False)]).fit(task, make_loader(1))
    assert trained(task) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": []}, "body="),
        ({"body": "a", "unfreeze_at": {-1: "a"}}, "epoch -1"),
        ({"body": "a", "lr_ratio": 0}, "lr_ratio=0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(PluginError, match=message):
        Finetune(**options)
