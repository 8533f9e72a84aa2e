"""The plugin `vision`: pictures of validation images."""

import pytest
import torch
from torch import nn

from trainbus import Task, Trainer
from trainbus_vision import ImageLearner, VisionPlugin, picture

QUIET = ["-progress"]


def pictures_of(run):
    return sorted((run.dir / "artifacts").glob("validation-*.png"))


def test_a_picture_is_logged_after_each_validation(make_data):
    learner = ImageLearner(make_data(), "small_cnn", plugins=["vision", *QUIET])
    assert len(pictures_of(learner.fit_one_cycle(2))) == 2


def test_or_in_every_second_epoch(make_data):
    plugin = VisionPlugin(count=4, every=2)
    learner = ImageLearner(make_data(), "small_cnn", plugins=[plugin, *QUIET])
    assert len(pictures_of(learner.fit_one_cycle(4))) == 2


@pytest.mark.parametrize("kind", ["category", "categories", "number", "mask", "points"])
def test_every_kind_of_target_is_drawn(make_data, kind):
    learner = ImageLearner(make_data(kind), "small_cnn", plugins=QUIET)
    batch = learner.data.one_batch("valid")
    learner.model.eval()
    with torch.no_grad():
        figure = picture(batch, learner.model(batch[0]), learner.data.recipe)
    figure.savefig(f"{kind}.png")
    assert len(figure.axes) >= len(batch[0])


def test_it_works_in_any_trainer_on_images_with_class_numbers():
    batch = (torch.rand(6, 3, 8, 8), torch.arange(6) % 2)
    task = Task.supervised(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)))
    run = Trainer(plugins=[VisionPlugin(), *QUIET]).fit(task, [batch], [batch])
    assert len(pictures_of(run)) == 1


def test_batches_that_are_no_images_are_left_alone():
    batch = (torch.rand(6, 4), torch.arange(6) % 2)
    run = Trainer(plugins=[VisionPlugin(), *QUIET]).fit(
        Task.supervised(nn.Linear(4, 2)), [batch], [batch]
    )
    assert not pictures_of(run)
