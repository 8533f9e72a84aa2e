"""Why a model says what it says: Grad-CAM, legends, points in one picture, files to look at."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from trainbus import UsageError
from trainbus.cli import main
from trainbus_data import Data, DataError
from trainbus_vision import Image, ImageLearner, Mask, image_folder, near_duplicates, segmentation

OFF = ["-progress", "-journal", "-manifest"]


def sided(count=64, size=32):
    """Grey images with a bright square left or right, and such without one."""
    from trainbus_data import Category

    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 60, (count, 1, size, size), generator=generator, dtype=torch.uint8)
    y = (torch.arange(count) % 4 < 2).long()
    x[0::4, :, 12:20, 2:10] = 250
    x[1::4, :, 12:20, 22:30] = 250
    return Data.from_tensors((x, y), (x, y), blocks=(Image(1), Category(["none", "square"])))


@pytest.fixture(scope="module")
def knows():
    """A learner that tells whether there is a square."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1, stride=2), torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3, padding=1, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(16, 2),
    )  # fmt: skip
    learner = ImageLearner(sided(), model, augment=False, plugins=OFF)
    learner.fit(20, lr=1e-2)
    assert learner.validate()["accuracy"] == 1
    return learner


def test_the_heat_is_where_the_thing_is(knows):
    """The bright square speaks for its label, on its side of the image."""
    images = sided().valid_items.parts[0]
    for number, left in enumerate([True, False]):
        found = knows.gradcam(images[number])
        assert (found.label, found.heat.shape) == ("square", (32, 32))
        assert found.probability > 0.9
        assert found.heat.min() >= 0
        assert found.heat.max() == pytest.approx(1)
        row, column = divmod(int(found.heat.argmax()), 32)
        assert 10 <= row < 22
        assert (0 <= column < 12) if left else (20 <= column < 32)


def test_another_label_is_explained_too(knows):
    image = sided().valid_items.parts[0][0]
    found = knows.gradcam(image, "none")
    assert found.label == "none"
    assert found.probability < 0.1
    with pytest.raises(UsageError, match="did you mean 'square'"):
        knows.gradcam(image, "sqare")


def test_explaining_changes_nothing(knows):
    """Gradients, what is trained, statistics and modes."""
    knows.model.train()
    before = [(p.grad, p.requires_grad) for p in knows.model.parameters()]
    knows.gradcam(sided().valid_items.parts[0][0])
    after = [(p.grad, p.requires_grad) for p in knows.model.parameters()]
    assert [trained for _, trained in before] == [trained for _, trained in after]
    assert all(one is other for (one, _), (other, _) in zip(before, after, strict=True))
    assert knows.model.training


def test_the_worst_and_items_are_drawn(knows):
    figure = knows.show_gradcam(knows.interpret(worst=3), count=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert sum(title.startswith("is ") for title in titles) == 3
    assert len(knows.show_gradcam(count=1).axes) == 3  # two pictures and a scale
    images = sided().valid_items.parts[0]
    assert len(knows.show_gradcam([images[0], images[1]]).axes) == 5


@pytest.mark.parametrize("kind", ["categories", "number"])
def test_every_target_with_outputs_is_explained(make_data, kind):
    learner = ImageLearner(make_data(kind, size=32), "resnet18", plugins=OFF)
    found = learner.gradcam(torch.zeros(3, 32, 32, dtype=torch.uint8))
    assert (found.probability is None) == (kind == "number")


def test_what_has_no_maps_is_refused(make_data):
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))
    with pytest.raises(UsageError, match="no convolution"):
        ImageLearner(make_data(), flat, plugins=OFF).gradcam(image)
    tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 16), torch.nn.Flatten(), torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="have places"):
        ImageLearner(make_data(), tiny, plugins=OFF).gradcam(image)
    with pytest.raises(UsageError, match="the target is Mask"):
        ImageLearner(make_data("mask"), "resnet18", plugins=OFF).gradcam(image)


# --- pictures ------------------------------------------------------------------------------------


def test_masks_have_a_legend_of_their_classes(make_data):
    """Of those that occur; each in the colour that it is drawn in."""
    learner = ImageLearner(make_data("mask", size=32), "resnet18", plugins=OFF)
    for figure in (
        learner.show_results(4),
        learner.show_batch(4),
        learner.interpret().plot_worst(2),
    ):
        (legend,) = figure.legends
        assert {text.get_text() for text in legend.get_texts()} <= {"0", "1"}
    block = Mask(["sky", "road", "void"], ignore=2)
    assert [name for name, _ in block.legend([torch.tensor([[1, 2]]), None])] == ["road"]


def test_points_are_drawn_into_one_picture(make_data):
    """Targets green, predictions red, and a line between both."""
    figure = ImageLearner(make_data("points"), "small_cnn", plugins=OFF).show_results(4)
    assert len(figure.axes) == 4
    axes = figure.axes[0]
    assert (len(axes.collections), len(axes.lines)) == (2, 2)
    assert figure._supxlabel.get_text() == "target green, prediction red"


# --- cleaning ------------------------------------------------------------------------------------


def photos(root, count=12):
    """A folder with two kinds, in which validation has a picture of training, a little changed."""
    draw = np.random.default_rng(0)
    for number in range(count):
        part, kind = ("train", "valid")[number % 3 == 0], ("a", "b")[number % 2]
        path = root / part / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = draw.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Pillow.fromarray(rough).resize((64, 48)).save(path)
    first = Pillow.open(root / "valid/a/0.png")
    first.resize((40, 30)).save(root / "train/a/again.jpg", quality=50)
    first.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT).save(root / "train/b/mirrored.png")
    first.point(lambda value: value * 0.7).save(root / "train/a/darker.png")
    return root


def test_near_duplicates_are_found_and_dropped(own_directory, tmp_path):
    """Smaller, packed, mirrored and darker ones; what is left has none."""
    root = photos(tmp_path / "photos")
    data = image_folder(root, size=32, num_workers=0)
    rows = near_duplicates(data)
    names = {row["file"] for row in rows}
    assert names == {"train/a/again.jpg", "train/b/mirrored.png", "train/a/darker.png"}
    assert {row["same_as"] for row in rows} == {"valid/a/0.png"}
    clean = image_folder(root, size=32, num_workers=0, clean=rows)
    assert len(clean.train_items) == len(data.train_items) - 3
    assert near_duplicates(clean) == []
    assert len(near_duplicates(data, "train")) == 2


def test_images_of_one_colour_are_no_duplicates(make_data):
    images = torch.full((20, 3, 16, 16), 90, dtype=torch.uint8)
    data = Data.from_tensors((images, torch.arange(20) % 2), (images, torch.arange(20) % 2))
    assert near_duplicates(data) == []
    with pytest.raises(DataError, match="no test part"):
        near_duplicates(data, "test")


def test_what_the_model_gets_wrong_is_a_table_to_clean_by(tmp_path):
    """Written, filled in, and taken again; the training part, too."""
    root = photos(tmp_path / "photos")
    data = image_folder(root, size=32, num_workers=0)
    learner = ImageLearner(data, "small_cnn", plugins=OFF)
    rows = learner.interpret("train").to_clean("clean.csv")
    assert {row["file"] for row in rows} == {
        data.describe("train", index) for index in range(len(data.train_items))
    }
    assert set(rows[0]) >= {"file", "action", "label", "target", "predicted", "loss"}
    text = (tmp_path / "clean.csv").read_text().splitlines()
    text[1] = text[1].replace(",,,", ",drop,,", 1)
    (tmp_path / "clean.csv").write_text("\n".join(text))
    clean = image_folder(root, size=32, num_workers=0, clean="clean.csv")
    left = {clean.describe("train", index) for index in range(len(clean.train_items))}
    assert {row["file"] for row in rows} - left == {rows[0]["file"]}


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def segments(tmp_path):
    """An export that labels pixels, and a folder of photos in two folders."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 255, (24, 40, 3), dtype=np.uint8) for _ in range(8)]
    masks = [(image[..., 0] > 128).astype(np.uint8) for image in images]
    data = segmentation(images, masks, ["dark", "bright"], size=32, num_workers=0)
    learner = ImageLearner(data, "resnet18", pretrained=False, plugins=OFF)
    learner.export("model")
    for name, image in zip(("a/1.png", "b/1.png", "b/2.png"), images, strict=False):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(image).save(path)
    return learner


def test_the_command_writes_masks_of_a_folder(segments, capsys, tmp_path):
    """A PNG for each photo, in its size, in folders as they are; `Mask` reads its codes."""
    main(["-p", "learner", "predict", "model", "photos", "--out", "masks"])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [f"photos/{name}", f"masks/{name}"] for name in ("a/1.png", "b/1.png", "b/2.png")
    ]
    codes = Mask(256).encode(tmp_path / "masks/b/2.png")
    expected = segments.predict("photos/b/2.png").label
    assert codes.shape == (24, 40)
    assert np.array_equal(codes.numpy(), np.where(expected < 0, 255, expected))
    main(["-p", "learner", "predict", "model", "photos/a/1.png", "--json", "--out", "masks"])
    assert json.loads(capsys.readouterr().out) == {
        "item": "photos/a/1.png", "file": "masks/1.png",
    }  # fmt: skip


def test_two_masks_are_not_written_to_one_place(segments, capsys):
    with pytest.raises(SystemExit):
        main(["-p", "learner", "predict", "model", "photos/a/1.png", "photos/b/1.png"])
    assert "would both be written to predictions/1" in capsys.readouterr().err


def test_a_prediction_is_written_by_its_predictor(segments, make_data, tmp_path):
    predictor = segments.predictor()
    prediction = predictor.predict("photos/a/1.png")
    assert predictor.write(prediction, "one/mask.jpg").name == "mask.png"
    assert Pillow.open("one/mask.png").mode == "P"
    other = ImageLearner(make_data(), "small_cnn", plugins=OFF).predictor()
    with pytest.raises(UsageError, match="is a line of text"):
        other.write(other.predict(np.zeros((16, 16, 3), np.uint8)), "label")
