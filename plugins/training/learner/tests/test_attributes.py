"""What may be set of a learner, what others call its verbs, and what it is printed as."""

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_data import Category, Data, DataError, Number
from trainbus_learner import Learner, load

OFF = ["-progress", "-journal", "-manifest"]


@pytest.fixture
def learner(tmp_path):
    values, labels = torch.randn(80, 4), torch.arange(80) % 3
    blocks = (Number(4), Category(["a", "b", "c"]))
    data = Data.from_tensors((values, labels), blocks=blocks, name="flowers")
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    return Learner(data, model, plugins=OFF, run_dir=tmp_path)


@pytest.mark.parametrize("name", ["seed", "optimizer", "model", "groups", "precision", "run_dir"])
def test_what_would_change_nothing_cannot_be_set(learner, name):
    with pytest.raises(UsageError, match=rf"learner\.{name} = \.\.\. would change nothing: make"):
        setattr(learner, name, None)


def test_a_rate_that_is_set_is_used_and_said(learner):
    learner.lr = 0.02
    assert learner.fit(1).optimizer.param_groups[0]["lr"] == 0.02
    assert "learning rate  0.02 (given)" in learner.summary()
    with pytest.raises(UsageError, match="give a number above 0"):
        learner.lr = -1


@pytest.mark.parametrize(
    ("word", "here"),
    [("lr_find", "find_lr"), ("dls", "data"), ("recorder", "run"), ("get_preds", "predictions"),
     ("unfreez", "did you mean 'unfreeze'"), ("to_fp16", "precision='fp16'")],
)  # fmt: skip
def test_words_of_other_libraries_are_answered_with_the_right_one(learner, word, here):
    with pytest.raises(AttributeError, match=here):
        getattr(learner, word)
    assert not hasattr(learner, word)


@pytest.mark.parametrize(
    ("call", "here"),
    [(lambda learner: learner.fit_one_cycle(1, lr_max=1e-3), "here it is lr$"),
     (lambda learner: learner.fine_tune(1, freeze_epochs=2), "here it is frozen_epochs"),
     (lambda learner: learner.fit(n_epoch=1), "here it is epochs"),
     (lambda learner: learner.find_lr(num_it=10), "here it is steps"),
     (lambda learner: Learner(learner.data, learner.model, cbs=[]), "here it is plugins"),
     (lambda learner: Learner(learner.data, learner.model, bs=8), "batch_size= goes to what makes"),
     (lambda learner: learner.fit(None), "give a whole number of at least 1"),
     (lambda learner: learner.tta(None), "give items to predict"),
     (lambda learner: learner.predictions(None), "give a list")],
)  # fmt: skip
def test_arguments_of_other_libraries_are_answered_too(learner, call, here):
    with pytest.raises(UsageError, match=here):
        call(learner)


@pytest.mark.parametrize(
    ("word", "here"),
    [("bs", "batch_size"), ("valid_pct", r"split: splits\.random"),
     ("item_tfms", "item_transforms"), ("batch_sise", "did you mean 'batch_size'")],
)  # fmt: skip
def test_arguments_of_data_are(word, here):
    x, y, blocks = torch.randn(20, 4), torch.arange(20) % 2, (Number(4), Category())
    with pytest.raises(DataError, match=here):
        Data.from_tensors((x, y), blocks=blocks, **{word: 8})
    with pytest.raises(DataError, match=here):
        Data.from_lists(list(x), y.tolist(), blocks, **{word: 8})


def test_a_learner_and_an_export_say_what_they_are(learner, tmp_path):
    assert repr(learner) == (
        "Learner(Sequential-flowers, 83 parameters, Category of 3, train 64, valid 16)"
    )
    learner.export(tmp_path / "export", format="torch.export")
    assert repr(load(tmp_path / "export")) == (
        "Predictor(Number(outputs=4) -> Category(vocab=['a', 'b', 'c']), torch.export)"
    )


def test_long_lists_are_printed_by_whole_words():
    shown = repr(Category([f"class number {n}" for n in range(40)]))
    assert shown.endswith("'class number 1', ... 40 in all])")


def test_runs_are_called_after_network_and_data_and_show_no_part_of_the_learner(learner):
    run = learner.fit(1)
    assert run.name == "Sequential-flowers"
    assert "learner_plan" not in run.header["plugins"]


def test_equal_rates_of_several_groups_are_one_value(learner):
    model = learner.model
    halves = Learner(
        learner.data, model, plugins=OFF, groups=lambda m: [[m[0], m[1]], [m[2]]],
        run_dir=learner.options["run_dir"],
    )  # fmt: skip
    run = halves.fit_one_cycle(1)
    assert [name for name in run.metrics if "lr" in name] == ["train/lr", "train/lr_epoch"]
    run = halves.fit_one_cycle(1, lr=(1e-4, 1e-3))
    assert {name for name in run.metrics if name.startswith("lr/")} >= {"lr/body", "lr/head"}


def test_a_layer_that_normalizes_its_weight_is_no_norm():
    """It is decayed and frozen as other layers are, whatever it is called."""

    class NormedLinear(nn.Linear):
        def forward(self, x):
            return nn.functional.linear(x, self.weight / self.weight.norm())

    model = nn.Sequential(NormedLinear(4, 8), nn.Linear(8, 3))
    values, labels = torch.randn(80, 4), torch.arange(80) % 3
    data = Data.from_tensors((values, labels), blocks=(Number(4), Category()))
    optimizer = Learner(data, model, plugins=OFF).task.configure_optimizer()
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {id(model[0].weight), id(model[1].weight)}
