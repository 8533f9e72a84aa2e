"""Which targets count, in which type inputs come, and which data are measured."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_data import Category, Data, Number
from trainbus_learner import Learner, load

QUIET = ["-progress", "-journal", "-manifest"]


class Always(nn.Module):
    """Says class 0, whatever it sees."""

    def __init__(self, outputs=3):
        super().__init__()
        self.scores = nn.Parameter(torch.eye(outputs)[0] * 9)

    def forward(self, x):
        return self.scores.expand(len(x), -1)


LOSSES = {
    "cross_entropy": (functional.cross_entropy, -100),
    "module": (nn.CrossEntropyLoss(), -100),
    "another index": (nn.CrossEntropyLoss(ignore_index=255), 255),
    "partial": (functools.partial(functional.cross_entropy, ignore_index=-1), -1),
}


@pytest.mark.parametrize("case", LOSSES)
def test_what_the_loss_ignores_counts_in_no_metric(case):
    """Half of the items are right, half are ignored, in batches of unequal shares."""
    loss, index = LOSSES[case]
    targets = torch.tensor([0, 0, 0, index, index, index, index, 1])
    batches = [(torch.zeros(4, 2), targets[:4]), (torch.zeros(4, 2), targets[4:])]
    metrics = ["accuracy", "error_rate", "top_5", "f1"]
    learner = Learner((batches, batches), Always(), loss=loss, metrics=metrics, plugins=QUIET)
    measured = learner.validate()
    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["error_rate"] == pytest.approx(1 / 4)
    assert measured["top_5"] == 1
    assert measured["f1"] == pytest.approx((6 / 7 + 0) / 2)
    assert learner.interpret().confusion_matrix().sum() == 4


@pytest.mark.parametrize("given", [torch.float16, torch.float64, torch.bfloat16])
def test_inputs_come_in_the_type_of_the_model(given):
    """In training and prediction, whatever floats the loader gives; an export takes them, too."""
    x, y = torch.rand(8, 4), torch.arange(8) % 3
    learner = Learner(
        ([(x.to(given), y)], [(x.to(given), y)]),
        nn.Linear(4, 3),
        loss=functional.cross_entropy,
        plugins=QUIET,
    )
    assert learner.fit(1).status == "completed"
    assert learner.predict(x[0].to(given)).probabilities.dtype == torch.float32
    learner.export("model")
    again = load("model", model=nn.Linear(4, 3))
    assert again.predict(x[0].to(given)).label == learner.predict(x[0].to(given)).label


@pytest.mark.parametrize("precision", ["bf16-true", "fp16-true", "fp64"])
def test_bytes_come_in_the_precision_of_a_converted_model(precision, data, make_model):
    """A plugin that converts the model leaves bytes alone: the learner scales them."""
    pytest.importorskip("trainbus_amp")
    plugins = [*QUIET, "amp"]
    learner = Learner(data, make_model(), plugins=plugins, precision=precision, max_steps=2)
    assert learner.fit(1).status == "completed"
    assert learner.predict(data.valid_items[0][0]).label in data.vocab


def test_an_input_that_the_model_cannot_take_is_named(data, make_model):
    """Its shape, and what brings the data to one size."""
    learner = Learner(data, make_model(), plugins=QUIET)
    with pytest.raises(UsageError) as caught:
        learner.predict(torch.zeros(1, 8, 80, dtype=torch.uint8))
    message = str(caught.value)
    assert "Tensor of shape (1, 8, 80): the model cannot take an input of 1 x 8 x 80" in message
    assert "size=224" in message


def test_data_that_are_not_there_are_not_others(data, make_model):
    """`data.test` is None where there is no test part: nothing else is measured in its place."""
    learner = Learner(data, make_model(), plugins=QUIET)
    assert data.test is None
    for verb in (learner.validate, learner.interpret):
        with pytest.raises(UsageError, match="these data have no test part"):
            verb(data.test)
        with pytest.raises(UsageError, match="these data have no test part"):
            verb("test")
        with pytest.raises(UsageError, match="give 'valid', 'test', 'train', or a loader"):
            verb("tset")


def columns(count=60, test=False, vocab=("a", "b", "c")):
    x, y = torch.rand(count, 4), torch.arange(count) % 3
    parts = [(x, y)] * (3 if test else 2)
    return Data.from_tensors(*parts, blocks=(Number(4), Category(list(vocab))))


def test_the_test_part_is_measured_by_its_name():
    data = columns(test=True)
    learner = Learner(data, nn.Linear(4, 3), plugins=QUIET)
    assert learner.validate("test") == learner.validate(data.test)
    assert learner.interpret("test").worst(1)[0].name.startswith("item ")


def test_a_loss_and_metrics_that_are_set_are_used():
    """What the header says, too; another's are refused."""
    learner = Learner(columns(), nn.Linear(4, 3), plugins=QUIET)

    def always_42(output, target):
        return output.sum() * 0 + 42

    learner.loss, learner.metrics = always_42, ["error_rate"]
    run = learner.fit(1)
    assert set(learner.validate()) == {"loss", "error_rate"}
    assert learner.validate()["loss"] == 42
    assert "always_42 (given); metrics: error_rate" in run.header["loss"]
    with pytest.raises(UsageError, match=r"learner\.loss = 42"):
        learner.loss = 42


def test_other_data_with_equal_blocks_may_be_set():
    """The model goes on; labels in another order are other blocks."""
    learner = Learner(columns(), nn.Linear(4, 3), plugins=QUIET)
    other = columns(count=30)
    learner.data = other
    learner.fit(1)
    assert learner.data is other
    assert len(learner.interpret().targets) == 30
    with pytest.raises(UsageError, match="but the model was made for"):
        learner.data = columns(vocab=("c", "b", "a"))
    with pytest.raises(UsageError, match="a Data takes the place of a Data"):
        Learner(([], None), nn.Linear(4, 3), loss=functional.mse_loss).data = other


def test_results_are_shown_from_all_over_the_data():
    """Items that lie in the order of their classes: each is there."""
    x, y = torch.rand(90, 4), torch.arange(90) // 30
    data = Data.from_tensors((x, y), (x, y), blocks=(Number(4), Category(["a", "b", "c"])))
    learner = Learner(data, nn.Linear(4, 3), plugins=QUIET)
    titles = [axes.get_title() for axes in learner.show_results(9).axes]
    assert all(any(f"\n{word}\n" in f"\n{title}\n" for title in titles) for word in "abc")
    assert titles == [axes.get_title() for axes in learner.show_results(9).axes]
