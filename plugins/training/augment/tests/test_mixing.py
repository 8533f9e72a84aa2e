"""MixUp, CutMix, label smoothing and erasing."""

import pytest
import torch
from torch.nn import functional

from trainbus import UsageError
from trainbus_augment import Augmenter, CutMix, Erase, LabelSmoothing, MixUp

KINDS = ("image", "category")


@pytest.fixture
def batch():
    """Images of one value each, which is their class divided by 10."""
    target = torch.randint(0, 10, (64,))
    return (target / 10)[:, None, None, None].expand(64, 3, 16, 16).clone(), target


def test_mixup_mixes_targets_as_images(batch, generator):
    image, target = Augmenter([MixUp(0.4, classes=10)])(batch, KINDS, generator)
    assert target.shape == (64, 10)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64))
    # The value of an image is the mean of its classes, weighted by their probabilities.
    torch.testing.assert_close(image[:, 0, 0, 0], target @ (torch.arange(10) / 10))
    own = target.gather(1, batch[1][:, None])
    assert (own >= 0.4999).all(), "the larger share is an image's own"
    assert own.std() > 0.05, "each has its own proportion"


def test_cutmix_mixes_targets_by_area(batch, generator):
    image, target = Augmenter([CutMix(classes=10)])(batch, KINDS, generator)
    mean = image.mean(dim=(1, 2, 3))
    torch.testing.assert_close(mean, target @ (torch.arange(10) / 10), atol=1e-5, rtol=0)
    values = [len(each.unique()) for each in image]
    assert max(values) == 2, "one rectangle of one other image"
    assert (image != image[:, :, :1, :1]).any()


def test_the_loss_takes_the_targets(batch, generator):
    transforms = [MixUp(classes=10, p=0.5), CutMix(classes=10, p=0.5), LabelSmoothing(0.1)]
    _image, target = Augmenter(transforms)(batch, KINDS, generator)
    assert functional.cross_entropy(torch.randn(64, 10), target).isfinite()
    torch.testing.assert_close(target.sum(dim=1), torch.ones(64))
    assert target.min() >= 0.0099


def test_label_smoothing_is_that_of_torch(batch):
    scores = torch.randn(64, 10)
    smooth = Augmenter([LabelSmoothing(0.2, classes=10)])(batch, KINDS)[1]
    wanted = functional.cross_entropy(scores, batch[1], label_smoothing=0.2)
    torch.testing.assert_close(functional.cross_entropy(scores, smooth), wanted)


def test_several_labels_and_numbers_are_mixed(batch, generator):
    labels = functional.one_hot(batch[1], 10).float()
    image, new = Augmenter([MixUp()])((batch[0], labels), ("image", "categories"), generator)
    torch.testing.assert_close(image[:, 0, 0, 0], new @ (torch.arange(10) / 10))
    image, new = Augmenter([MixUp()])((batch[0], batch[1] / 10), ("image", "number"), generator)
    torch.testing.assert_close(image[:, 0, 0, 0], new)


def test_the_probability_is_kept_and_targets_keep_their_type(batch, generator):
    _image, target = Augmenter([MixUp(1.0, classes=10, p=0.25)])(batch, KINDS, generator)
    mixed = (target.max(dim=1).values < 1).float().mean()
    assert 0.1 < mixed < 0.4
    never, target = Augmenter([MixUp(1.0, classes=10, p=0.0)])(batch, KINDS, generator)
    assert torch.equal(never, batch[0])
    assert target.shape == (64, 10), "a training has targets of one type"


def test_proportions_are_those_of_the_distribution(generator):
    share = CutMix(2.0, classes=2).proportions(20000, generator)
    assert abs(share.mean() - 0.5) < 0.01
    assert abs(share.var() - 0.05) < 0.003, "Beta(2, 2) has a variance of 1/20"


def test_erasing_paints_one_rectangle(generator):
    image = torch.rand(200, 3, 32, 32)
    new = Augmenter([Erase(0.5, scale=(0.1, 0.2), value=0.0)])((image,), ("image",), generator)[0]
    erased = (new == 0).all(dim=1)
    area = erased.float().mean(dim=(1, 2))
    assert abs((area > 0).float().mean() - 0.5) < 0.1
    assert ((area == 0) | ((area > 0.06) & (area < 0.26))).all()
    rows, columns = erased.any(dim=2).sum(dim=1), erased.any(dim=1).sum(dim=1)
    assert torch.equal(rows * columns, erased.sum(dim=(1, 2))), "it is a rectangle"
    assert torch.equal(new[~erased[:, None].expand_as(new)], image[~erased[:, None].expand_as(new)])


def test_erasing_uses_the_mean_color_by_default(generator):
    image = torch.rand(4, 3, 32, 32)
    new = Augmenter([Erase(1.0)])((image,), ("image",), generator)[0]
    changed = (new != image).all(dim=1)
    for number in range(4):
        color = new[number][:, changed[number]][:, 0]
        torch.testing.assert_close(color, image[number].mean(dim=(1, 2)))


@pytest.mark.parametrize(
    ("transform", "target", "kind", "message"),
    [
        (MixUp(), torch.zeros(4, dtype=torch.int64), "category", r"part 1.*MixUp\(classes=10\)"),
        (MixUp(classes=3), torch.zeros(4), "category", "torch.float32 of shape .4,."),
        (CutMix(classes=3), torch.tensor([0, 1, 2, 3]), "category", "not in 0..2"),
        (MixUp(classes=3), torch.zeros(4, 8, 8, dtype=torch.int64), "mask", "part 1 .* is 'mask'"),
        (LabelSmoothing(), torch.zeros(4), "number", "is for targets that are category"),
        (MixUp(classes=3), torch.zeros(4), "other", "has none; say what the target is"),
        (MixUp(classes=3), ["cat"] * 4, "category", "is a list; give a tensor"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_are_refused(transform, target, kind, message):
    with pytest.raises(UsageError, match=message):
        Augmenter([transform])((torch.rand(4, 3, 8, 8), target), ("image", kind))


@pytest.mark.parametrize(
    "make",
    [lambda: MixUp(0.0), lambda: CutMix(classes=1), lambda: MixUp(classes=2.5), lambda: Erase(2.0),
     lambda: Erase(scale=(0.5, 0.1)), lambda: LabelSmoothing(1.5), lambda: Erase(value=300)],
)  # fmt: skip
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UsageError, match="give"):
        make()
