"""Known data sets read from their files, and the shortcuts to data."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainbus import TrainbusError, UsageError
from trainbus_vision import (
    cifar10,
    fashion_mnist,
    image_folder,
    image_table,
    image_tensors,
    keypoints,
    mnist,
    read_idx,
    segmentation,
)


def save(path, value=100, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_files_are_found_where_people_have_them(write_idx, place, packed):
    write_idx(Path("data") / place, packed)
    data = mnist("data")
    images, labels = data.one_batch("valid")
    assert images.shape == (20, 1, 28, 28) and images.dtype == torch.uint8
    assert labels.tolist() == [n % 10 for n in range(20)]
    assert data.vocab == [str(n) for n in range(10)]


def test_training_has_all_of_the_training_files(write_idx):
    write_idx(Path("data"))
    assert len(mnist("data").train_items) == 40


def test_an_image_of_any_size_is_brought_to_that_of_the_data(write_idx):
    write_idx(Path("data"))
    save(Path("seven.png"), size=(90, 50))
    assert mnist("data").recipe.encode_input("seven.png").shape == (1, 28, 28)


def test_clothes_have_names(write_idx):
    write_idx(Path("data/FashionMNIST/raw"))
    assert fashion_mnist("data").vocab[9] == "Ankle boot"


def test_files_that_are_missing_are_named_with_their_places(offline):
    with pytest.raises(UsageError) as problem:
        mnist("nowhere")
    message = str(problem.value)
    assert "t10k-labels-idx1-ubyte.gz" in message and "MNIST/raw" in message
    assert "cannot be downloaded" in message


def test_an_archive_that_is_missing_is_named(offline):
    with pytest.raises(UsageError, match=r"cifar-10-python\.tar\.gz"):
        cifar10("nowhere")


def test_a_damaged_file_is_named(write_idx):
    folder = write_idx(Path("data"), packed=False)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UsageError, match="train-images-idx3-ubyte is no whole idx file"):
        mnist("data")
    (folder / "broken.gz").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="fetch it again"):
        read_idx(folder / "broken.gz")


def test_files_that_do_not_belong_together_are_refused(write_idx):
    folder = write_idx(Path("data"), packed=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(
        (folder / "t10k-labels-idx1-ubyte").read_bytes()
    )
    with pytest.raises(UsageError, match="do not belong together"):
        mnist("data")


def test_folders_are_classes():
    for number in range(8):
        save(Path(f"photos/{'ants' if number % 2 else 'bees'}/{number}.png"), number * 20)
    data = image_folder("photos", size=32, batch_size=4, num_workers=0)
    assert data.vocab == ["ants", "bees"]
    assert data.one_batch()[0].shape == (4, 3, 32, 32)


def test_a_table_with_several_labels():
    with Path("labels.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "labels"])
        for number in range(8):
            save(Path(f"{number}.png"), number * 20)
            rows.writerow([f"{number}.png", "cat dog" if number % 2 else "dog"])
    data = image_table("labels.csv", size=24, delimiter=" ", batch_size=4, num_workers=0)
    assert data.vocab == ["cat", "dog"]
    assert data.one_batch()[0].shape == (4, 3, 24, 24)


def test_masks_are_found_by_the_names_of_images():
    for number in range(6):
        save(Path(f"images/{number}.jpg"))
        Path("masks").mkdir(exist_ok=True)
        codes = np.zeros((30, 20), np.uint8)
        codes[:15] = 1
        Image.fromarray(codes).save(f"masks/{number}.png")
    data = segmentation("images", "masks", size=16, batch_size=4, num_workers=0)
    images, masks = data.one_batch()
    assert images.shape == (4, 3, 16, 16) and masks.shape == (4, 16, 16)
    assert data.target.outputs == 2


def test_an_image_without_a_mask_is_named():
    save(Path("images/3.jpg"))
    Path("masks").mkdir()
    with pytest.raises(UsageError, match=r"no mask in masks, images/3.jpg"):
        segmentation("images", "masks")
    with pytest.raises(TrainbusError, match="no such folder"):
        segmentation("images", "nothing")


def test_points_follow_their_image():
    images = [save(Path(f"{number}.png"), size=(40, 40)) for number in range(6)]
    data = keypoints(images, lambda path: [[20, 10]], size=20, batch_size=4, num_workers=0)
    points = data.one_batch()[1]
    torch.testing.assert_close(points, torch.tensor([[10.0, 5.0]]).expand(4, 1, 2))


def test_masks_lie_as_their_images_do():
    """Images of one name in two folders have masks of their own, or it is said."""
    for place in ("a", "b"):
        for number in range(5):
            save(Path(f"images/{place}/{number}.png"))
            Path(f"masks/{place}").mkdir(parents=True, exist_ok=True)
            code = np.full((30, 20), place == "b", dtype=np.uint8)
            Image.fromarray(code).save(f"masks/{place}/{number}.png")
            Path("flat").mkdir(exist_ok=True)
            Image.fromarray(code).save(f"flat/{number}.png")
    data = segmentation("images", "masks", codes=2, size=8, num_workers=0)
    pairs = [data.train_items[index] for index in range(len(data.train_items))]
    assert all(image.parts[1:] == mask.parts[1:] for image, mask in pairs)
    with pytest.raises(UsageError, match=r"a/0\.png and images/b/0\.png would have one mask"):
        segmentation("images", "flat", codes=2, size=8)
    save(Path("masks/a/0.jpg"))
    with pytest.raises(UsageError, match=r"masks/a/0\.jpg and masks/a/0\.png are both called"):
        segmentation("images", "masks", codes=2, size=8)


def test_channels_follow_from_the_shape_of_tensors():
    """N x C x H x W or N x H x W x C, with any number of channels."""
    labels = torch.arange(10) % 2
    for shape, channels in {
        (10, 8, 9): 1, (10, 1, 8, 9): 1, (10, 8, 9, 1): 1, (10, 3, 8, 9): 3, (10, 8, 9, 3): 3,
        (10, 4, 8, 9): 4, (10, 8, 9, 6): 6,
    }.items():  # fmt: skip
        for images in (torch.zeros(shape), np.zeros(shape)):
            data = image_tensors((images, labels))
            assert data.one_batch()[0].shape[1:] == (channels, 8, 9)


def test_a_column_of_measurements_is_learned_as_numbers():
    """Floats are no classes; several columns are several numbers."""
    files = [str(save(Path(f"{number}.png"))) for number in range(10)]
    table = {"file": files, "age": [1.5 * n for n in range(10)], "size": range(10)}
    data = image_table(table, size=8, num_workers=0)
    assert type(data.target).__name__ == "Number"
    assert image_table(table, label=["age", "size"], size=8).target.outputs == 2
