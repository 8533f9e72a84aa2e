"""Models: a head or a U-Net behind a body, groups of parameters, and models made again."""

import json

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_vision import ConcatPool, Normalize, groups, image_model
from trainbus_vision.model import rebuild
from trainbus_vision.unet import Doubled


def test_a_model_takes_bytes_and_gives_its_outputs():
    model = image_model("small_cnn", 5, 1, (28, 28))
    assert isinstance(next(iter(model.children())), Normalize)
    assert model(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 5)


def test_the_pool_gives_means_and_maxima():
    maps = torch.rand(2, 3, 4, 5)
    pooled = ConcatPool()(maps)
    torch.testing.assert_close(pooled[:, :3], maps.mean((2, 3)))
    torch.testing.assert_close(pooled[:, 3:], maps.flatten(2).max(2).values)


def test_the_last_layer_of_the_head_for_transfer_has_a_bias():
    model = image_model("small_cnn", 5, 1, (28, 28), dropout=0.5)
    last = model.network.head[-1]
    assert last.bias is not None and last.in_features == 512


def test_every_parameter_is_in_one_group_and_the_head_in_the_last():
    model = image_model("resnet18", 5, 3, (32, 32), pretrained=False)
    parts = groups(model)
    ids = [id(parameter) for part in parts for parameter in part]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert {id(p) for p in parts[-1]} == {id(p) for p in model.network.head.parameters()}


def test_the_body_of_a_resnet_is_halved_after_its_second_stage():
    from torchvision import models

    model = image_model("resnet18", 5, 3, (32, 32), pretrained=False)
    plain = models.resnet18()
    early = nn.ModuleList([plain.conv1, plain.bn1, plain.layer1, plain.layer2])
    assert sum(p.numel() for p in groups(model)[0]) == sum(p.numel() for p in early.parameters())


def test_a_model_is_made_again_from_its_description():
    model = image_model("resnet18", 5, 1, (32, 32), pretrained=False, dropout=0.2).eval()
    again = rebuild(**json.loads(json.dumps(model.description))).eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(again(images), model(images))


def test_a_module_that_gives_the_outputs_is_taken_whole():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    model = image_model(net, 2, 3, (8, 8))
    assert model.network is net and model.description is None


def test_a_whole_module_gets_the_weights_of_a_file():
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).state_dict(), "mine.pth")
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    model = image_model(net, 2, 3, (8, 8), weights="mine.pth")
    expected = torch.load("mine.pth", weights_only=True)["1.weight"]
    assert model.pretrained and torch.equal(net[1].weight, expected)


def test_three_outputs_for_two_classes_are_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    with pytest.raises(UsageError, match=r"3 outputs.*needs 2.*head='new'"):
        image_model(net, 2, 3, (8, 8))
    with pytest.raises(UsageError, match=r"3 outputs.*needs 2"):
        image_model(net, 2, 3, (8, 8), head="whole")


def test_the_classifier_of_a_module_is_replaced_where_that_is_said():
    from torchvision import models

    model = image_model(models.resnet18(num_classes=7), 2, 3, (32, 32), head="new")
    assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 2)


def test_a_head_of_ones_own_is_used():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 4))
    model = image_model("small_cnn", 4, 1, (28, 28), head=head)
    assert model.network.head is head


def test_a_module_for_other_channels_is_refused():
    with pytest.raises(UsageError, match=r"3 channels, the data has 1.*Image\(3\)"):
        image_model(nn.Sequential(nn.Conv2d(3, 8, 3)), 2, 1, (8, 8))


def test_dropout_is_a_part_of_the_whole():
    with pytest.raises(UsageError, match=r"dropout=1.5"):
        image_model("small_cnn", 2, 1, (28, 28), dropout=1.5)


# --- U-Nets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
def test_a_unet_gives_outputs_for_each_pixel_of_any_size(size):
    model = image_model("resnet18", 4, 3, size, pixels=True, pretrained=False).eval()
    assert model(torch.rand(1, 3, *size)).shape == (1, 4, *size)
    assert model(torch.rand(1, 3, 45, 33)).shape == (1, 4, 45, 33)


def test_a_unet_joins_every_size_that_the_body_has():
    model = image_model("resnet18", 4, 3, (64, 64), pixels=True, pretrained=False)
    sizes = [maps.shape[-1] for maps in model.network.body.maps(torch.rand(2, 3, 64, 64))]
    assert sizes == [32, 16, 8, 4, 2]
    assert len(model.network.steps) == 4


def test_neighbours_are_alike_when_pixels_are_first_rearranged():
    layer = Doubled(8, 4).eval()
    maps = layer(torch.rand(1, 8, 3, 3))
    blocks = maps.reshape(1, 4, 3, 2, 3, 2)
    torch.testing.assert_close(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))


def test_a_unet_on_timm():
    pytest.importorskip("timm")
    model = image_model("timm/resnet10t", 3, 3, (40, 32), pixels=True, pretrained=False).eval()
    assert model(torch.rand(1, 3, 40, 32)).shape == (1, 3, 40, 32)


def test_a_body_of_one_resolution_makes_no_unet():
    with pytest.raises(UsageError, match="no maps in several sizes"):
        image_model("vit_b_32", 3, 3, (32, 32), pixels=True, pretrained=False)
