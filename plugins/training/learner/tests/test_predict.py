"""Predictions of one item, of streams, and with test-time augmentation."""

from __future__ import annotations

from itertools import count, islice

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner import Learner

QUIET = ["-progress"]


def shift(batch, kinds, generator):
    """A small augmentation: the images one pixel to the side, or not."""
    assert kinds == ("image",)
    step = int(torch.randint(-1, 2, (), generator=generator))
    return (torch.roll(batch[0], step, dims=-1),)


def test_a_prediction_says_what_and_how_surely(trained, digits):
    images, labels = digits
    prediction = trained.predict(images[0])
    assert prediction.label == trained.data.vocab[labels[0]]
    assert 0.1 < prediction.probability <= 1
    assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert prediction.top(2)[0] == (prediction.label, pytest.approx(prediction.probability))
    assert repr(prediction) == f"Prediction({prediction.label!r}, {prediction.probability:.1%})"


def test_predicting_changes_neither_modes_nor_random_numbers(trained, digits):
    trained.model.train()
    state, statistics = torch.get_rng_state(), trained.model[0][1].running_mean.clone()
    trained.predict(digits[0][0])
    assert torch.get_rng_state().equal(state) and trained.model.training
    assert trained.model[0][1].running_mean.equal(statistics)


def test_a_stream_is_read_as_it_is_asked_for(trained, digits):
    images, labels = digits
    read = []

    def endless():
        for number in count():
            read.append(number)
            yield images[number % len(images)]

    got = list(islice(trained.predictions(endless(), batch_size=16), 40))
    assert len(read) == 48
    right = [p.label == trained.data.vocab[labels[i]] for i, p in enumerate(got)]
    assert sum(right) >= 36


def test_a_stream_gives_what_single_predictions_give(trained, digits):
    many = list(trained.predictions(digits[0][:10]))
    for image, prediction in zip(digits[0][:10], many, strict=True):
        alone = trained.predict(image)
        assert alone.label == prediction.label
        assert torch.allclose(alone.probabilities, prediction.probabilities, atol=1e-6)


def test_something_unreadable_is_told_with_its_name(trained, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    with pytest.raises(UsageError, match=r"broken\.png"):
        trained.predict(broken)
    with pytest.raises(UsageError, match=r"nowhere\.png"):
        trained.predict("nowhere.png")


def test_a_stream_says_which_of_its_items_cannot_be_read(trained, digits):
    with pytest.raises(UsageError, match=r"item 1 of the stream, nowhere\.png"):
        list(trained.predictions([digits[0][0], "nowhere.png"]))


def test_a_text_is_no_stream(trained):
    with pytest.raises(UsageError, match=r"predict\(item\)"):
        trained.predictions("seven.png")


def test_with_plain_loaders_an_item_is_a_tensor(loaders, model, digits):
    learner = Learner(loaders, model, loss=functional.cross_entropy, plugins=QUIET)
    assert learner.predict(digits[0][0]).label in range(10)
    with pytest.raises(UsageError, match="without a recipe an item is a tensor"):
        learner.predict("seven.png")


def test_numbers_and_several_labels_are_read_as_such(digits):
    images = digits[0][:40].float() / 255
    numbers = [(images, torch.zeros(40, 1))]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    learner = Learner((numbers, numbers), flat, loss=functional.mse_loss, metrics=["mae", "rmse"])
    prediction = learner.predict(images[0])
    assert prediction.probability is None and len(prediction.label) == 1
    measured = learner.validate()
    assert measured["rmse"] == pytest.approx(measured["loss"] ** 0.5, rel=1e-4)
    several = [(images, torch.ones(40, 3))]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    bce = functional.binary_cross_entropy_with_logits
    learner = Learner((several, several), flat, loss=bce)
    assert set(learner.predict(images[0]).label) <= {0, 1, 2}
    assert set(learner.validate()) == {"loss", "accuracy"}


def test_test_time_augmentation_measures_and_predicts(trained, digits):
    plain = trained.validate()
    averaged = trained.tta(augmenter=shift)
    assert set(averaged) == set(plain) and averaged["accuracy"] > 0.5
    alone = trained.tta(augmenter=lambda batch, kinds, generator: batch)
    assert alone == pytest.approx(plain, rel=1e-4)
    assert trained.tta(augmenter=shift) == averaged  # the generator has a seed
    predictions = trained.tta(digits[0][:3], augmenter=shift)
    assert [p.label in trained.data.vocab for p in predictions] == [True] * 3


def test_the_augmentation_of_the_plugin_is_the_usual_one(data, model):
    augment = pytest.importorskip("trainbus_augment")
    plugin = augment.Augment(rotate=5.0, mixup=0.4, classes=10)
    learner = Learner(data, model, plugins=[*QUIET, plugin])
    learner.fit(1)
    assert set(learner.tta(n=2)) == {"loss", "accuracy"}


def test_without_anything_to_augment_with_it_says_what_to_give(trained):
    with pytest.raises(UsageError, match="give augmenter="):
        trained.tta()
    with pytest.raises(UsageError, match="give a whole number of at least 1"):
        trained.tta(n=0, augmenter=shift)
