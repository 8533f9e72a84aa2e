"""The first layer of every model, and a first convolution for other channels."""

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_vision import Normalize, adapt_channels
from trainbus_vision.normalize import channel_stats


def test_bytes_and_floats_of_the_same_image_give_the_same():
    images = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    layer = Normalize([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])
    expected = (images / 255 - layer.mean.view(3, 1, 1)) / layer.std.view(3, 1, 1)
    torch.testing.assert_close(layer(images), expected)
    torch.testing.assert_close(layer(images / 255), expected)


def test_the_numbers_travel_with_the_weights():
    layer = Normalize([0.5], [0.1])
    other = Normalize([0.0], [1.0])
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.mean, layer.mean) and torch.equal(other.std, layer.std)


def test_the_statistics_of_batches_are_those_of_all_their_images():
    images = torch.randint(0, 256, (6, 2, 5, 5), dtype=torch.uint8)
    mean, std = channel_stats([images[:2], images[2:]])
    scaled = images.double() / 255
    torch.testing.assert_close(
        torch.tensor(mean), scaled.mean((0, 2, 3)).float(), atol=1e-5, rtol=0
    )
    expected = scaled.std((0, 2, 3), correction=0).float()
    torch.testing.assert_close(torch.tensor(std), expected, atol=1e-5, rtol=0)


def test_a_channel_that_is_the_same_everywhere_is_not_divided_by_nothing():
    _, std = channel_stats([torch.full((4, 1, 3, 3), 7, dtype=torch.uint8)])
    assert std == [1.0]


def test_wrong_numbers_are_refused():
    with pytest.raises(UsageError, match="above 0"):
        Normalize([0.5], [0.0])


def test_a_grey_image_gives_what_it_gave_in_three_equal_channels():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    grey = torch.rand(2, 1, 6, 6)
    expected = model(grey.expand(-1, 3, -1, -1))
    adapt_channels(model, 1, "it")
    torch.testing.assert_close(model(grey), expected)


def test_repeated_channels_give_what_three_gave_and_the_bias_is_kept():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    bias = model[0].bias.clone()
    colours = torch.rand(2, 3, 6, 6)
    expected = model(colours)
    adapt_channels(model, 6, "it")
    torch.testing.assert_close(model(colours.repeat(1, 2, 1, 1)), expected)
    assert torch.equal(model[0].bias, bias)


def test_more_channels_keep_the_size_of_activations():
    model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False))
    constant = torch.ones(1, 5, 6, 6)
    before = model(constant[:, :3]).abs().mean()
    adapt_channels(model, 5, "it")
    assert 0.5 < model(constant).abs().mean() / before < 2


def test_a_first_convolution_in_groups_is_refused():
    with pytest.raises(UsageError, match="3 groups"):
        adapt_channels(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)), 1, "it")
