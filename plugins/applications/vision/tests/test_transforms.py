"""Item transforms: size and content of images; masks, points and boxes follow."""

import json
import random

import pytest
import torch

from trainbus_data import DataError, ItemTransform, Recipe
from trainbus_vision import CenterCrop, RandomCrop, RandomFlip, RandomResizedCrop, Resize

KINDS = ("image", "mask", "points", "boxes")


def item(height=60, width=90):
    """A white pixel block on black, its mask, its corners as points and as a box."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.int64)
    image[:, 20:40, 30:60] = 255
    mask[20:40, 30:60] = 1
    points = torch.tensor([[30.0, 20.0], [60.0, 40.0]])
    return image, mask, points, torch.tensor([[30.0, 20.0, 60.0, 40.0]])


@pytest.mark.parametrize(
    "transform",
    [
        Resize(48, position="center"), Resize(48, "pad"), Resize((30, 90), "squish"),
        Resize(120, "pad"), CenterCrop(50), CenterCrop((70, 100)), RandomFlip(p=1.0),
    ],
)  # fmt: skip
def test_all_parts_follow_the_image(transform):
    """The block is where its mask, its points and its box say, within a pixel."""
    image, mask, points, box = transform(item(), KINDS)
    assert image.dtype == torch.uint8
    assert mask.dtype == torch.int64
    assert image.shape[1:] == mask.shape
    rows, columns = (image[0] > 127).nonzero().unbind(1)
    seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert (box[0] - seen).abs().max() <= 1.0
    in_mask = (mask == 1).nonzero()
    top_left, bottom_right = in_mask.min(0).values, in_mask.max(0).values + 1
    frame = torch.cat([top_left.flip(0), bottom_right.flip(0)]).float()
    assert (frame - seen).abs().max() <= 1.0
    ordered = torch.cat([points.min(0).values, points.max(0).values])
    assert (ordered - box[0]).abs().max() <= 1e-4


def test_methods_keep_what_they_say():
    """Crop fills the size, pad keeps the whole image, squish changes its proportions."""
    image = torch.full((3, 40, 80), 200, dtype=torch.uint8)
    for method, dark in (("crop", 0.0), ("pad", 0.5), ("squish", 0.0)):
        (out,) = Resize(40, method)((image,), ("image",))
        assert out.shape == (3, 40, 40)
        assert (out == 0).float().mean() == pytest.approx(dark)


def test_points_and_boxes_outside_are_missing():
    """A point that is cut off is NaN; a box is cut, and NaN when nothing of it is left."""
    parts = (
        torch.zeros(1, 20, 40, dtype=torch.uint8),
        torch.tensor([[1.0, 10.0], [20.0, 10.0]]),
        torch.tensor([[0.0, 0.0, 5.0, 5.0], [5.0, 5.0, 35.0, 15.0]]),
        torch.tensor([3, 4]),
    )
    _, points, boxes, labels = CenterCrop(20)(parts, ("image", "points", "boxes", "labels"))
    assert points[0].isnan().all()
    assert points[1].tolist() == [10.0, 10.0]
    assert boxes[0].isnan().all()
    assert boxes[1].tolist() == [0.0, 5.0, 20.0, 15.0]
    assert labels.tolist() == [-1, 4]


@pytest.mark.parametrize(
    "transform", [Resize(20), RandomResizedCrop(20), RandomCrop(20), RandomFlip()]
)
def test_random_in_training_fixed_in_validation(transform):
    """Training sees several views, by the global generator; validation sees one."""
    image = torch.arange(40 * 60, dtype=torch.int32).remainder(251).to(torch.uint8).view(1, 40, 60)

    def views(form):
        random.seed(3)
        return [form((image,), ("image",))[0] for _ in range(8)]

    first, again = views(transform), views(transform)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(first[0], other) for other in first)
    fixed = transform.for_validation()
    if fixed is not None:
        same = views(fixed)
        assert all(torch.equal(same[0], other) for other in same)


def test_state_is_that_of_validation():
    """A recipe is kept as JSON, with what predictions need, and made again."""
    from trainbus_data import Category
    from trainbus_vision import Image

    recipe = Recipe(
        [Image(1), Category(["a", "b"])], 1, [RandomResizedCrop(16), RandomFlip(), CenterCrop(12)]
    )
    again = Recipe.from_state(json.loads(json.dumps(recipe.state())))
    image = torch.randint(0, 256, (1, 40, 30), dtype=torch.uint8)
    assert torch.equal(again.encode_input(image), recipe.encode_input(image))
    assert again.encode_input(image).shape == (1, 12, 12)


def test_own_transforms_are_kept_by_name():
    """A function works but cannot be kept; your own class is given when it is loaded."""
    from trainbus_data import Category
    from trainbus_vision import Image

    class Darker(ItemTransform):
        def __call__(self, parts, kinds):
            return (parts[0] // 2, *parts[1:])

    blocks = [Image(1), Category(["a", "b"])]
    with pytest.raises(DataError, match="is a function, which cannot be kept"):
        Recipe(blocks, 1, [lambda parts, kinds: parts]).state()
    state = Recipe(blocks, 1, [Darker()]).state()
    with pytest.raises(DataError, match="'Darker' is not known"):
        Recipe.from_state(state)
    white = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    assert Recipe.from_state(state, [Darker]).encode_input(white).unique().tolist() == [127]


def test_options_are_checked():
    """A misspelt method has the nearest one."""
    with pytest.raises(DataError, match="did you mean 'squish'"):
        Resize(20, "squsih")
    with pytest.raises(DataError, match="size=0"):
        Resize(0)
