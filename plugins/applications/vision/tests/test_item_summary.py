"""What a person is shown: summaries, decoded values and pictures."""

import matplotlib.pyplot as plt
import pytest
import torch

from trainbus_data import Categories, Category, DataBlock, Number
from trainbus_vision import Boxes, Image, Mask, Points, find_images, image_folder, image_tensors


def test_summary_follows_one_sample(animals):
    """What was read, each transform, the batch, and what the target asks of a model."""
    text = image_folder(animals, size=12, num_workers=0).summary()
    for part in (
        "items: train 16, valid 4",
        "Category(vocab=['cat', 'dog'])",
        "one sample: item 0 of train (cat/00.png)",
        "read: image 3 x 16 x 20 uint8, 0 to 255; category 0 int64",
        "Resize(size=[12, 12]): image 3 x 12 x 12 uint8",
        "a batch: image 8 x 3 x 12 x 12 uint8",
        "a model gives 2 outputs, one for each of 'cat', 'dog'",
        "loss: cross_entropy; metrics: accuracy",
    ):
        assert part in text


def test_summary_goes_up_to_the_error(animals):
    """A step that fails is the last line, with its error."""

    def broken(parts, kinds):
        raise RuntimeError("no")

    data = image_folder(animals, size=None, item_transforms=[broken], num_workers=0)
    assert "FAILED: broken: RuntimeError: no" in data.summary()
    text = DataBlock((Image(), Category()), items=find_images).summary(animals / "nothing")
    assert text.startswith("FAILED: there is no folder")


def test_block_summary(animals):
    """Of a source: how many items it has, and the first one."""
    text = DataBlock((Image(), Category()), items=find_images).summary(animals)
    assert text.startswith("source: 20 items, the first is ")
    assert "a batch: image" in text


@pytest.mark.parametrize(
    ("block", "value", "drawn"),
    [
        (Image(), torch.zeros(3, 4, 4, dtype=torch.uint8), lambda axes: len(axes.images)),
        (Image(1), torch.rand(1, 4, 4), lambda axes: len(axes.images)),
        (Mask(2, ignore=7), torch.tensor([[0, 1], [7, 7]]), lambda axes: len(axes.images)),
        (Points(2), torch.tensor([[1.0, 2.0], [float("nan")] * 2]), lambda a: len(a.collections)),
        (Boxes(), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), lambda axes: len(axes.patches)),
        (Category(["a", "b"]), torch.tensor(1), lambda axes: axes.get_title() == "b"),
        (Categories(["a", "b"]), torch.ones(2), lambda axes: axes.get_title() == "a, b"),
        (Number(), torch.tensor([1.25]), lambda axes: axes.get_title() == "1.25"),
    ],
)
def test_each_block_draws_what_it_is(block, value, drawn):
    """Encoded or decoded, onto matplotlib axes."""
    for given in (value, block.decode(value)):
        figure, axes = plt.subplots()
        block.draw(axes, given)
        block.draw(axes, given, color="red")
        assert drawn(axes) or "\n" in axes.get_title()
        figure.canvas.draw()
        plt.close(figure)


def test_repr_tells_what_there_is():
    """In a notebook's cell."""
    x, y = torch.zeros(10, 4, 4, dtype=torch.uint8), torch.arange(10) % 2
    assert repr(image_tensors((x, y), (x, y))).startswith("Data(train 10, valid 10, ")
