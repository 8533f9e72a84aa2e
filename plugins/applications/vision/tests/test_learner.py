"""ImageLearner: every kind of target is learned, and what was chosen is said."""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import nn

from trainbus import UsageError, hookimpl
from trainbus_learner import load
from trainbus_vision import ImageLearner, mnist

OFF = ["-progress", "-journal", "-manifest"]
KINDS = {
    "category": ("accuracy", 0.9),
    "categories": (None, None),
    "number": (None, None),
    "mask": ("pixel_accuracy", 0.9),
    "points": (None, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_is_learned(make_data, kind):
    learner = ImageLearner(make_data(kind), "small_cnn", seed=0, plugins=OFF)
    before = learner.validate()["loss"]
    learner.fine_tune(12, lr=1e-2)
    after = learner.validate()
    assert after["loss"] < before / 3
    metric, least = KINDS[kind]
    assert metric is None or after[metric] >= least


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_target_is_predicted_and_shown(make_data, kind):
    learner = ImageLearner(make_data(kind), "small_cnn", plugins=OFF)
    prediction = learner.predict(torch.zeros(3, 16, 16, dtype=torch.uint8))
    assert prediction.value.shape == make_data(kind).one_batch()[1].shape[1:]
    learner.show_batch(2).savefig("batch.png")
    learner.show_results(2).savefig("results.png")


def test_a_file_of_another_size_and_kind_is_predicted(write_idx):
    write_idx(Path("data"))
    learner = ImageLearner(mnist("data"), "small_cnn", plugins=OFF)
    Image.new("RGB", (90, 50)).save("seven.png")
    assert learner.predict("seven.png").label in learner.data.vocab


def test_what_was_chosen_is_said(make_data):
    learner = ImageLearner(make_data(), "resnet18", plugins=OFF)
    summary = learner.summary()
    assert "resnet18 for 3 x 16 x 16 in bytes, 2 outputs" in summary
    assert "from scratch: images of 16 x 16" in summary
    assert "none: images of 16 x 16 pixels are smaller than 64" in summary
    assert "0.003 (usual for a network with batch norm" in summary


def test_photos_are_augmented_in_training_and_small_images_are_not(make_data):
    photos = ImageLearner(make_data(size=64), "small_cnn", plugins=OFF)
    small = ImageLearner(make_data(), "small_cnn", plugins=OFF)
    assert [type(each).__name__ for each in photos.plugins[:1]] == ["Augment"]
    assert small.plugins == OFF
    photos.fine_tune(1)


def test_augmentation_is_what_one_says(make_data):
    from trainbus_augment import Flip

    data = make_data(size=64)
    none = ImageLearner(data, "small_cnn", augment=False, plugins=OFF)
    flip = ImageLearner(data, "small_cnn", augment=[Flip(0.5)], plugins=OFF)
    assert none.plugins == OFF
    assert "Flip" in flip.choices["augmentation"]
    with pytest.raises(UsageError, match="augment="):
        ImageLearner(data, "small_cnn", augment="flip")
    with pytest.raises(UsageError, match="both"):
        ImageLearner(data, "small_cnn", augment=True, plugins=["augment"])


def test_pretrained_weights_are_fine_tuned_behind_a_frozen_phase(make_data, offline):
    from torchvision import models

    class Watch:
        plugin_name = "watch"
        trained: ClassVar[list[bool]] = []

        @hookimpl
        def on_train_epoch_start(self, run):
            self.trained.append(run.task.model.network.body.pieces[0].weight.requires_grad)

    torch.save(models.resnet18().state_dict(), "mine.pth")
    learner = ImageLearner(
        make_data(), "resnet18", weights="mine.pth", augment=False, plugins=[*OFF, Watch()]
    )
    assert learner.pretrained
    learner.fine_tune(1)
    assert Watch.trained == [False, True]


def test_a_module_is_an_architecture(make_data):
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    ImageLearner(make_data(), body, plugins=OFF).fine_tune(1)


def test_data_that_it_cannot_learn_from_are_refused(make_data):
    with pytest.raises(UsageError, match="give a Data"):
        ImageLearner([1, 2], "small_cnn")
    with pytest.raises(UsageError, match=r"3 outputs.*needs 2"):
        ImageLearner(make_data(), nn.Sequential(nn.Flatten(), nn.Linear(768, 3)))


def test_an_export_is_built_again_by_its_description(make_data):
    learner = ImageLearner(make_data(), "resnet18", plugins=OFF)
    image = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    learner.export("model")
    expected = learner.predict(image).probabilities
    torch.testing.assert_close(load("model").predict(image).probabilities, expected)


PROGRAM = """
import sys, torch
program = torch.export.load(sys.argv[1]).module()
torch.save(program(torch.load("images.pt")), "outputs.pt")
strange = [name for name in sys.modules if name.split(".")[0].startswith("trainbus")]
sys.exit(", ".join(strange) or 0)
"""


def exported_gives_the_same(learner):
    """Compare the model with its export, run by a process that has only torch."""
    images = learner.data.one_batch("valid")[0][:2]
    torch.save(images, "images.pt")
    folder = learner.export("model", format="torch.export")
    file = next(Path(folder).glob("*.pt2"))
    code = [sys.executable, "-c", PROGRAM, str(file)]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    learner.model.eval()
    with torch.no_grad():
        expected = learner.model(images)
    torch.testing.assert_close(torch.load("outputs.pt"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_export_needs_only_torch(make_data):
    exported_gives_the_same(ImageLearner(make_data(), "small_cnn", plugins=OFF))


@pytest.mark.slow
def test_a_unet_is_exported_too(make_data):
    exported_gives_the_same(ImageLearner(make_data("mask"), "resnet18", plugins=OFF))


def test_the_header_says_each_choice_once_and_the_summary_says_why(make_data):
    learner = ImageLearner(make_data(), "small_cnn", plugins=["-progress"])
    run = learner.fit(1)
    what = "small_cnn for 3 x 16 x 16 in bytes, 2 outputs"
    assert run.header["network"] == f"{what}, trained from scratch"
    assert run.header["loss"] == "cross_entropy (usual for Category); metrics: accuracy"
    assert len(run.header) <= 8  # the core's five among them
    assert not {"weights", "normalization", "augmentation"} & set(run.header)
    for topic in ("weights", "normalization", "augmentation", "optimizer"):
        assert learner.choices[topic] in learner.summary()
        assert run.task.hparams[topic] == learner.choices[topic]


def test_the_plugin_augment_is_known_by_its_name(make_data):
    augment = pytest.importorskip("trainbus_augment")
    for plugin in ("augment", augment.Augment()):
        learner = ImageLearner(make_data(), "small_cnn", plugins=["-progress", plugin])
        assert learner.choices["augmentation"] == "by the plugin named"
        with pytest.raises(UsageError, match="here are both"):
            ImageLearner(make_data(), "small_cnn", augment=True, plugins=[plugin])


class Perfect(nn.Module):
    """Says dark or bright of each pixel, and is right."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x):
        bright = x[:, :1] * 2 - 1
        return torch.cat((-bright, bright), 1) * self.w


def half_void(size=8, count=8):
    from trainbus_data import Data
    from trainbus_vision import Image as ImageBlock, Mask

    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    masks = torch.zeros(count, size, size, dtype=torch.int64)
    images[:, :, size // 2 :], masks[:, size // 2 :] = 255, 1
    masks[:, :, : size // 2] = 2
    blocks = (ImageBlock(), Mask(["dark", "bright", "void"], ignore=2))
    return Data.from_tensors((images, masks), (images, masks), blocks=blocks)


def test_pixels_that_are_ignored_are_in_no_report():
    """A perfect model has precision 1, no row of what is ignored, and the IoU of each class."""
    from trainbus_learner import Learner

    learner = Learner(half_void(), Perfect(), metrics=["accuracy", "error_rate"], plugins=OFF)
    assert learner.validate()["accuracy"] == 1
    assert learner.validate()["error_rate"] == 0
    found = learner.interpret()
    assert found.confusion_matrix().tolist() == [[128, 0], [0, 128]]
    assert set(found.per_class()) == {"dark", "bright"}
    assert {row[name] for row in found.per_class().values() for name in ("precision", "iou")} == {1}
    assert "iou" in found.report()


def test_the_classes_of_a_mask_by_their_probability():
    """The mean over the pixels, the most probable first; points have none."""
    learner = ImageLearner(half_void(32), "resnet18", pretrained=False, plugins=OFF)
    top = learner.predict(torch.zeros(3, 32, 32, dtype=torch.uint8)).top(5)
    assert {word for word, _ in top} == {"dark", "bright"}
    assert sum(value for _, value in top) == pytest.approx(1)
    assert top[0][1] >= top[1][1]


def test_points_have_none_that_are_most_probable(make_data):
    learner = ImageLearner(make_data("points"), "small_cnn", plugins=OFF)
    assert learner.predict(torch.zeros(3, 16, 16, dtype=torch.uint8)).top() == []


def test_points_are_not_mirrored_by_default(make_data):
    """A left point would be called right; it is said, and a list of one's own may mirror."""
    from trainbus_augment import Flip

    def mirrors(learner):
        return any(isinstance(each, Flip) for each in learner.plugins[0].transforms)

    points = ImageLearner(make_data("points", size=64), "small_cnn", plugins=OFF)
    assert not mirrors(points)
    assert "no mirror" in points.choices["augmentation"]
    assert mirrors(ImageLearner(make_data(size=64), "small_cnn", plugins=OFF))


def test_points_of_a_crop_are_scaled_by_its_size(make_data, caplog):
    """Training sees smaller images than validation: the points fit, and it is said once."""
    from trainbus_augment import Crop

    crop = Crop(8, scale=(1, 1), ratio=(1, 1))
    learner = ImageLearner(make_data("points"), "small_cnn", augment=[crop], plugins=OFF)
    target = torch.tensor([[[4.0, 2.0]]])
    images = torch.zeros(1, 3, 8, 8)
    assert learner.data.target.fitted(target, (images,)).tolist() == [[[8.0, 4.0]]]
    learner.fit(1)
    learner.fit(1)
    assert caplog.text.count("training sees images of 8 x 8, and validation of 16 x 16") == 1


def test_the_seed_is_of_the_weights_too(make_data):
    """Two learners with one seed are equal, and the generator is where it was."""
    before = torch.get_rng_state()
    learners = [ImageLearner(make_data(), "small_cnn", seed=3, plugins=OFF) for _ in range(2)]
    for one, other in zip(*(learner.model.parameters() for learner in learners), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_goes_on_with_its_one_normalization(make_data):
    """As `arch` of another learner, and with larger images for the same learner."""
    first = ImageLearner(make_data(), "small_cnn", plugins=OFF)
    first.fit(1)
    again = ImageLearner(make_data(), first.model, plugins=OFF)
    assert again.validate() == first.validate()
    names = [type(each).__name__ for each in again.model.modules()]
    assert names.count("Normalize") == 1
    first.data = make_data(size=32)
    assert "for 3 x 32 x 32" in first.choices["network"]
    assert first.fit(1).status == "completed"
    with pytest.raises(UsageError, match="gives 2 outputs"):
        ImageLearner(make_data("points"), first.model, plugins=OFF)
    fresh = ImageLearner(make_data("points"), first.model, head="new", plugins=OFF)
    assert fresh.model.network.body is first.model.network.body
    assert fresh.fit(1).status == "completed"


@pytest.mark.parametrize("kind", ["category", "points"])
def test_weights_of_ones_own_are_a_start(make_data, kind):
    """An export, its file, and a state_dict; a head of another size is new, which is said."""
    first = ImageLearner(make_data(), "small_cnn", plugins=OFF)
    first.export("model")
    torch.save(first.model.state_dict(), "own.pth")
    for file in ("model", "model/weights.safetensors", "own.pth"):
        learner = ImageLearner(make_data(kind), "small_cnn", weights=file, plugins=OFF)
        body = learner.model.network.body.state_dict()
        for name, tensor in first.model.network.body.state_dict().items():
            assert torch.equal(body[name], tensor)
        assert learner.pretrained
        new = "2 tensors of the head are new" if kind == "points" else "the head's too"
        assert learner.choices["weights"] == f"weights from {file}" + (
            f"; {new}" if kind == "points" else f", {new}"
        )
    with pytest.raises(UsageError, match="another architecture"):
        ImageLearner(make_data(), "resnet18", weights="own.pth", plugins=OFF)
