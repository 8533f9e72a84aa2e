"""Bodies: cut by rule from torchvision's networks, timm's, and modules that are given."""

import sys

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_vision import Body, backbone
from trainbus_vision.backbone_pieces import check_cut, pieces_of
from trainbus_vision.libraries import torchvision_names

QUICK = ("resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5", "densenet121")
FAMILIES = (
    "alexnet", "vgg11_bn", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_s", "swin_t",
    "swin_v2_t", "maxvit_t", "mnasnet0_5", "regnet_x_400mf", "googlenet", "inception_v3",
    "convnext_tiny", "resnext50_32x4d", "wide_resnet50_2",
)  # fmt: skip


def compare(name):
    from torchvision import models

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, **options)
    side = 224 if name.startswith("maxvit") else 96
    check_cut(model, pieces_of(model), torch.rand(1, 3, side, side))


@pytest.mark.parametrize("name", QUICK)
def test_the_pieces_of_a_network_compute_what_its_classifier_sees(name):
    compare(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_pieces_of_each_family_compute_what_its_classifier_sees(name):
    compare(name)


@pytest.mark.parametrize("size", [(28, 28), (37, 51), (8, 64)])
def test_images_of_any_size_go_through_a_resnet(size):
    body = backbone("resnet18", 1, size, pretrained=False).body
    assert body(torch.rand(2, 1, *size)).shape[:2] == (2, 512)


def test_images_go_through_a_vision_transformer_at_a_size_that_its_patches_fill():
    body = backbone("vit_b_32", 3, (40, 30), pretrained=False).body
    assert body.fixed == (64, 64)
    assert not body.gives_maps
    assert body.eval()(torch.rand(1, 3, 40, 30)).shape == (1, 768)


def test_maps_whose_channels_are_last_are_turned_round():
    body = backbone("swin_t", 3, (64, 48), pretrained=False).body.eval()
    shapes = [tuple(maps.shape[1:]) for maps in body.maps(torch.rand(1, 3, 64, 48))]
    assert shapes == [(96, 16, 12), (192, 8, 6), (384, 4, 3), (768, 2, 2)]


def test_tokens_become_their_mean():
    class Tokens(nn.Module):
        def forward(self, images):
            return images.flatten(2).transpose(1, 2)

    body = Body([Tokens()], 3, (4, 4))
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(body(images), images.mean((2, 3)))


def test_exploring_leaves_the_modes_of_modules_alone():
    norm = nn.BatchNorm2d(3)
    norm.eval()
    body = Body([norm, nn.ReLU()], 3, (8, 8))
    assert not norm.training and body.pieces[1].training
    assert not norm.running_mean.any()


def test_a_module_is_cut_before_its_pooling():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.avgpool(self.conv(x)).flatten(1))

    found = backbone(Net(), 3, (16, 16))
    assert found.body(torch.rand(1, 3, 16, 16)).shape == (1, 8, 14, 14)


def test_a_module_that_does_something_else_is_not_cut_silently():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.avgpool(self.conv(x) * 2).flatten(1))

    with pytest.raises(UsageError, match="cannot be cut"):
        backbone(Net(), 3, (16, 16))


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(UsageError, match="'resnet18'"):
        backbone("resnet81", 3, (64, 64), pretrained=False)


def test_what_is_no_network_is_refused():
    with pytest.raises(UsageError, match="give the name of a network"):
        backbone(18, 3, (64, 64))


def test_images_that_are_too_small_tell_what_size_is_enough():
    with pytest.raises(UsageError, match=r"8 x 8 pixels.* 24 x 24 and more"):
        backbone("squeezenet1_1", 3, (8, 8), pretrained=False)
    assert backbone("squeezenet1_1", 3, (24, 24), pretrained=False)


def test_a_module_for_other_channels_is_refused():
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    with pytest.raises(UsageError, match="3 channels"):
        backbone(body, 1, (16, 16))


def test_small_cnn_has_no_weights_to_ask_for():
    with pytest.raises(UsageError, match="no pretrained weights"):
        backbone("small_cnn", 1, (28, 28), pretrained=True)


def test_a_name_without_timm_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm"):
        backbone("timm/resnet26d", 3, (64, 64))
    with pytest.raises(UsageError, match=r"nearest are 'resnet18'.*timm"):
        backbone("resnet19", 3, (64, 64))


def test_networks_of_timm_give_maps_or_vectors():
    pytest.importorskip("timm")
    maps = backbone("timm/resnet10t", 1, (64, 64), pretrained=False).body
    assert maps.gives_maps and maps.features == 512
    vector = backbone("vit_tiny_patch16_224", 3, (40, 40), pretrained=False).body
    assert not vector.gives_maps and vector.fixed == (224, 224)


def test_torchvision_has_classifiers_alone():
    names = torchvision_names()
    assert "resnet18" in names and "fcn_resnet50" not in names


def kinds(size):
    return [type(piece).__name__ for piece in backbone("resnet18", 1, size, False).body.pieces]


def test_for_small_images_a_resnet_pools_after_its_first_stage():
    small, large = kinds((28, 28)), kinds((64, 64))
    assert large[:6] == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "BasicBlock", "BasicBlock"]
    assert small[:6] == ["Conv2d", "BatchNorm2d", "ReLU", "BasicBlock", "BasicBlock", "MaxPool2d"]
    assert small[6:] == large[6:]


def test_a_network_without_stages_that_stride_keeps_its_pooling_for_small_images():
    sizes = ((32, 32), (64, 64))
    one, other = (backbone("squeezenet1_1", 1, size, False).body.pieces for size in sizes)
    assert [type(piece) for piece in one] == [type(piece) for piece in other]
