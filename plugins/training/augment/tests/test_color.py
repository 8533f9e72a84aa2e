"""What changes colors: formulas, one pass, and what stays as it is."""

import pytest
import torch

from trainbus import UsageError
from trainbus_augment import Augmenter, Brightness, Contrast, Hue, Saturation
from trainbus_augment.color import LUMA
from trainbus_augment.transforms import Transform

COLORS = [Brightness(p=1), Contrast(p=1), Saturation(0.5, p=1), Hue(40, p=1)]


def luma(image):
    """How bright each pixel is."""
    return (image * torch.tensor(LUMA)[:, None, None]).sum(dim=1)


def changed(transform, image, generator):
    """An augmented image."""
    return Augmenter([transform])((image,), ("image",), generator)[0]


def test_brightness_multiplies(generator):
    image = torch.rand(5, 3, 8, 8) / 2
    factor = changed(Brightness(0.2, p=1), image, generator) / image
    assert factor.std(dim=(1, 2, 3)).max() < 1e-5, "one factor for an image"
    assert ((factor > 0.799) & (factor < 1.251)).all()
    assert factor.std() > 0.01, "another one for each"


def test_contrast_multiplies_the_distance_to_mid_grey(generator):
    image = torch.rand(5, 1, 8, 8) / 2 + 0.25
    factor = (changed(Contrast(0.2, p=1), image, generator) - 0.5) / (image - 0.5)
    assert factor.std(dim=(1, 2, 3)).max() < 1e-3
    assert ((factor > 0.799) & (factor < 1.251)).all()


def test_saturation_and_hue_keep_grey_and_brightness(generator):
    grey = torch.rand(4, 1, 8, 8).expand(4, 3, 8, 8).contiguous()
    color = torch.rand(4, 3, 8, 8) / 5 + 0.4
    for transform in (Saturation(0.5, p=1), Hue(60, p=1)):
        torch.testing.assert_close(changed(transform, grey, generator), grey, atol=1e-5, rtol=0)
        new = changed(transform, color, generator)
        torch.testing.assert_close(luma(new), luma(color), atol=1e-3, rtol=0)
        assert (new - color).abs().max() > 0.01


def test_a_hue_turned_three_times_by_a_third_is_the_same(generator):
    class Third(Hue):
        def looks(self, draw, channels):
            third = (120 / self.degrees + 1) / 2
            return super().looks(torch.full_like(draw, third).index_fill(1, torch.tensor(0), 0), 3)

    color = torch.rand(2, 3, 4, 4) / 10 + 0.45
    once = changed(Third(180, p=1), color, generator)
    assert (once - color).abs().max() > 0.01
    thrice = Augmenter([Third(180, p=1)] * 3)((color,))[0]
    torch.testing.assert_close(thrice, color, atol=1e-5, rtol=0)


def test_all_colors_are_one_pass(images, calls, generator):
    with calls:
        Augmenter(COLORS)((images,), ("image",), generator)
    assert calls.count["baddbmm"] == 1
    assert calls.count["clamp_"] == 1
    assert "addcmul" not in calls.count


def test_composed_is_what_one_after_the_other_gives(generator):
    image = torch.rand(4, 3, 8, 8) / 10 + 0.45  # far from where it would be clamped between
    state = generator.get_state()
    together = Augmenter(COLORS)((image,), ("image",), generator)[0]
    generator.set_state(state)
    draw = torch.rand(4, 8, dtype=torch.float64, generator=generator)

    class Fixed(Transform):
        def __init__(self, inner, draw):
            self.inner, self.fixed = inner, draw

        def looks(self, draw, channels):
            return self.inner.looks(self.fixed, channels)

    for number, transform in enumerate(COLORS):
        image = Augmenter([Fixed(transform, draw[:, 2 * number : 2 * number + 2])])((image,))[0]
    torch.testing.assert_close(together, image, atol=1e-5, rtol=0)


def test_values_stay_in_range_and_the_given_images_as_they_are(generator):
    image = torch.rand(16, 3, 8, 8)
    before = image.clone()
    strong = [Brightness(0.9, p=1), Contrast(0.9, p=1), Saturation(0.9, p=1), Hue(180, p=1)]
    new = Augmenter(strong)((image,), ("image",), generator)[0]
    assert new.min() >= 0
    assert new.max() <= 1
    assert torch.equal(image, before)


def test_nothing_to_do_is_nothing_done(generator):
    image = torch.rand(4, 3, 8, 8)
    never = [Brightness(p=0), Contrast(p=0), Saturation(p=0), Hue(p=0)]
    assert Augmenter(never)((image,), ("image",), generator)[0] is image
    assert Augmenter([Saturation(0.0), Hue(0.0)])((image,), ("image",), generator)[0] is image


def test_probabilities_are_kept(generator):
    image = torch.full((2000, 1, 1, 1), 0.4)
    new = changed(Brightness(0.5, p=0.3), image, generator)
    assert abs((new != image).float().mean() - 0.3) < 0.03


def test_colors_need_three_channels(generator):
    for transform in (Saturation(), Hue()):
        with pytest.raises(UsageError, match=r"needs images of 3 channels.*these have 1"):
            changed(transform, torch.rand(2, 1, 4, 4), generator)


@pytest.mark.parametrize(
    "make", [lambda: Brightness(1.0), lambda: Contrast(-0.1), lambda: Hue(200)]
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UsageError, match="give a number from 0 to"):
        make()
