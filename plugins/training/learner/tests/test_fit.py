"""Training: what is chosen, what the user says, and the learning rates of groups."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import PluginError, UsageError, hookimpl
from trainbus.builtin.schedule import Schedule
from trainbus.testing import MemoryLog
from trainbus_learner import Learner

QUIET = ["-progress"]


def body_and_head(model):
    return [[model[0]], [model[1]]]


def plain(loaders, model, **options):
    options = {"loss": functional.cross_entropy, "plugins": QUIET, **options}
    return Learner(loaders, model, **options)


class Rates:
    """Notes the learning rate of each group of the optimizer, by name, at each step."""

    def __init__(self):
        self.seen, self.momentum = [], []

    @hookimpl(tryfirst=True)
    def on_after_optimizer_step(self, run):
        groups = run.optimizer.param_groups
        self.seen.append({group["name"]: group["lr"] for group in groups})
        self.momentum.append(groups[0]["betas"][0])


def test_data_choose_loss_metrics_and_outputs(trained):
    assert trained.loss is functional.cross_entropy
    measured = trained.validate()
    assert list(measured) == ["loss", "accuracy"]
    assert measured["accuracy"] > 0.9
    assert all(type(value) is float for value in measured.values())


def test_a_pair_of_loaders_with_any_model_and_loss_trains(loaders, model):
    learner = plain(loaders, model, metrics=["error_rate", "f1"])
    run = learner.fit(2, 0.01)
    assert (run.status, run.epoch, run.global_step) == ("completed", 2, 20)
    assert set(learner.validate()) == {"loss", "error_rate", "f1"}
    assert run.metrics["valid/error_rate"] < 0.5


def test_the_header_and_the_summary_say_what_was_chosen_and_why(loaders, model):
    learner = plain(loaders, model, groups=body_and_head)
    run = learner.fit_one_cycle(1, (1e-3, 1e-2))
    assert run.header["loss"] == "cross_entropy (given); metrics: accuracy"
    assert run.header["schedule"] == "AdamW, one cycle, at most 0.001, 0.01"
    assert run.task.hparams["metrics"] == "accuracy (usual for a category target)"
    assert "not" not in run.task.hparams["optimizer"] and "AdamW" in run.task.hparams["optimizer"]
    assert len(run.header) <= 7  # the core's five, and these two
    summary = learner.summary()
    for text in ("body: 96 parameters", "head: 1,290", "batch size", "100", "usual for AdamW"):
        assert text in summary


def test_the_run_goes_where_runs_of_a_trainer_go_and_its_manifest_knows_the_choices(loaders, model):
    run = plain(loaders, model, run_dir="elsewhere").fit(1)
    assert run.dir.parent.name == "elsewhere"
    manifest = json.loads((run.dir / "run.json").read_text())
    assert "schedule" in json.dumps(manifest)
    assert not (run.dir / "checkpoints").exists()


def test_progress_is_shown_if_installed_unless_it_is_switched_off(loaders, model, capsys):
    learner = plain(loaders, model, plugins=[])
    assert "progress" in learner.fit(1).bus.plugins
    assert "epoch" in capsys.readouterr().out
    learner.plugins.append("-progress")
    learner.fit(1)
    assert capsys.readouterr().out == ""


def test_plugins_of_the_project_work_in_it(loaders, model, own_directory):
    (own_directory / "hooks.py").write_text(
        "from trainbus import hookimpl\n"
        "@hookimpl\ndef on_fit_start(run):\n    run.header['team'] = 'vision'\n"
    )
    (own_directory / "trainbus.toml").write_text('plugins = ["./hooks.py"]\n')
    assert plain(loaders, model).fit(1).header["team"] == "vision"


def test_loggers_get_the_metrics_and_the_choices(loaders, model):
    log = MemoryLog()
    plain(loaders, model, plugins=[*QUIET, log]).fit(2, 0.01)
    assert len(log.values("valid/accuracy")) == 2
    assert log.params["epochs"] == 2 and "cross_entropy" in log.params["loss"]


def test_one_cycle_takes_each_group_up_and_down_with_momentum_the_other_way(loaders, model):
    rates = Rates()
    learner = plain(loaders, model, groups=body_and_head, plugins=[*QUIET, rates])
    learner.fit_one_cycle(2, (1e-3, 1e-2))
    head = [step["head"] for step in rates.seen]
    body = [step["body"] for step in rates.seen]
    assert head[0] == pytest.approx(1e-2 / 25) and max(head) == pytest.approx(1e-2)
    assert head[-1] == pytest.approx(1e-7)
    assert body == pytest.approx([rate / 10 for rate in head])
    assert rates.momentum[0] == pytest.approx(0.95) and min(rates.momentum) == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.1, [0.1, 0.1, 0.1]),
        ((1e-5, 1e-3), [1e-5, 1e-4, 1e-3]),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    ],
)
def test_learning_rates_of_groups(loaders, given, expected):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10))
    learner = plain(loaders, model, groups=lambda m: [[m[1]], [m[2]], [m[3]]])
    assert learner.groups.rates(given) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [[1e-3, 1e-2, 1e-1], -1.0, (1e-3,), "fast", [], None])
def test_learning_rates_that_fit_no_groups_are_refused(loaders, model, bad):
    learner = plain(loaders, model, groups=body_and_head)
    with pytest.raises(UsageError) as error:
        learner.groups.rates(bad)
    if isinstance(bad, list) and bad:
        assert "3 learning rates for 2 groups" in str(error.value)
        assert "body, head" in str(error.value)


def test_biases_and_norms_of_any_kind_get_no_weight_decay(loaders):
    class Odd(nn.Module):
        """A norm of somebody else's, whose scale has two dimensions."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 1))

        def forward(self, x):
            return x * self.weight.view(1, -1)

    class OddNorm(Odd):
        pass

    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.GroupNorm(2, 8), nn.RMSNorm(8),
        nn.BatchNorm1d(8), OddNorm(), nn.Linear(8, 10),
    )  # fmt: skip
    learner = plain(loaders, model)
    optimizer = learner.task.configure_optimizer()
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(model[1].weight), id(model[7].weight)}
    assert optimizer.defaults["betas"] == (0.9, 0.99) and optimizer.defaults["eps"] == 1e-5
    assert optimizer.defaults["fused"]
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_the_users_optimizer_gets_the_groups(loaders, model):
    sgd = partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.1)
    learner = plain(loaders, model, optimizer=sgd, groups=body_and_head)
    run = learner.fit(1)
    assert isinstance(run.optimizer, torch.optim.SGD)
    assert {group["lr"] for group in run.optimizer.param_groups} == {0.05}
    assert "from the optimizer given" in learner.summary()


def test_a_schedule_of_the_user_works_in_fit_and_is_refused_in_a_cycle(loaders, model):
    schedule = Schedule(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5), per="epoch")
    learner = plain(loaders, model, plugins=[*QUIET, schedule])
    run = learner.fit(2, 0.1)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    with pytest.raises(UsageError, match="brings its own schedule"):
        learner.fit_one_cycle(1)


def test_a_batch_transform_of_the_data_is_applied_in_training_and_validation(digits, image_block):
    from trainbus_data import Category, Data

    seen = []

    def shrink(batch, kinds):
        seen.append(kinds)
        return (batch[0].float().div(255)[..., :4, :4], *batch[1:])

    images, labels = digits
    data = Data.from_tensors(
        (images[:200], labels[:200]), (images[200:300], labels[200:300]),
        blocks=(image_block, Category()), batch_transforms=[shrink],
    )  # fmt: skip
    learner = Learner(data, nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), plugins=QUIET)
    learner.fit(1)
    learner.validate()
    assert learner.predict(images[0]).label in range(10)
    assert ("image",) in seen and ("image", "category") in seen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": None}, "give loss="),
        ({"metrics": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"optimiser": 1}, "did you mean 'optimizer'"),
        ({"epochs": 3}, "give the epochs to fit"),
        ({"optimizer": 0.1}, "makes an optimizer"),
        ({"plugins": "progress"}, r"\['progress'\]"),
        ({"lr": [1.0, 2.0]}, "2 learning rates for 1 groups"),
        ({"groups": lambda m: [[m[0]]]}, "2 parameters are in no group: 1.1.weight"),
        ({"groups": lambda m: [[m], [m[1]]]}, "in group 0 and in group 1"),
    ],
)
def test_arguments_that_cannot_work_are_refused_with_what_would(loaders, model, change, message):
    with pytest.raises(UsageError, match=message):
        plain(loaders, model, **change)


def test_data_that_are_none_are_refused(model):
    with pytest.raises(UsageError, match="give a Data of trainbus_data, or a pair"):
        Learner(torch.zeros(3), model, loss=functional.cross_entropy)


def test_too_few_outputs_are_told_at_the_first_batch(loaders):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UsageError, match="3 outputs, but a target is 9: at least 10 outputs"):
        plain(loaders, model).fit(1)


def test_three_outputs_for_two_classes_are_told(digits, image_block):
    from trainbus_data import Category, Data

    images, labels = digits
    data = Data.from_tensors(
        (images[:200], labels[:200] % 2), (images[200:300], labels[200:300] % 2),
        blocks=(image_block, Category(["even", "odd"])),
    )  # fmt: skip
    learner = Learner(data, nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), plugins=QUIET)
    with pytest.raises(UsageError, match=r"3 outputs .*needs 2 outputs.*'even', 'odd'"):
        learner.fit(1)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_shapes_that_a_loss_cannot_compare_are_told(loaders, model):
    with pytest.raises(UsageError, match=r"mse_loss cannot compare .*\(100, 10\).*\(100,\)"):
        plain(loaders, model, loss=functional.mse_loss).fit(1)


def test_a_model_that_cannot_take_the_input_says_what_it_was_given(loaders):
    with pytest.raises(RuntimeError) as error:
        plain(loaders, nn.Linear(5, 10)).fit(1)
    assert "Linear was given an input of shape (100, 1, 8, 8)" in error.value.__notes__[0]


def test_validate_without_validation_data_says_so(loaders, model):
    learner = plain((loaders[0], None), model)
    learner.fit(1)
    with pytest.raises(UsageError, match="no validation data"):
        learner.validate()
    assert learner.validate(loaders[1])["accuracy"] > 0


def test_a_plugin_that_is_not_installed_is_told_before_anything_runs(loaders, model):
    with pytest.raises(PluginError, match="wandbx"):
        plain(loaders, model, plugins=["wandbx"]).fit(1)


def test_several_inputs_go_to_the_model_side_by_side(digits):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(128, 10)

        def forward(self, a, b):
            return self.head(torch.cat([a.flatten(1), b.flatten(1)], dim=1))

    images, labels = digits
    batches = [(images[:64], images[64:128], labels[:64])] * 2
    learner = plain((batches, batches), Two())
    learner.fit(1)
    assert learner.predict((images[0], images[1])).label in range(10)
    assert learner.interpret().losses.mean() > 0


def test_plugins_that_change_how_training_computes_work_in_every_verb(data, model):
    pytest.importorskip("trainbus_amp")
    augment = pytest.importorskip("trainbus_augment")
    types = set()

    class Watch:
        @hookimpl
        def on_after_loss(self, run):
            types.add(run.batch[0].dtype)

    plugins = [*QUIET, "amp", augment.Augment(flip=False), Watch()]
    learner = Learner(data, model, plugins=plugins, precision="bf16", clip_norm=1.0, seed=0)
    assert learner.find_lr(steps=20).suggestion > 0
    run = learner.fit_one_cycle(4, 0.02)
    assert "bfloat16" in run.header["precision"] and "Rotate" in run.header["augment"]
    assert run.metrics["valid/accuracy"] > 0.8
    assert learner.validate()["accuracy"] == pytest.approx(run.metrics["valid/accuracy"])
    assert types == {torch.float32}  # augmented images, and not bytes
