"""Transforms of torchvision and kornia: each image of its own, masks follow, exact seeds."""

import pytest
import torch

from trainbus import UsageError
from trainbus_augment import Augmenter, Kornia, Torchvision, standard


@pytest.fixture
def v2():
    """torchvision.transforms.v2."""
    return pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed")


@pytest.fixture
def kornia():
    """kornia.augmentation."""
    return pytest.importorskip("kornia.augmentation", reason="kornia is not installed")


@pytest.fixture
def turns(v2, kornia):
    """The same transform of both."""
    return [
        Torchvision(v2.RandomAffine(40)),
        Kornia(kornia.RandomAffine(degrees=40.0, p=1.0)),
    ]


def test_each_image_is_turned_by_an_angle_of_its_own(turns, generator):
    image = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1)
    for turn in turns:
        new = Augmenter([turn])((image,), ("image",), generator)[0]
        assert type(new) is torch.Tensor
        assert not any(torch.equal(new[a], new[b]) for a in range(4) for b in range(a))


def test_masks_follow(turns, generator):
    mask = torch.randint(0, 3, (4, 4, 4)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = (mask[:, None] * 100).to(torch.uint8)
    for turn in turns:
        new, turned = Augmenter([turn])((image, mask), ("image", "mask"), generator)
        assert turned.dtype == torch.int64
        assert set(turned.unique().tolist()) <= {0, 1, 2}
        assert not torch.equal(turned, mask)
        assert (new[:, 0] * 2.55 - turned).abs().mean() < 0.5


def test_points_and_boxes_follow_torchvision(v2):
    points = torch.tensor([[[2.0, 3.0], [float("nan")] * 2]])
    boxes = torch.tensor([[[2.0, 3, 6, 8], [float("nan")] * 4]])
    flip = Augmenter([Torchvision(v2.RandomHorizontalFlip(1.0))])
    parts = (torch.rand(1, 3, 16, 20), points, boxes)
    _, points, boxes = flip(parts, ("image", "points", "boxes"))
    assert boxes[0, 0].tolist() == [14, 3, 18, 8]
    assert points[0, 0].tolist() == [18.0, 3.0]
    assert points[0, 1].isnan().all()
    assert boxes[0, 1].isnan().all()


def test_one_call_for_the_batch(v2, generator):
    image = torch.rand(1, 3, 16, 16).repeat(4, 1, 1, 1)
    turn = Torchvision(v2.RandomRotation(40), per_image=False)
    new = Augmenter([turn])((image,), ("image",), generator)[0]
    assert torch.equal(new[0], new[3])
    assert not torch.equal(new, image)


def test_their_random_numbers_are_ours(turns, images):
    for turn in turns:
        before = torch.get_rng_state()
        made = [
            Augmenter([turn])((images,), ("image",), torch.Generator().manual_seed(4))[0]
            for _ in range(2)
        ]
        assert torch.equal(*made)
        assert torch.equal(torch.get_rng_state(), before)


def test_they_stand_in_one_list_with_ours(turns, images, generator):
    new = Augmenter([*standard(), *turns, *standard()])((images,), ("image",), generator)[0]
    assert new.shape == images.shape
    assert new.dtype == torch.float32


def test_what_kornia_would_leave_behind_is_refused(turns, images):
    with pytest.raises(UsageError, match="Kornia: points do not follow"):
        Augmenter([turns[1]])((images, torch.rand(8, 1, 2)), ("image", "points"))
    with pytest.raises(UsageError, match="cannot be called"):
        Kornia(3)
    with pytest.raises(UsageError, match="cannot be called"):
        Torchvision(None)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RandomHorizontalFlip", {"p": 1.0}), ("RandomVerticalFlip", {"p": 1.0}),
        ("Resize", {"size": (80, 120)}), ("RandomCrop", {"size": (30, 50)}),
        ("RandomRotation", {"degrees": (20, 20), "interpolation": 2}),
    ],
)  # fmt: skip
def test_a_point_stays_on_its_pixel_in_torchvision(v2, name, options):
    """Pixel centres are at halves, in every operator."""
    image = torch.zeros(1, 1, 40, 60)
    image[0, 0, 19:22, 29:32] = 1.0
    points = torch.tensor([[[30.5, 20.5]]])
    transform = getattr(v2, name)(**options)
    image, points = Augmenter([Torchvision(transform)])((image, points), ("image", "points"))
    height, width = image.shape[-2:]
    x = (image[0, 0] * (torch.arange(width) + 0.5)).sum() / image.sum()
    y = (image[0, 0] * (torch.arange(height)[:, None] + 0.5)).sum() / image.sum()
    torch.testing.assert_close(points[0, 0], torch.stack([x, y]), atol=0.1, rtol=0)
