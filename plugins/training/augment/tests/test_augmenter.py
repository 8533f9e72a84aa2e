"""The augmenter: same seed, same images; types; pieces; and messages for what does not fit."""

import multiprocessing

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainbus import UsageError
from trainbus_augment import (
    Augmenter,
    Brightness,
    CutMix,
    Erase,
    Flip,
    Hue,
    LabelSmoothing,
    MixUp,
    RandAugment,
    Rotate,
    standard,
)

MANY = [
    *standard(), Hue(), RandAugment(), Erase(0.5), MixUp(classes=5), CutMix(classes=5),
    LabelSmoothing(0.1),
]  # fmt: skip


class Waits(TorchDispatchMode):
    """Fails on whatever brings a value of a tensor to Python."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        words = ("_local_scalar_dense", "item", "nonzero", "equal", "masked_select")
        assert not any(word in name for word in words), f"{name} waits for the device"
        return function(*args, **(kwargs or {}))


def test_the_same_seed_gives_the_same_batch(images):
    target = torch.arange(8) % 5
    made = [
        Augmenter(MANY)(
            (images, target), ("image", "category"), torch.Generator().manual_seed(seed)
        )
        for seed in (5, 5, 6)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*made[:2], strict=True))
    assert not torch.equal(made[0][0], made[2][0])


def test_without_a_generator_it_is_that_of_torch(images):
    torch.manual_seed(4)
    one = Augmenter(standard())((images,))[0]
    torch.manual_seed(4)
    assert torch.equal(Augmenter(standard())((images,))[0], one)


def test_the_global_random_numbers_are_left_alone(images, generator):
    before = torch.get_rng_state()
    target = torch.arange(8) % 5
    Augmenter(MANY)((images, target), ("image", "category"), generator)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_waits_for_a_device(images, generator):
    batch = (images, torch.arange(8) % 5)
    with Waits():
        for transforms in (standard(), standard(size=8, min_scale=0.3), MANY):
            Augmenter(transforms)(batch, ("image", "category"), generator)
        parts = (images, torch.ones(8, 24, 32, dtype=torch.int64), torch.rand(8, 2, 2))
        Augmenter(standard())(parts, ("image", "mask", "points"), generator)


def test_bytes_become_numbers_up_to_one(images, generator):
    new = Augmenter([Flip(0.0)])((images,), ("image",), generator)[0]
    assert torch.equal(new, images.float() / 255)
    assert Augmenter([])((images,))[0] is images


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_of_numbers_are_kept(images, dtype):
    full = Augmenter(standard())(
        (images.float() / 255,), ("image",), torch.Generator().manual_seed(1)
    )
    image = (images.float() / 255).to(dtype)
    new = Augmenter(standard())((image,), ("image",), torch.Generator().manual_seed(1))[0]
    assert new.dtype == dtype
    torch.testing.assert_close(new.float(), full[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_batch_in_pieces_is_the_same_as_in_one(monkeypatch, threads):
    images = torch.randint(0, 256, (20, 3, 24, 24), dtype=torch.uint8)
    before = torch.get_num_threads()
    made = []
    try:
        torch.set_num_threads(threads)
        for size in (10**9, 30_000):
            monkeypatch.setattr("trainbus_augment.augmenter.PIECE", size)
            monkeypatch.setattr("trainbus_augment.pieces.PIECE", size)
            generator = torch.Generator().manual_seed(2)
            augmenter = Augmenter([*standard(), RandAugment()])
            made.append(augmenter((images,), ("image",), generator)[0])
        assert torch.get_num_threads() == threads, "it is put back"
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*made, atol=1e-6, rtol=0)


def test_a_process_that_was_forked_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr("trainbus_augment.augmenter.PIECE", 1)
    before = torch.get_num_threads()
    context = multiprocessing.get_context("fork")
    try:
        torch.set_num_threads(2)
        Augmenter(standard())((torch.rand(4, 3, 8, 8),))
        child = context.Process(target=_augment)
        child.start()
        child.join(20)
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


def _augment():
    """In a child process."""
    assert Augmenter(standard())((torch.rand(4, 3, 8, 8),))[0].shape == (4, 3, 8, 8)


@pytest.mark.parametrize("context", [torch.inference_mode(), torch.autocast("cpu")])
def test_it_works_in_other_modes_of_torch(monkeypatch, images, context):
    monkeypatch.setattr("trainbus_augment.augmenter.PIECE", 1)
    with context:
        transforms = [*standard(), Hue(p=1)]
        new = Augmenter(transforms)((images,), ("image",), torch.Generator().manual_seed(1))[0]
    same = Augmenter(transforms)((images,), ("image",), torch.Generator().manual_seed(1))[0]
    assert torch.equal(new, same)
    assert new.dtype == torch.float32


def test_channels_last_and_views_are_taken(images, generator):
    state = generator.get_state()
    one = Augmenter(standard())((images,), ("image",), generator)[0]
    generator.set_state(state)
    other = images.contiguous(memory_format=torch.channels_last)
    two = Augmenter(standard())((other,), ("image",), generator)[0]
    torch.testing.assert_close(one, two)


def test_the_given_batch_is_not_written_to(images, generator):
    batch = (images.float() / 255, torch.arange(8) % 5)
    before = [part.clone() for part in batch]
    for _ in range(5):
        Augmenter(MANY)(batch, ("image", "category"), generator)
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))


def test_several_images_of_a_sample_move_together(images, generator):
    new = Augmenter(standard())((images, images.clone()), ("image", "image"), generator)
    assert torch.equal(*new)


def test_parts_without_a_kind_and_other_ones_stay(images, generator):
    other, name = torch.rand(8, 24, 32), ["a"] * 8
    new = Augmenter(standard())((images, other, name), ("image", "other"), generator)
    assert new[1] is other
    assert new[2] is name


def test_an_empty_batch_is_no_error():
    new = Augmenter(standard())((torch.zeros(0, 3, 8, 8, dtype=torch.uint8),))[0]
    assert new.shape == (0, 3, 8, 8)
    assert new.dtype == torch.float32


def test_it_tells_what_it_does():
    text = repr(Augmenter([Flip(0.5), Brightness(0.2, p=1)]))
    assert text == (
        "Augmenter([Flip(p=0.5, vertical=False), Brightness(magnitude=0.2, p=1.0)], "
        "padding='reflection')"
    )


BAD = {
    "unknown kind": ((torch.rand(2, 3, 8, 8),), ("imge",), "no kind 'imge'; did you mean 'image'"),
    "no image": ((torch.rand(2),), ("number",), "no part is an 'image'"),
    "not 4-D": ((torch.rand(3, 8, 8),), ("image",), r"\(3, 8, 8\); it has to be N x C x H x W"),
    "no tensor": (([1, 2],), ("image",), "is a list; give a tensor"),
    "16 bits": ((torch.ones(2, 1, 8, 8, dtype=torch.int32),), ("image",), "int32; give uint8"),
    "too few": ((torch.rand(2, 3, 8, 8),), ("image", "mask"), "1 parts does not fit kinds="),
    "float mask": (
        (torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8)), ("image", "mask"), "holds whole numbers",
    ),
    "mask of another size": (
        (torch.rand(2, 3, 8, 8), torch.ones(2, 4, 4, dtype=torch.int64)), ("image", "mask"),
        "a mask of 4 x 4 pixels belongs to an image of 8 x 8",
    ),
    "points": ((torch.rand(2, 3, 8, 8), torch.rand(2, 5)), ("image", "points"), "N x K x 2"),
    "whole boxes": (
        (torch.rand(2, 3, 8, 8), torch.ones(2, 1, 4, dtype=torch.int64)), ("image", "boxes"),
        "give pixels as float32",
    ),
    "another number": (
        (torch.rand(2, 3, 8, 8), torch.rand(3, 5, 2)), ("image", "points"), "3 samples, .* 2",
    ),
    "two sizes": (
        (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 9, 9)), ("image", "image"), "have one size",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("batch", "kinds", "message"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(batch, kinds, message):
    with pytest.raises(UsageError, match=message):
        Augmenter([Rotate(p=1)])(batch, kinds)


def test_what_is_no_transform_is_refused():
    with pytest.raises(
        UsageError, match=r"the class Flip is no transform; give objects as Flip\(\)"
    ):
        Augmenter([Flip])
    with pytest.raises(UsageError, match=r"put foreign ones into Torchvision"):
        Augmenter([torch.nn.Identity()])
    with pytest.raises(UsageError, match="padding='mirror'"):
        Augmenter([], padding="mirror")


def test_a_generator_of_a_device_is_refused(images):
    class Away:
        device = torch.device("cuda")

    with pytest.raises(UsageError, match="on the CPU, whatever device"):
        Augmenter([Flip()])((images,), ("image",), Away())


def test_no_value_of_a_batch_is_needed(generator):
    # On the device `meta` tensors have none: whatever read one would fail.
    images = torch.empty(4, 3, 16, 16, dtype=torch.uint8, device="meta")
    target = torch.empty(4, dtype=torch.int64, device="meta")
    transforms = [*standard(size=12, min_scale=0.1), Hue(), Erase(1.0), MixUp(classes=3)]
    new = Augmenter(transforms)((images, target), ("image", "category"), generator)
    assert new[0].shape == (4, 3, 12, 12)
    assert new[0].device.type == "meta"
    points, boxes = torch.empty(4, 5, 2, device="meta"), torch.empty(4, 6, 4, device="meta")
    mask = torch.empty(4, 16, 16, dtype=torch.int64, device="meta")
    transforms = [*standard(size=12, min_scale=0.1), RandAugment(8)]
    kinds = ("image", "mask", "points", "boxes")
    new = Augmenter(transforms)((images, mask, points, boxes), kinds, generator)
    assert [tuple(part.shape) for part in new[1:]] == [(4, 12, 12), (4, 5, 2), (4, 6, 4)]


@pytest.mark.parametrize("low_and_high", [(-2.1, 2.6), (0.0, 255.0), (-1.0, 1.0)])
def test_images_out_of_range_are_refused_where_colors_change(low_and_high):
    """Normalized ones, and floats up to 255: colors would be cut to 0..1 without a word."""
    images = torch.empty(2, 3, 8, 8).uniform_(*low_and_high)
    with pytest.raises(UsageError, match=r"images that change their colors are floats in \[0, 1\]"):
        Augmenter(standard())((images,))
    moved = Augmenter([Flip(1.0)])((images,))[0]
    assert torch.equal(moved, images.flip(-1))


def test_a_little_beyond_the_range_is_what_interpolation_does():
    """A bicubic resize gives a little less than 0 and more than 1 at edges."""
    images = torch.rand(2, 3, 8, 8) * 1.2 - 0.1
    assert Augmenter([Brightness(0.1)])((images,))[0].shape == images.shape


def test_channels_behind_are_refused():
    """N x H x W x C would be augmented along the wrong axes."""
    with pytest.raises(UsageError, match=r"looks like N x H x W x C"):
        Augmenter([Flip()])((torch.rand(2, 16, 16, 3),))
