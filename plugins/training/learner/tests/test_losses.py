"""Losses by name, weights of classes, and what is said of batches and steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_data import Categories, Category, Data, Number, splits
from trainbus_learner import Learner
from trainbus_learner.losses import ClassLoss

QUIET = ["-progress", "-journal", "-manifest"]


def unbalanced(count=64, **options):
    x, y = torch.rand(count, 4), (torch.arange(count) % 8 == 0).long()
    x[y == 1, 0] += 1
    blocks = (Number(4), Category(["common", "rare"]))
    return Data.from_tensors((x, y), (x, y), blocks=blocks, **options)


def test_without_weights_it_is_cross_entropy():
    """Of indices with ignored ones, of mixtures, of pixels; gamma 0."""
    loss = ClassLoss()
    output, target = torch.randn(6, 4), torch.tensor([0, 3, -100, 1, 2, 2])
    torch.testing.assert_close(loss(output, target), functional.cross_entropy(output, target))
    mixture = torch.rand(6, 4).softmax(1)
    torch.testing.assert_close(loss(output, mixture), functional.cross_entropy(output, mixture))
    pixels, masks = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))
    torch.testing.assert_close(loss(pixels, masks), functional.cross_entropy(pixels, masks))
    assert loss(output, torch.full((6,), -100)) == 0


def test_with_weights_it_is_torchs_weighted_one():
    weight = torch.tensor([1.0, 5.0, 0.5, 2.0])
    output, target = torch.randn(6, 4), torch.tensor([0, 3, -100, 1, 2, 2])
    expected = functional.cross_entropy(output, target, weight)
    torch.testing.assert_close(ClassLoss(weight=weight)(output, target), expected)


def test_the_focal_loss_is_that_of_its_paper():
    """-(1 - p)^2 log p of what is right; torchvision has it for several labels."""
    from torchvision.ops import sigmoid_focal_loss

    output, target = torch.randn(6, 4), torch.tensor([0, 3, 1, 1, 2, 2])
    p = output.softmax(1)[torch.arange(6), target]
    expected = (-((1 - p) ** 2) * p.log()).mean()
    torch.testing.assert_close(ClassLoss(2.0)(output, target), expected)
    labels = (torch.rand(6, 4) > 0.5).float()
    expected = sigmoid_focal_loss(output, labels, alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(ClassLoss(2.0, several=True)(output, labels), expected)


def test_losses_by_name_train_and_are_taken_apart():
    for loss in ("focal", "cross_entropy"):
        learner = Learner(unbalanced(), nn.Linear(4, 2), loss=loss, plugins=QUIET)
        before = learner.validate()["loss"]
        learner.fit(5, lr=0.1)
        assert learner.validate()["loss"] < before
        found = learner.interpret()
        assert float(found.losses.mean()) == pytest.approx(learner.validate()["loss"], rel=1e-4)
    learner = Learner(unbalanced(), nn.Linear(4, 2), plugins=QUIET)
    learner.loss = "focal"
    assert "focal loss" in learner.choices["loss"]


def test_balanced_weights_follow_from_the_labels():
    """N / (C n): 64 / (2 x 56) and 64 / (2 x 8); it is said."""
    learner = Learner(unbalanced(), nn.Linear(4, 2), class_weights="balanced", plugins=QUIET)
    assert learner.loss.weight.tolist() == pytest.approx([64 / 112, 4.0])
    assert "balanced, common 0.571, rare 4" in learner.choices["loss"]
    named = Learner(unbalanced(), nn.Linear(4, 2), class_weights={"rare": 3}, plugins=QUIET)
    assert named.loss.weight.tolist() == [1, 3]
    assert named.fit(1).status == "completed"


def test_of_several_labels_the_positive_ones_are_weighted():
    x, y = torch.rand(40, 4), torch.zeros(40, 2)
    y[:10, 0], y[:30, 1] = 1, 1
    data = Data.from_tensors((x, y), (x, y), blocks=(Number(4), Categories(["a", "b"])))
    learner = Learner(data, nn.Linear(4, 2), class_weights="balanced", plugins=QUIET)
    assert learner.loss.weight.tolist() == pytest.approx([3.0, 1 / 3])
    output = torch.randn(40, 2)
    expected = functional.binary_cross_entropy_with_logits(
        output, y, pos_weight=torch.tensor([3.0, 1 / 3])
    )
    torch.testing.assert_close(learner.loss(output, y), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "focl"}, "did you mean 'focal'"),
        ({"class_weights": {"rar": 1}}, "did you mean 'rare'"),
        ({"class_weights": "even"}, "give 'balanced'"),
        ({"class_weights": "balanced", "loss": functional.cross_entropy}, "goes with a loss by"),
        ({"loss": 3}, "give a name, or a function"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Learner(unbalanced(), nn.Linear(4, 2), plugins=QUIET, **options)


def test_there_are_no_classes_in_numbers_and_no_labels_in_loaders():
    x = torch.rand(16, 1)
    data = Data.from_tensors((x, x), (x, x), blocks=(Number(), Number()))
    with pytest.raises(UsageError, match="the target is Number"):
        Learner(data, nn.Linear(1, 1), loss="focal")
    loaders = ([(x, torch.zeros(16).long())], None)
    assert Learner(loaders, nn.Linear(1, 2), loss="focal", plugins=QUIET).fit(1)
    with pytest.raises(UsageError, match="the labels of a Data"):
        Learner(loaders, nn.Linear(1, 2), loss="focal", class_weights="balanced")


# --- batches, steps, and no validation -----------------------------------------------------------


def test_a_batch_size_that_follows_from_the_data_is_in_the_header():
    learner = Learner(unbalanced(144), nn.Linear(4, 2), plugins=QUIET)
    said = "8 (for 144 items: 18 steps an epoch)"
    assert learner.choices["batch size"] == said
    assert learner.fit(1).header["batch size"] == said
    named = Learner(unbalanced(144, batch_size=16), nn.Linear(4, 2), plugins=QUIET)
    assert "batch size" not in named.fit(1).header


class Wide(nn.Module):
    """A million parameters of which few are used."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1_500_000))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(x) + self.table[0]


def test_few_steps_for_many_parameters_are_said(caplog):
    Learner(unbalanced(72), Wide(), plugins=QUIET).fit(1)
    assert "9 steps are few for 1.5 million parameters from scratch" in caplog.text
    caplog.clear()
    Learner(unbalanced(72), Wide(), pretrained=True, plugins=QUIET).fit(1)
    Learner(unbalanced(72), nn.Linear(4, 2), plugins=QUIET).fit(1)
    assert "steps are few" not in caplog.text


def test_a_learner_trains_on_everything():
    """Each verb that trains; what measures says that there is nothing to measure."""
    data = unbalanced()
    learner = Learner(data, nn.Linear(4, 2), plugins=QUIET)
    learner.fit(1)
    learner.data = data.all_for_training()
    for fit in (learner.fit, learner.fit_one_cycle, learner.fine_tune):
        run = fit(1)
        assert (run.status, run.global_step) == ("completed", 16)
        assert "valid/loss" not in run.metrics
    with pytest.raises(UsageError, match="no validation data"):
        learner.validate()
    assert learner.export("model").is_dir()
    alone = Data.from_tensors(
        (torch.rand(40, 4), torch.arange(40) % 2),
        blocks=(Number(4), Category(["a", "b"])),
        split=splits.everything(),
    )
    assert Learner(alone, nn.Linear(4, 2), plugins=QUIET).fit(1).status == "completed"
    assert Learner(alone, nn.Linear(4, 2), plugins=QUIET).find_lr(steps=10)


def test_other_data_have_equal_blocks():
    learner = Learner(unbalanced(), nn.Linear(4, 2), plugins=QUIET)
    x, y = torch.rand(16, 4), torch.arange(16) % 2
    with pytest.raises(UsageError, match="an item is number, category, number"):
        learner.data = Data.from_tensors(
            (x, y, x), (x, y, x), blocks=(Number(4), Category(["common", "rare"]), Number(4))
        )
    with pytest.raises(UsageError, match="vocab"):
        learner.data = Data.from_tensors(
            (x, y), (x, y), blocks=(Number(4), Category(["common", "other"]))
        )
