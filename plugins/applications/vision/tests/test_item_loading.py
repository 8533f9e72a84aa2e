"""Items that are read: the same for any number of workers, positioned at once, errors named."""

import gc
import os
import random
import re
import time
import weakref

import pytest
import torch

from trainbus_data import DataBlock, DataError, Labels
from trainbus_vision import (
    Boxes,
    Image,
    RandomFlip,
    RandomResizedCrop,
    Resize,
    find_images,
    image_folder,
)


def make(folder, workers=0, **options):
    return image_folder(
        folder,
        size=None,
        item_transforms=[RandomResizedCrop(12), RandomFlip()],
        batch_size=4,
        num_workers=workers,
        **options,
    )


def same(a, b):
    a, b = list(a), list(b)
    return len(a) == len(b) and all(
        torch.equal(x, y)
        for one, two in zip(a, b, strict=True)
        for x, y in zip(one, two, strict=True)
    )


def failure(loader):
    """The message of the error that a pass ends with, its notes, and whether it has a cause.

    The error itself is let go: a test that held it would hold the loader's processes in a cycle.
    """
    try:
        list(loader)
    except DataError as error:
        return str(error), getattr(error, "__notes__", []), error.__cause__ is not None
    raise AssertionError("no error came")


def test_any_number_of_workers_gives_the_same(animals):
    """Order and random transforms depend on seed, epoch and item alone."""
    here, there = make(animals), make(animals, workers=2)
    for epoch in (0, 1):
        here.train.set_epoch(epoch)
        there.train.set_epoch(epoch)
        batches = list(here.train)
        assert same(batches, there.train)
    here.train.set_epoch(0)
    assert not same(batches, here.train)


def test_starts_in_the_middle_without_reading(animals, monkeypatch):
    """The batches before are left out, their files untouched."""
    data = make(animals)
    whole = list(data.train)
    opened = []
    encode = Image.encode
    monkeypatch.setattr(Image, "encode", lambda self, raw: opened.append(raw) or encode(self, raw))
    data.train.set_epoch(0)
    data.train.start_at(3)
    assert same(data.train, whole[3:])
    assert len(opened) == 4


def test_one_batch_moves_nothing(animals):
    """A look at the first batch changes neither the position nor random states."""
    data = make(animals)
    whole = list(data.train)
    data.train.set_epoch(0)
    data.train.start_at(2)
    states = torch.get_rng_state(), random.getstate()
    assert same([data.one_batch()], whole[:1])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert same(data.train, whole[2:])


def test_validation_has_no_random_transforms(animals):
    """Two passes over it are the same, whatever was drawn in between."""
    data = make(animals)
    assert same(data.valid, data.valid)
    assert data.valid.kinds == ("image", "category")


def test_loader_for_prediction(animals):
    """Raw inputs in their order, as validation sees them, without targets."""
    data = make(animals)
    files = [raw[0] for raw in data.valid_items]
    (inputs,) = zip(*data.loader(files), strict=True)
    assert torch.equal(torch.cat(inputs), torch.cat([x for x, _ in data.valid]))
    assert data.loader(iter(files)).kinds == ("image",)
    with pytest.raises(DataError, match="no items to predict"):
        data.loader([])


def test_one_item_for_prediction(animals):
    """`encode_input` is what validation makes of an item."""
    data = make(animals)
    x, _ = data.one_batch("valid")
    assert torch.equal(data.recipe.encode_input(data.valid_items[1][0]), x[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_file_is_named(animals, workers):
    """Item, file, step and cause, from a worker process too, with its traceback as a note."""
    data = make(animals, workers)
    path = data.train_items[5][0]
    path.write_bytes(b"no image")
    message, notes, has_cause = failure(data.train)
    assert message.startswith(f"item 5 of train ({path.relative_to(animals)}): reading the image:")
    assert "not an image that Pillow knows" in message
    if workers:
        assert "Traceback" in notes[0]
    else:
        assert has_cause


@pytest.mark.parametrize("workers", [0, 2])
def test_failing_transform_is_named(animals, workers):
    """The step that failed is the transform, with the error that it raised."""

    def sharpen(parts, kinds):
        raise ValueError("not so sharp")

    data = image_folder(animals, size=None, item_transforms=[sharpen], num_workers=workers)
    message, _, _ = failure(data.train)
    assert re.match(r"item \d+ of train .*: sharpen: ValueError: not so sharp", message)


@pytest.mark.parametrize("workers", [0, 2])
def test_sizes_that_differ_are_named(animals, make_picture, workers):
    """Both items, both sizes, and what to do."""
    make_picture(animals / "cat" / "00.png", size=(31, 17))
    data = image_folder(animals, size=None, batch_size=16, num_workers=workers)
    message, _, _ = failure(data.train)
    assert "3 x 17 x 31 in item" in message
    assert "cat/00.png" in message
    assert "item_transforms=[Resize(224)]" in message


def test_workers_collect_no_garbage_of_their_parent(animals):
    """A loader that an error left in a cycle is not ended by the processes of another one."""

    class Left:
        def __init__(self):
            self.itself = self

        def __del__(self):
            with (animals.parent / "collected").open("a") as file:
                file.write(f"{os.getpid()}\n")

    def collect(parts, kinds):
        gc.collect()
        return parts

    Left()
    before = gc.get_freeze_count()
    data = image_folder(animals, size=None, item_transforms=[collect], num_workers=2)
    list(data.train)
    gc.collect()
    assert (animals.parent / "collected").read_text().split() == [str(os.getpid())]
    assert (gc.get_freeze_count() == 0) is (before == 0)


def test_boxes_and_labels_come_padded(animals):
    """Items with different numbers of boxes are one batch: image, boxes, labels."""

    def boxes_of(path):
        return [(1, 1, 9, 9), (8, 8, 20, 16)][: int(path.stem) % 2 + 1]

    def labels_of(path):
        return ["left", "right"][: int(path.stem) % 2 + 1]

    block = DataBlock(
        (Image(), Boxes(), Labels()),
        items=find_images,
        label=(boxes_of, labels_of),
        item_transforms=[Resize((32, 40))],
    )
    data = block.data(animals, num_workers=0)
    images, boxes, labels = data.one_batch("valid")
    assert (images.shape, boxes.shape, labels.shape) == ((4, 3, 32, 40), (4, 2, 4), (4, 2))
    assert boxes[labels == 0].unique(dim=0).tolist() == [[2, 2, 18, 18]]
    assert boxes[labels == -1].isnan().all()


def test_workers_end_at_once_after_an_error(animals):
    """Nothing keeps a loader that failed, and its processes do not wait for a timeout."""
    (animals / "cat" / "03.png").write_bytes(b"")
    data = make(animals, workers=2)
    failure(data.train)
    gone = weakref.ref(data.train)
    started = time.monotonic()
    del data
    assert gone() is None
    assert time.monotonic() - started < 4


def test_errors_survive_a_loader_that_goes_on(animals):
    """After an error the same loader can be used again."""
    data = make(animals, workers=2)
    path = data.train_items[5][0]
    good = path.read_bytes()
    path.write_bytes(b"")
    assert "the file is empty" in failure(data.train)[0]
    path.write_bytes(good)
    data.train.set_epoch(0)
    assert same(data.train, make(animals).train)
