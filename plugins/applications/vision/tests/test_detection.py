"""Object detection: boxes are learned, moved, measured, drawn, predicted and exported."""

import logging

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus_data import Data, Labels, splits
from trainbus_learner import load
from trainbus_vision import Box, Boxes, DetectionLearner, Detections, Image, detection, detector

OFF = ["-progress", "-journal", "-manifest"]


def bright_squares(count=24, side=32):
    """Dark images with a bright square each, or none in every fifth: red ones and blue ones."""
    draw = np.random.default_rng(0)
    images, boxes, labels = [], [], []
    for number in range(count):
        image = draw.integers(0, 40, (side, side, 3)).astype(np.uint8)
        left, top = draw.integers(0, side - 12, 2)
        kind = number % 2
        there = number % 5 != 4
        if there:
            image[top : top + 12, left : left + 12, 2 * kind] = 250
        images.append(image)
        boxes.append([[left, top, left + 12, top + 12]] if there else [])
        labels.append([("red", "blue")[kind]] if there else [])
    return images, boxes, labels


def squares(count=24, **options):
    options = {"split": splits.by_index(range(4)), "size": 32, "memory": True, **options}
    return detection(*bright_squares(count), **options)


@pytest.fixture
def learner():
    return DetectionLearner(squares(), "small_fcos", seed=0, plugins=OFF)


def perfect(target):
    return torch.cat((target, torch.ones(*target.shape[:2], 1)), dim=2)


@pytest.mark.slow
def test_it_learns_to_find_boxes(learner):
    """The loss falls, the boxes are found, and each verb works on them."""
    before = learner.validate()
    assert set(before) == {"loss", "map", "map_50"}
    learner.fit_one_cycle(25, lr=4e-3)
    after = learner.validate()
    assert after["loss"] < before["loss"] / 2
    assert after["map_50"] > 0.5
    assert learner.validate() == after
    found = learner.interpret()
    assert set(found.per_class()) == {"red", "blue"}
    assert "ap_50" in found.report()
    assert found.worst(1)[0].loss == pytest.approx(float(found.losses.max()))


def test_measuring_changes_nothing(learner):
    """Neither random numbers, nor statistics of norms, nor modes."""
    learner.model.train()
    state = torch.get_rng_state()
    statistics = [each.clone() for each in learner.model.buffers()]
    learner.validate()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, statistics, learner.model.buffers()))
    assert all(module.training for module in learner.model.modules())


def test_every_verb_that_trains_works(learner):
    before = learner.validate()["loss"]
    assert learner.fit(2, lr=3e-3).status == "completed"
    assert learner.validate()["loss"] < before
    assert learner.fine_tune(1).status == "completed"
    assert learner.find_lr(steps=20).suggestion
    header = learner.run.header
    assert header["network"] == "small_fcos for 3 x 32 x 32, 2 labels, trained from scratch"
    assert "the detector's own" in header["loss"]


def test_pictures_show_targets_and_what_is_found(learner):
    batch = learner.show_batch(4)
    assert sum(len(axes.patches) for axes in batch.axes) >= 2
    results = learner.show_results(3)
    assert results._supxlabel.get_text() == "target green, prediction red"
    assert "loss" in learner.interpret().plot_worst(2).axes[0].get_title()


def test_the_plugin_draws_them_too(learner, tmp_path):
    watched = DetectionLearner(
        squares(), "small_fcos", plugins=["-progress", "vision"], run_dir=tmp_path / "runs"
    )
    run = watched.fit(1)
    assert list(run.dir.rglob("*.png"))


class Always(torch.nn.Module):
    """Finds one red box, in pixels of the model's images."""

    def __init__(self, box):
        super().__init__()
        self.box = torch.nn.Parameter(torch.tensor([box]))

    def forward(self, images, targets=None):
        if targets is not None:
            return {"loss": self.box.sum()}
        one = {"boxes": self.box, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
        return [one for _ in images]


def test_predicted_boxes_are_in_pixels_of_the_photo():
    """Of a wide photo with black above and below: moved, scaled, and cut at its edges."""
    learner = DetectionLearner(squares(), Always([8.0, 12.0, 16.0, 20.0]), plugins=OFF)
    photo = np.zeros((100, 200, 3), np.uint8)  # 32 x 16 in the middle of 32 x 32
    prediction = learner.predict(photo)
    (box,) = prediction.label
    assert box[:2] == (learner.data.vocab[0], pytest.approx(0.9))
    assert box[2:] == pytest.approx((50, 25, 100, 75))
    assert prediction.value[0, :4].tolist() == [8, 12, 16, 20]
    assert (prediction.probability, prediction.top()) == (None, [])
    outside = DetectionLearner(squares(), Always([-4.0, 0.0, 40.0, 32.0]), plugins=OFF)
    (box,) = outside.predict(photo).label
    assert box[2:] == pytest.approx((0, 0, 200, 100))


def test_boxes_of_little_certainty_are_not_shown():
    block = Detections(Labels(["a", "b"]), min_score=0.5)
    value = torch.tensor([[0, 0, 9, 9, 1, 0.7], [0, 0, 9, 9, 0, 0.4], [torch.nan] * 6])
    assert block.decode(value) == [Box("b", pytest.approx(0.7), 0, 0, 9, 9)]
    assert str(block.decode(value)[0]) == "b 70% (0, 0, 9, 9)"
    assert len(Detections(Labels(["a", "b"]), min_score=0.3).decode(value)) == 2
    with pytest.raises(UsageError, match="0 to 1"):
        Boxes(min_score=50)


def test_mistakes_are_what_is_missed_false_or_beside():
    block = Detections(Labels(["a", "b"]))
    target = torch.tensor([[[0, 0, 10, 10, 0], [20.0, 20, 30, 30, 1]]])
    mistakes = block.loss()
    assert mistakes(perfect(target), target) == 0
    assert mistakes(perfect(target)[:, :1], target) == 1
    assert mistakes(perfect(target), target[:, :1]) == 1
    other = perfect(target).clone()
    other[0, 0, 4] = 1  # the wrong label: one missed, one false
    assert mistakes(other, target) == 2
    near = perfect(target).clone()
    near[0, 0, 2] = 8
    assert float(mistakes(near, target)) == pytest.approx(0.2)


def test_an_export_predicts_the_same(learner, offered):
    learner.fit(1)
    photo = bright_squares(1)[0][0]
    learner.export("model")
    expected = learner.predict(photo).value
    torch.testing.assert_close(load("model").predict(photo).value, expected, equal_nan=True)


@pytest.fixture
def offered():
    """Skips where the distribution was installed before it offered its detectors."""
    from importlib.metadata import entry_points

    if "detector" not in entry_points(group="trainbus.models").names:
        pytest.skip("install trainbus-vision again: its entry points are older")


def test_weights_are_a_start_for_other_labels(learner):
    """All but the outputs; those are taken for the same labels alone."""
    learner.export("model")
    place = learner.save("kept.pth")
    same = DetectionLearner(squares(), "small_fcos", weights="model", plugins=OFF)
    assert "the head's too" in same.choices["weights"]
    assert same.validate() == learner.validate()
    images, boxes, labels = bright_squares()
    renamed = [["x" if word == "red" else "y" for word in words] for words in labels]
    data = detection(images, boxes, renamed, size=32)
    other = DetectionLearner(data, "small_fcos", weights="model", plugins=OFF)
    assert "tensors of the head are new: its classes are others" in other.choices["weights"]
    three = detection(images, boxes, renamed, size=32, vocab=["x", "y", "z"])
    third = DetectionLearner(three, "small_fcos", plugins=OFF)
    assert third.load_weights(place).new
    assert third.pretrained
    body = "network.backbone.body.layers.0.0.weight"
    assert torch.equal(third.model.state_dict()[body], learner.model.state_dict()[body])


def published(arch, path):
    """A file as torchvision publishes them: for the 91 classes of COCO."""
    from torchvision import models

    torch.manual_seed(1)
    network = models.get_model(arch, weights=None, weights_backbone=None)
    torch.save(network.state_dict(), path)
    return network


@pytest.mark.parametrize(
    "arch", ["fasterrcnn_mobilenet_v3_large_320_fpn", "ssdlite320_mobilenet_v3_large"]
)
def test_torchvisions_own_weights_are_taken_from_a_file(arch):
    """All of them but the outputs for classes; one step of training, and a prediction."""
    network = published(arch, "coco.pth")
    learner = DetectionLearner(squares(8), arch, weights="coco.pth", augment=False, plugins=OFF)
    assert learner.pretrained
    assert "its classes are others" in learner.choices["weights"]
    own, theirs = learner.model.network.state_dict(), network.state_dict()
    same = [name for name in own if torch.equal(own[name], theirs.get(name, torch.empty(0)))]
    assert len(same) > 0.8 * len(own)
    assert learner.fit(1).status == "completed"
    assert isinstance(learner.predict(bright_squares(1)[0][0]).label, list)
    images = learner.data.one_batch()[0].float() / 255
    learner.model(images)
    transform = learner.model.network.transform
    assert transform.fixed_size or transform.min_size == (32,)  # no photo is made larger


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", "ssd300_vgg16"])
def test_every_kind_of_detector_of_torchvision_trains(arch):
    learner = DetectionLearner(
        squares(8, batch_size=2), arch, pretrained=False, augment=False, plugins=OFF
    )
    assert learner.fit(1).status == "completed"
    assert set(learner.validate()) == {"loss", "map", "map_50"}


def test_without_a_network_it_says_which_file_is_missing(offline):
    with pytest.raises(UsageError, match=r"fcos_resnet50_fpn.*no file"):
        detector("fcos_resnet50_fpn", ["a"], pretrained=True)
    assert not detector("small_fcos", ["a"]).pretrained


def test_boxes_follow_the_augmentation_and_stay_right():
    """Mirrored with their image: a box is where the bright square is, whatever was done."""
    data = squares(24, batch_size=20)
    learner = DetectionLearner(data, "small_fcos", augment=True, plugins=OFF)
    from trainbus_learner.evaluation import seen_batch

    (images,), target = learner.source.split(seen_batch(learner))
    for image, rows in zip(images, target, strict=True):
        bright = (image[[0, 2]].amax(0) > 0.5).nonzero()
        rows = rows[~rows.isnan().any(1)]
        if not len(rows):
            continue
        low, high = bright.amin(0).flip(0), bright.amax(0).flip(0) + 1
        assert rows[0, :2].tolist() == pytest.approx(low.tolist(), abs=1.5)
        assert rows[0, 2:4].tolist() == pytest.approx(high.tolist(), abs=1.5)


def test_what_cannot_be_found_is_refused(make_data, caplog):
    images, boxes, labels = bright_squares(8)
    cases = [
        (lambda: DetectionLearner(make_data(), "small_fcos"), "needs boxes with labels"),
        (lambda: DetectionLearner(squares(), "fasterrcnn"), "the nearest are 'fasterrcnn_"),
        (lambda: DetectionLearner(squares(), "small_fcos", loss="focal"), "has its own"),
        (lambda: DetectionLearner(squares(), "small_fcos", pretrained=True), "no pretrained"),
        (lambda: detection(images, boxes[:3], labels), "8 images, boxes for 3 and labels for 8"),
        (lambda: detection(images, boxes, [["a", "b"]] * 8).one_batch(), "2 labels for"),
    ]
    for make, message in cases:
        with pytest.raises(UsageError, match=message):
            make()


def test_boxes_with_labels_are_one_target_of_any_data():
    """From a list, by blocks; a model of your own gets N x K x 5."""
    images, boxes, labels = bright_squares(8)
    data = squares(8)
    assert isinstance(data.target, Detections)
    assert data.vocab == ["blue", "red"]
    batch = data.one_batch()
    packed = data.target.pack(batch[1:])
    assert packed.shape == (len(batch[0]), 1, 5)
    assert packed.isnan().all(dim=-1).sum() == 1  # the one image without a box
    blocks = (Image(), Boxes(), Labels())
    tensors = Data.from_tensors(
        (np.stack(images), boxes, labels), (np.stack(images), boxes, labels), blocks=blocks
    )
    assert isinstance(tensors.target, Detections)


def test_the_demo_has_scenes_whose_boxes_are_tight():
    from trainbus_vision.demo_detection import scene

    for seed in range(5):
        image, boxes, labels = scene(np.random.default_rng(seed))
        bright = np.asarray(image).max(axis=2) > 125
        for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
            inside = bright[top:bottom, left:right]
            assert inside.any(0).all() and inside.any(1).all(), label


@pytest.mark.slow
def test_the_demo_learns_and_leaves_its_pictures(capsys, tmp_path, offered):
    from trainbus_vision.demo_detection import train

    logging.getLogger("trainbus").setLevel(logging.WARNING)
    train(str(tmp_path / "runs"), 0)
    out = capsys.readouterr().out
    assert float(out.split("at an IoU of 0.5 ")[1].split("%")[0]) > 60
    (run,) = (tmp_path / "runs").iterdir()
    assert all(
        (run / f"{name}.png").stat().st_size > 5000 for name in ("batch", "results", "worst")
    )
