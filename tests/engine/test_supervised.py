"""Tasks of any module: batches of one input, of several, and mappings."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, Trainer, UsageError

X, Y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])


class Two(nn.Module):
    """Takes two inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, a, b):
        return self.layer(a + b)


class Named(nn.Module):
    """Takes arguments by name, as models of Hugging Face do, and gives its loss with labels."""

    def __init__(self, whole=True):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.whole = whole

    def forward(self, input_ids=None, mask=None, labels=None):
        logits = self.layer(input_ids if mask is None else input_ids * mask)
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return SimpleNamespace(loss=loss, logits=logits) if self.whole else {"logits": logits}


def fit(model, batch, **options):
    run = Trainer().fit(Task.supervised(model, **options), [batch], [batch])
    return run.metrics["valid/loss"]


def accuracy(output, target):
    return (output.argmax(1) == target).float().mean()


@pytest.mark.parametrize("batch", [((X, X), Y), ([X, X], Y), [[X, X], Y], (X, X, Y)])
def test_several_inputs(batch):
    assert fit(Two(), batch, metrics={"accuracy": accuracy}) > 0


def test_an_input_of_arguments_by_name():
    assert fit(Two(), ({"a": X, "b": X}, Y)) > 0


def test_a_list_is_one_input_of_a_model_that_takes_one():
    class OfList(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, images, size=None):
            return self.layer(torch.stack(images))

    assert fit(OfList(), (list(X), Y)) > 0


@pytest.mark.parametrize("key", ["labels", "label", "target", "y"])
def test_a_mapping_with_a_loss(key):
    batch = {"input_ids": X, key: Y}
    assert fit(Named(), batch, loss=functional.cross_entropy, metrics={"acc": accuracy}) > 0


@pytest.mark.parametrize("whole", [True, False])
def test_the_logits_are_what_a_loss_is_computed_of(whole):
    assert fit(Named(whole), {"input_ids": X, "labels": Y}) > 0


def test_the_loss_of_the_model():
    torch.manual_seed(0)
    own = fit(Named(), {"input_ids": X, "labels": Y}, loss=None, metrics={"acc": accuracy})
    torch.manual_seed(0)
    assert own == fit(Named(), {"input_ids": X, "labels": Y})


def test_what_a_model_does_not_take_is_left_out_and_said_once(caplog):
    batch = {"input_ids": X, "idx": Y, "labels": Y}
    Trainer(epochs=2).fit(Task.supervised(Named()), [batch] * 2)
    assert caplog.text.count("Named takes no idx: left out of its batches") == 1


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (Two(), (X, X)),
        (Two(), (X, X, Y)),
        (Two(), ((X, X), Y)),
        (Two(), ({"a": X, "b": X},)),
        (nn.Linear(3, 2), X),
        (nn.Linear(3, 2), (X,)),
        (nn.Linear(3, 2), (X, Y)),
    ],
)
def test_predictions_leave_a_target_out(model, batch):
    (found,) = Trainer().predict(model, [batch])
    assert found.shape == (4, 2)


def test_predictions_of_mappings():
    batch = {"input_ids": X, "labels": Y}
    (found,) = Trainer().predict(Named(), [batch])
    assert found.loss is None
    assert found.logits.shape == (4, 2)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"input_ids": X}, "has no target: it is called one of labels, label"),
        (X, r"a batch is a Tensor; Task.supervised takes \(input, target\)"),
        ((X,), "a batch is a tuple of 1"),
    ],
)
def test_a_batch_that_is_no_pair_is_refused(batch, message):
    with pytest.raises(UsageError, match=message):
        Trainer().fit(Task.supervised(Named()), [batch])


def test_a_model_without_a_loss_of_its_own_is_told():
    with pytest.raises(UsageError, match="Named gives a dict without one; give loss="):
        fit(Named(whole=False), {"input_ids": X, "labels": Y}, loss=None)
