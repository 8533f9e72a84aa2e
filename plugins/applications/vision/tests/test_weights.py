"""Pretrained weights: from the cache, from a file, or the reason why there are none."""

import time
from pathlib import Path

import pytest
import torch

from trainbus import UsageError
from trainbus_vision import NoWeights, backbone, image_model

FILE = "resnet18-f37072fd.pth"


def save_resnet(path, name="resnet18"):
    """What torchvision would have downloaded, of chance."""
    from torchvision import models

    model = models.get_model(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def cache():
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def test_weights_in_the_cache_are_taken_without_a_network(offline):
    model = save_resnet(cache())
    found = backbone("resnet18", 3, (64, 64))
    images = torch.rand(2, 3, 64, 64)
    seen = []
    model.avgpool.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    model(images)
    torch.testing.assert_close(found.body.eval()(images), seen[0])
    assert found.pretrained and str(cache()) in found.why


def test_weights_that_cannot_be_had_say_which_file_goes_where(offline):
    since = time.monotonic()
    with pytest.raises(NoWeights) as problem:
        backbone("resnet18", 3, (64, 64), pretrained=True)
    assert time.monotonic() - since < 5
    message = str(problem.value)
    assert str(cache()) in message and f"/{FILE}" in message and "weights=" in message


def test_without_them_the_rule_is_to_train_from_scratch_and_to_say_so(offline):
    found = backbone("resnet18", 3, (64, 64))
    assert not found.pretrained
    assert "from scratch" in found.why and FILE in found.why


def test_small_images_are_trained_from_scratch():
    save_resnet(cache())
    found = backbone("resnet18", 1, (28, 28))
    assert not found.pretrained and "28 x 28 pixels are smaller" in found.why


def test_a_file_is_taken_in_their_place():
    save_resnet(Path("mine.pth"))
    found = backbone("resnet18", 1, (28, 28), weights="mine.pth")
    assert found.pretrained and found.why.startswith("weights from mine.pth")


def test_the_classifier_of_a_file_may_have_other_classes():
    save_resnet(Path("mine.pth"))
    tensors = torch.load("mine.pth", weights_only=True)
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(7, 512), torch.zeros(7)
    torch.save(tensors, "mine.pth")
    assert backbone("resnet18", 3, (64, 64), weights="mine.pth").pretrained


def test_weights_of_another_architecture_are_refused():
    save_resnet(Path("mine.pth"))
    with pytest.raises(UsageError, match=r"another architecture than resnet34.*missing"):
        backbone("resnet34", 3, (64, 64), weights="mine.pth")


def test_a_file_that_is_missing_or_holds_something_else_is_refused():
    with pytest.raises(UsageError, match="no such file"):
        backbone("resnet18", 3, (64, 64), weights="none.pth")
    torch.save({"epoch": 3}, "other.pth")
    with pytest.raises(UsageError, match="no weights by name"):
        backbone("resnet18", 3, (64, 64), weights="other.pth")
    Path("broken.pth").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="cannot be read"):
        backbone("resnet18", 3, (64, 64), weights="broken.pth")


def test_contradictions_are_refused():
    with pytest.raises(UsageError, match="contradict"):
        backbone("resnet18", 3, (64, 64), pretrained=False, weights="mine.pth")


def test_pretrained_models_normalize_as_imagenet_does_and_others_as_the_data():
    save_resnet(cache())
    stats = ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    knows = image_model("resnet18", 2, 3, (64, 64), stats=stats)
    learns = image_model("resnet18", 2, 3, (64, 64), stats=stats, pretrained=False)
    assert knows.normalize.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert learns.normalize.mean.tolist() == pytest.approx(stats[0])


@pytest.mark.slow
def test_the_positions_of_a_vision_transformer_fit_another_size(offline):
    from torchvision import models

    model = models.vit_b_32()
    path = Path("vit.pth")
    torch.save(model.state_dict(), path)
    found = backbone("vit_b_32", 3, (96, 96), weights=path)
    assert found.body(torch.rand(1, 3, 96, 96)).shape == (1, 768)


def test_weights_for_timm_are_read_from_a_file():
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet10t").state_dict(), "timm.pth")
    assert backbone("timm/resnet10t", 1, (64, 64), weights="timm.pth").pretrained
    with pytest.raises(UsageError, match="another architecture"):
        backbone("timm/resnet18", 3, (64, 64), weights="timm.pth")
