"""Bad input: each with a message that says what and where, before training where possible."""

import logging

import pytest
import torch

from trainbus_data import Category, Data, DataBlock, DataError, Number, Recipe, splits
from trainbus_vision import Image, find_images, image_folder, image_table, image_tensors


def test_folder_that_does_not_exist(animals):
    """With the nearest name beside it."""
    with pytest.raises(DataError, match=r"no folder .*animal; did you mean 'animals'\?"):
        image_folder(animals.parent / "animal", size=None)


def test_empty_folder(tmp_path):
    """Without classes, and with classes without files."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no folders, which are the classes"):
        image_folder(tmp_path / "empty", size=None)
    (tmp_path / "empty" / "cat").mkdir()
    (tmp_path / "empty" / "cat" / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"1 files, none of which ends with one of \.jpg"):
        image_folder(tmp_path / "empty", size=None)


def test_file_instead_of_a_folder(animals):
    """It is said that it is one."""
    with pytest.raises(DataError, match="is a file, not a folder"):
        image_folder(animals / "cat" / "00.png", size=None)


def test_one_class(animals):
    """Nothing can be learned."""
    for path in (animals / "dog").iterdir():
        path.unlink()
    (animals / "dog").rmdir()
    with pytest.raises(DataError, match="all labels of the training part are 'cat'"):
        image_folder(animals, size=None)


def test_class_in_validation_that_training_never_saw(staged):
    """The first file of it, and how many there are."""
    (staged / "val" / "dog").rename(staged / "val" / "dogs")
    with pytest.raises(DataError) as caught:
        image_folder(staged, size=None)
    message = str(caught.value)
    assert "item 2 of valid (val/dogs/0.png): the label 'dogs' is not among" in message
    assert "did you mean 'dog'?" in message
    assert "2 of the 4 items of valid" in message


@pytest.mark.parametrize("missing", [None, float("nan"), "", "pandas"])
def test_missing_labels(animals, missing):
    """None, NaN, an empty text and what pandas has for it."""
    if missing == "pandas":
        missing = pytest.importorskip("pandas").NA
    files = find_images(animals)
    labels = [file.parent.name for file in files]
    labels[3] = labels[7] = missing
    with pytest.raises(DataError) as caught:
        Data.from_lists(files, labels, (Image(), Category()), split=splits.by_index([0, 19]))
    message = str(caught.value)
    assert "item 2 of train" in message
    assert "03.png" in message
    assert "the label is missing (2 of the 18 items" in message


def test_missing_numbers(animals):
    """A number that is none is found before training."""
    files = find_images(animals)
    with pytest.raises(DataError, match="the number is missing"):
        Data.from_lists(files, [float("nan")] * 20, (Image(), Number()))


def test_column_that_is_missing():
    """With the nearest name, and all of them."""
    with pytest.raises(DataError, match=r"no column 'lable'; did you mean 'label'\? \(columns: "):
        image_table({"file": ["a"], "label": ["b"]}, "file", "lable")


def test_table_that_is_missing(tmp_path):
    """With the nearest name."""
    (tmp_path / "labels.csv").write_text("file,label\n")
    with pytest.raises(DataError, match=r"did you mean 'labels\.csv'"):
        image_table(tmp_path / "label.csv")
    with pytest.raises(DataError, match=r"has no rows|has 0 columns"):
        image_table(tmp_path / "labels.csv")


def test_empty_part(animals, caplog):
    """A split that leaves nothing for training is refused, and one for validation is said."""
    with pytest.raises(DataError, match="the train part is empty: the split puts none of the 20"):
        image_folder(animals, size=None, split=splits.by_function(lambda path: True))
    data = image_folder(animals, size=None, split=splits.by_function(lambda path: False))
    assert data.valid is None
    assert "no item is for validation: all 20 are trained on" in caplog.text


def test_function_that_fails_for_an_item(animals):
    """The item is named, and what the function raised."""
    with pytest.raises(DataError, match=r"00\.png.*KeyError: 'cat'"):
        image_folder(animals, size=None, label=lambda path: {"dog": 1}[path.parent.name])


def test_unreadable_files_are_listed_or_skipped(animals, caplog):
    """Found in a pass over all files before training: an error with all, or a warning."""
    for name in ("cat/03.png", "dog/15.png"):
        (animals / name).write_bytes(b"broken")
    with pytest.raises(DataError) as caught:
        image_folder(animals, size=None, unreadable="list")
    assert "2 items cannot be read" in str(caught.value)
    assert "cat/03.png" in str(caught.value)
    assert "dog/15.png" in str(caught.value)
    with caplog.at_level(logging.WARNING, "trainbus"):
        data = image_folder(animals, size=None, unreadable="skip", num_workers=0)
    assert "cat/03.png" in caplog.text
    assert len(data.train_items) + len(data.valid_items) == 18
    assert sum(len(y) for _, y in data.train) == len(data.train_items)
    assert data.unreadable() == []
    assert len(image_folder(animals, size=None).unreadable()) == 2
    with pytest.raises(DataError, match="did you mean 'skip'"):
        image_folder(animals, size=None, unreadable="skipp")


def test_four_channels_and_16_bits_in_one_folder(animals, make_picture):
    """They are brought to the channels asked for."""
    import numpy as np
    from PIL import Image as Pillow

    make_picture(animals / "cat" / "00.png", mode="RGBA")
    make_picture(animals / "cat" / "01.png", mode="L")
    Pillow.fromarray(np.full((16, 20), 65535, dtype=np.uint16)).save(animals / "dog" / "19.png")
    data = image_folder(animals, size=None, num_workers=0)
    assert {tuple(x.shape[1:]) for loader in (data.train, data.valid) for x, _ in loader} == {
        (3, 16, 20)
    }


def test_blocks_are_objects_and_one_is_a_target():
    """A class instead of an object, and inputs alone."""
    with pytest.raises(DataError, match=r"write Category\(\)"):
        Recipe([Image(), Category])
    with pytest.raises(DataError, match="inputs=2 of 2 blocks"):
        Recipe([Image(), Category()], inputs=2)
    with pytest.raises(DataError, match="label: 2 functions for 1 blocks"):
        DataBlock([Image(), Category()], label=[str, str])


def test_bytes_and_floats_in_one_batch_are_refused():
    """They would become floats of 0..255 beside floats of 0..1."""
    images = [torch.zeros(3, 4, 4, dtype=torch.uint8)] * 9 + [torch.zeros(3, 4, 4)]
    blocks = (Image(), Category())
    data = Data.from_lists(images, list("ab" * 5), blocks, split=splits.by_index([0]), batch_size=9)
    with pytest.raises(DataError, match=r"the type (uint8|float32) in item \d of train, but"):
        data.one_batch()


def test_batch_size_is_positive():
    """Zero is refused."""
    x, y = torch.zeros(9, 4, 4), torch.arange(9) % 2
    with pytest.raises(DataError, match="batch_size=0"):
        image_tensors((x, y), (x, y), batch_size=0)
