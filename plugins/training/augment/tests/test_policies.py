"""The policies, against torchvision's where it has the same."""

import pytest
import torch

from trainbus import UsageError
from trainbus_augment import Augmenter, AutoAugment, RandAugment, TrivialAugment, effects
from trainbus_augment.learned import POLICIES
from trainbus_augment.policies import OPERATIONS


@pytest.fixture
def torchvision():
    """torchvision.transforms."""
    return pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_learned_policies_are_those_of_the_paper(torchvision, name):
    theirs = torchvision.AutoAugment(torchvision.AutoAugmentPolicy(name)).policies
    assert POLICIES[name] == [[tuple(each) for each in pair] for pair in theirs]


@pytest.mark.parametrize(
    ("effect", "name", "amount", "argument"),
    [
        (effects.posterize, "posterize", 3.0, 3),
        (effects.solarize, "solarize", 100 / 255, 100),
        (effects.autocontrast, "autocontrast", 0.0, None),
        (effects.equalize, "equalize", 0.0, None),
        (effects.sharpness, "adjust_sharpness", 1.6, 1.6),
        (effects.sharpness, "adjust_sharpness", 0.4, 0.4),
    ],
)  # fmt: skip
def test_effects_are_those_of_torchvision(torchvision, images, effect, name, amount, argument):
    images = torch.cat([images, images // 3 + 20, torch.full_like(images[:1], 77)])
    amounts = torch.full((len(images),), amount)
    ours = effect(images.float() / 255, amounts) * 255
    function = getattr(torchvision.functional, name)
    theirs = function(images) if argument is None else function(images, argument)
    # Sharpness is rounded twice there, and not here.
    assert (ours - theirs).abs().max() < (2 if effect is effects.sharpness else 1.001)


@pytest.mark.parametrize(
    "policy",
    [RandAugment(), RandAugment(4, 20), TrivialAugment(), AutoAugment(), AutoAugment("svhn")],
)  # fmt: skip
def test_policies_keep_shape_range_and_grey_images(policy, generator):
    for channels in (1, 3):
        image = torch.rand(32, channels, 16, 16)
        new = Augmenter([policy])((image,), ("image",), generator)[0]
        assert new.shape == image.shape
        assert new.min() >= 0
        assert new.max() <= 1
        assert (new != image).flatten(1).any(dim=1).sum() > 12


def test_all_steps_that_move_pixels_are_one_interpolation(images, calls, generator):
    with calls:
        Augmenter([RandAugment(5, 30)])((images,), ("image",), generator)
    assert calls.count["grid_sample"] == 1


def test_operations_are_chosen_evenly():
    policy = TrivialAugment()
    draw = torch.rand(14000, policy.draws, dtype=torch.float64)
    (step,) = policy.steps(draw)
    counts = step.operation.bincount(minlength=len(OPERATIONS))
    assert counts[-1] == 0, "no inversion"
    assert (counts[:-1] - 1000).abs().max() < 150
    assert step.strength.min() == 0
    assert step.strength.max() == 1
    assert abs(step.sign.mean()) < 0.05


def test_auto_augment_keeps_its_probabilities():
    policy = AutoAugment("imagenet")
    first, second = policy.steps(torch.rand(20000, policy.draws, dtype=torch.float64))
    wanted = sum(pair[0][1] for pair in POLICIES["imagenet"]) / 25
    assert abs((first.operation > 0).float().mean() - wanted) < 0.02
    assert second.strength.max() <= 1


def test_masks_follow_policies(images, generator):
    mask = (images[:, 0] > 127).long()
    _image, new = Augmenter([RandAugment(2, 30)])((images, mask), ("image", "mask"), generator)
    assert not torch.equal(new, mask)
    assert set(new.unique().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    "make", [lambda: RandAugment(0), lambda: RandAugment(2, 31), lambda: AutoAugment("mnist")]
)  # fmt: skip
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UsageError, match=r"give a number|there are imagenet"):
        make()
