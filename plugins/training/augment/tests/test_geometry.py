"""What moves pixels: mathematical properties, one interpolation, and what follows an image."""

import math

import pytest
import torch
from torch.nn import functional

from trainbus import UsageError
from trainbus_augment import Augmenter, Crop, Flip, Rotate, Warp, Zoom, standard
from trainbus_augment.transforms import Size

ALL = ("image", "mask", "points", "boxes")


def once(transforms, image, **options):
    """An augmented image."""
    return Augmenter(transforms, **options)((image,))[0]


def test_flipping_twice_is_the_identity_to_the_last_bit(images):
    for vertical in (False, True):
        flip = [Flip(1.0, vertical=vertical)]
        there = once(flip, images.float() / 255)
        assert torch.equal(there, (images.float() / 255).flip(-2 if vertical else -1))
        assert torch.equal(once(flip, there), images.float() / 255)
        assert torch.equal(once(flip * 2, images.float() / 255), images.float() / 255)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_that_of_torch(quarters):
    image = torch.rand(2, 3, 20, 20)
    turned = once([Rotate((90.0 * quarters, 90.0 * quarters), p=1)], image)
    torch.testing.assert_close(turned, image.rot90(quarters, (-2, -1)), atol=1e-4, rtol=0)


def test_a_turn_of_an_oblong_image_keeps_angles_and_lengths():
    points = torch.tensor([[[20.0, 10.0], [26.0, 10.0], [20.0, 14.0]]])
    _, new = Augmenter([Rotate((30, 30), p=1)])(
        (torch.rand(1, 1, 20, 40), points), ("image", "points")
    )
    assert torch.allclose(new[0, 0], points[0, 0]), "the middle stays"
    right, down = new[0, 1] - new[0, 0], new[0, 2] - new[0, 0]
    assert math.isclose(right.norm(), 6, rel_tol=1e-5)
    assert math.isclose(down.norm(), 4, rel_tol=1e-5)
    assert abs(right @ down) < 1e-4
    assert right[1] < 0, "counter-clockwise: what was on the right is further up"


def test_a_zoom_shows_a_part_of_the_image(generator):
    points = torch.tensor([[[0.0, 0.0], [32.0, 24.0]]]).repeat(50, 1, 1)
    image = torch.zeros(50, 1, 24, 32)
    # By half, so that all corners are to be seen.
    _, new = Augmenter([Zoom(0.5, 0.5, p=1)])((image, points), ("image", "points"), generator)
    size = new[:, 1] - new[:, 0]
    torch.testing.assert_close(size, torch.tensor([16.0, 12.0]).expand(50, 2))
    assert new[:, 0].std(dim=0).min() > 1, "anywhere in the frame"


def test_a_warp_keeps_straight_lines(generator):
    image = torch.zeros(20, 1, 24, 32)
    line = torch.stack([torch.linspace(10, 22, 5), torch.linspace(8, 14, 5)], dim=1)[None]
    _, new = Augmenter([Warp(0.5, p=1)])(
        (image, line.repeat(20, 1, 1)), ("image", "points"), generator
    )
    step = new[:, 1:] - new[:, :1]
    cross = step[:, :-1, 0] * step[:, 1:, 1] - step[:, :-1, 1] * step[:, 1:, 0]
    assert cross.abs().max() < 1e-3, "points of a line are on a line"


def test_opposite_warps_undo_each_other():
    tilt = torch.tensor([[0.0, 0.8, 0.5], [0.0, 0.5, 0.1]], dtype=torch.float64)
    warp = Warp(0.4, p=1)
    there = warp.matrix(tilt, Size(24, 32))
    opposite = tilt.clone()
    opposite[:, 1:] = 1 - tilt[:, 1:]
    back = warp.matrix(opposite, Size(24, 32))
    both = there @ back
    both = both / both[:, 2:, 2:]
    torch.testing.assert_close(both, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


def test_all_that_moves_pixels_is_one_interpolation(images, calls, generator):
    transforms = [*standard(vertical=True), Crop(20), Rotate(5), Warp(0.1)]
    with calls:
        Augmenter(transforms)((images,), ("image",), generator)
    assert calls.count["grid_sample"] == 1


def test_composed_transforms_are_as_sharp_as_one(images):
    # Twenty turns of 18 degrees, one after the other, would blur; composed they are the identity.
    turns = [Rotate((18, 18), p=1)] * 20
    torch.testing.assert_close(once(turns, images), images.float() / 255, atol=1e-3, rtol=0)


def test_what_is_not_to_be_done_is_not_done(images, calls, generator):
    image = images.float() / 255
    never = [Flip(0.0), Rotate(p=0.0), Zoom(p=0.0), Warp(p=0.0)]
    with calls:
        assert Augmenter(never)((image,), ("image",), generator)[0] is image
        assert Augmenter([])((images,))[0] is images
        Augmenter([Flip()])((images,), ("image",), generator)
    assert "grid_sample" not in calls.count


def test_images_that_are_left_alone_are_not_interpolated(images, generator):
    new = Augmenter([Rotate((40, 40), p=0.5)])((images,), ("image",), generator)[0]
    same = [torch.equal(a, b) for a, b in zip(new, images.float() / 255, strict=True)]
    assert 0 < sum(same) < 8, "some are turned, and the others are the same to the last bit"


def test_each_image_has_parameters_of_its_own(generator):
    image = torch.rand(1, 3, 16, 16).repeat(6, 1, 1, 1)
    new = Augmenter(standard(p_affine=1, p_lighting=1))((image,), ("image",), generator)[0]
    different = [not torch.allclose(new[a], new[b]) for a in range(6) for b in range(a)]
    assert all(different)


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_outside_of_an_image_is_what_was_asked_for(padding):
    image = torch.linspace(0.2, 0.8, 16).expand(1, 1, 16, 16).contiguous()
    new = once([Zoom(0.5, 0.5, p=1)], image, padding=padding)
    assert (new.min() == 0) == (padding == "zeros")
    assert new.max() <= 0.81


def test_a_crop_is_a_part_of_the_image_in_the_new_size(images):
    whole = once([Crop((12, 16), scale=(1, 1), ratio=(4 / 3, 4 / 3))], images)
    wanted = functional.interpolate(images.float() / 255, size=(12, 16), mode="bilinear")
    torch.testing.assert_close(whole, wanted, atol=2e-3, rtol=0)
    part = once([Crop((10, 10), scale=(0.2, 0.5))], images)
    assert part.shape == (8, 3, 10, 10)


def test_shrinking_more_than_twice_averages():
    # Stripes of one pixel: sampled as they are they stay black and white, averaged they are grey.
    stripes = torch.tensor([0.0, 1.0]).repeat(48).expand(2, 1, 96, 96).contiguous()
    small = once([Crop(20, scale=(1, 1), ratio=(1, 1))], stripes)
    assert (small - 0.5).abs().max() < 0.01
    assert small.shape == (2, 1, 20, 20)
    smooth = torch.linspace(0, 1, 97).expand(1, 1, 97, 97).contiguous()
    small = once([Crop(20, scale=(1, 1), ratio=(1, 1))], smooth)
    wanted = (torch.arange(20) + 0.5) / 20
    assert (small[0, 0, 10] - wanted).abs().max() < 0.01, "it stays in its place"


def test_points_follow_their_image(generator):
    image = torch.zeros(12, 1, 40, 60)
    rows, columns = torch.randint(14, 26, (12,)), torch.randint(20, 40, (12,))
    for number, (row, column) in enumerate(zip(rows, columns, strict=True)):
        image[number, 0, row - 1 : row + 2, column - 1 : column + 2] = 1  # a mark
    points = torch.stack([columns + 0.5, rows + 0.5], dim=1)[:, None]
    augmenter = Augmenter([*standard(vertical=True, lighting=0), Crop((50, 70), scale=(0.6, 1))])
    image, new = augmenter((image, points), ("image", "points"), generator)
    xs, ys = torch.arange(70) + 0.5, torch.arange(50) + 0.5
    weight = image[:, 0].sum(dim=(1, 2))
    found = torch.stack(
        [
            (image[:, 0] * xs).sum(dim=(1, 2)) / weight,
            (image[:, 0] * ys[:, None]).sum(dim=(1, 2)) / weight,
        ],
        dim=1,
    )
    # Near the edge a part of the mark is outside, and what is there is its mirror image.
    there = ((new[:, 0] > 5) & (new[:, 0] < torch.tensor([65, 45]))).all(dim=1)
    assert there.sum() >= 6
    assert (found - new[:, 0])[there].abs().max() < 0.1


def test_points_that_leave_are_nan_and_missing_ones_stay_so():
    points = torch.tensor([[[1.0, 8.0], [8.0, 8.0], [math.nan, math.nan]]])
    middle = Crop(8, scale=(0.25, 0.25), ratio=(1, 1))
    new = Augmenter([middle])((torch.rand(1, 1, 16, 16), points), ("image", "points"))[1]
    assert new[0, 2].isnan().all()
    gone = Augmenter([Rotate((45, 45), p=1)])(
        (torch.rand(1, 1, 16, 16), points * 0), ("image", "points")
    )
    assert gone[1].isnan().all(), "a corner is outside after half a quarter turn"


def test_boxes_are_hulls_clipped_and_gone():
    boxes = torch.tensor([[[2.0, 4, 6, 8], [0, 0, 1, 1], [math.nan] * 4]])
    image = torch.rand(1, 1, 20, 40)
    flipped = Augmenter([Flip(1.0)])((image, boxes), ("image", "boxes"))[1]
    assert flipped[0, 0].tolist() == [34, 4, 38, 8]
    square = torch.rand(1, 1, 20, 20)
    turned = Augmenter([Rotate((45, 45), p=1)])((square, boxes + 5), ("image", "boxes"))[1]
    width = turned[0, 0, 2] - turned[0, 0, 0]
    assert math.isclose(width, 4 * math.sqrt(2), rel_tol=1e-5), "the hull of a turned square"
    far = Augmenter([Rotate((45, 45), p=1)])((square, boxes), ("image", "boxes"))[1]
    assert far[0, 1:].isnan().all()
    assert far[0, 0, 0] >= 0


def test_masks_keep_their_values_and_follow(generator):
    mask = torch.randint(0, 3, (6, 6, 6)).repeat_interleave(4, 1).repeat_interleave(4, 2) * 100
    image = (mask[:, None] / 255).float()
    augmenter = Augmenter(standard(lighting=0, p_affine=1))
    image, new = augmenter((image, mask), ("image", "mask"), generator)
    assert new.dtype == torch.int64
    assert set(new.unique().tolist()) <= {0, 100, 200}
    # Between pixels of two values the image has a value between them: nearer to the mask's.
    assert (image[:, 0] * 255 - new).abs().mean() < 40


def test_a_mask_that_is_flipped_is_exact(generator):
    mask = torch.randint(0, 5, (8, 24, 32))
    image, new = Augmenter([Flip()])(
        ((mask[:, None] * 50).to(torch.uint8), mask), ("image", "mask"), generator
    )
    assert torch.equal((image[:, 0] * 255 / 50).round().long(), new)
    assert not torch.equal(new, mask)


def test_everything_moves_together_in_one_batch(images, generator):
    parts = (images, torch.zeros(8, 24, 32, dtype=torch.int64), torch.rand(8, 3, 2) * 20,
             torch.tensor([[[2.0, 2, 9, 9]]]).repeat(8, 1, 1))  # fmt: skip
    new = Augmenter([*standard(), Crop((10, 12))])(parts, ALL, generator)
    assert [tuple(part.shape) for part in new] == [
        (8, 3, 10, 12),
        (8, 10, 12),
        (8, 3, 2),
        (8, 1, 4),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flip(1.5), "Flip: p=1.5: give a probability"),
        (lambda: Rotate(400), "Rotate: degrees=.*from -360 to 360"),
        (lambda: Zoom(0.9), "Zoom: largest=0.9: give a number from 1 to 20"),
        (lambda: Warp(1.0), "Warp: magnitude=1.0: give a number from 0 to 0.9"),
        (lambda: Crop(0), "Crop: size=0"),
        (lambda: Crop(8, scale=(0, 1)), "Crop: scale"),
        (lambda: Crop(8, ratio=(2, 1)), "Crop: ratio"),
        (lambda: standard(min_scale=0.5), "min_scale=0.5 needs size="),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(UsageError, match=message):
        make()
