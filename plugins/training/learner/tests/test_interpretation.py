"""What a model gets wrong, and pictures."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner import Learner
from trainbus_learner.evaluation import each_loss


@pytest.fixture(scope="module")
def found(trained):
    return trained.interpret(worst=12)


def test_the_confusion_matrix_counts_every_item_once(trained, found):
    matrix = found.confusion_matrix()
    assert matrix.shape == (10, 10) and matrix.sum() == 797
    accuracy = float(matrix.diagonal().sum() / matrix.sum())
    assert accuracy == pytest.approx(trained.validate()["accuracy"], abs=1e-6)
    true, predicted, times = found.most_confused()[0]
    vocab = trained.data.vocab
    assert times == matrix[vocab.index(true), vocab.index(predicted)] and true != predicted


def test_the_report_has_precision_recall_and_f1_of_each_class(found):
    from sklearn.metrics import precision_recall_fscore_support

    expected = precision_recall_fscore_support(found.targets, found.predictions)
    for index, row in enumerate(found.per_class().values()):
        got = (row["precision"], row["recall"], row["f1"], row["count"])
        assert got == pytest.approx([column[index] for column in expected])
    assert found.report().splitlines()[8].startswith("seven")


def test_the_worst_are_those_of_the_greatest_loss(found):
    worst = found.worst(5)
    values = found.losses.topk(5)
    assert [each.loss for each in worst] == pytest.approx(values.values.tolist())
    assert [each.index for each in worst] == values.indices.tolist()
    assert worst[0].target != worst[0].predicted and worst[0].name == f"item {worst[0].index}"


def test_the_losses_of_items_have_the_mean_of_the_pass(trained, found):
    assert float(found.losses.mean()) == pytest.approx(trained.validate()["loss"], rel=1e-4)


def test_a_loss_of_ones_own_is_taken_apart(trained):
    output, target = torch.randn(6, 4), torch.randint(4, (6,))
    own = each_loss(lambda o, t: functional.cross_entropy(o, t) * 2, output, target)
    assert torch.allclose(own, 2 * functional.cross_entropy(output, target, reduction="none"))
    module = each_loss(torch.nn.CrossEntropyLoss(), output, target)
    assert torch.allclose(module * 2, own)


def test_every_picture_is_drawn(trained, found):
    assert len([a for a in trained.show_batch(4).axes if a.images]) == 4
    results = trained.show_results(9)
    titles = [axes.get_title() for axes in results.axes]
    assert len(titles) == 9 and all(len(title.split("\n")) == 2 for title in titles)
    assert "loss" in found.plot_worst(3).axes[0].get_title()
    assert len(found.plot_confusion_matrix(normalize=True).axes[0].texts) >= 10


def test_what_a_batch_shows_is_what_the_model_receives_and_nothing_moves_on(data, model):
    augment = pytest.importorskip("trainbus_augment")
    learner = Learner(data, model, plugins=["-progress", augment.Augment(mixup=0.4, classes=10)])
    state = torch.get_rng_state()
    title = learner.show_batch(2).axes[0].get_title()
    assert "%" in title  # a mixture of two digits
    assert torch.get_rng_state().equal(state)


def test_what_is_for_classes_is_refused_for_numbers(digits):
    images = digits[0][:40].float() / 255
    pairs = [(images, torch.zeros(40, 1))]
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    learner = Learner((pairs, pairs), flat, loss=functional.mse_loss, plugins=["-progress"])
    found = learner.interpret()
    assert len(found.worst(3)) == 3
    with pytest.raises(UsageError, match="of the kind 'number'"):
        found.confusion_matrix()


def test_without_validation_data_it_says_so(loaders, model):
    learner = Learner((loaders[0], None), model, loss=functional.cross_entropy)
    for verb in (learner.interpret, learner.show_results):
        with pytest.raises(UsageError, match="no validation data"):
            verb()


def test_of_several_labels_there_is_a_matrix_for_each():
    """Not there or there, predicted not there or there; counts of all items."""
    from trainbus_data import Categories, Data, Number

    x = torch.rand(40, 3)
    y = (x > 0.5).float()
    data = Data.from_tensors((x, y), (x, y), blocks=(Number(3), Categories(["a", "b", "c"])))
    model = torch.nn.Linear(3, 3)
    with torch.no_grad():
        model.weight.copy_(torch.diag(torch.tensor([100.0, 100.0, -100.0])))
        model.bias.copy_(torch.tensor([-50.0, -50.0, 50.0]))
    found = Learner(data, model, plugins=["-progress"]).interpret()
    matrices, there = found.confusion_matrix(), y.sum(0).long()
    assert matrices.shape == (3, 2, 2)
    for label in range(3):
        yes = int(there[label])
        right = [[40 - yes, 0], [0, yes]]
        assert matrices[label].tolist() == (right if label < 2 else [[0, 40 - yes], [yes, 0]])
    figure = found.plot_confusion_matrix()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["a", "b", "c"]
    with pytest.raises(UsageError, match="of the kind 'categories'"):
        found.most_confused()


def test_the_worst_are_drawn_with_their_probability(found):
    title = found.plot_worst(3).axes[0].get_title()
    assert f"{found.worst(1)[0].probability:.0%}, loss" in title


def test_the_training_part_is_looked_at_in_its_order(trained, loaders, model):
    found = trained.interpret("train", worst=5)
    assert len(found.losses) == 1000
    assert torch.equal(found.targets, trained.data.train_items.parts[1])
    assert trained.validate("train")["loss"] == pytest.approx(float(found.losses.mean()), rel=1e-4)
    plain = Learner(loaders, model, loss=functional.cross_entropy)
    with pytest.raises(UsageError, match="give the training loader"):
        plain.interpret("train")
