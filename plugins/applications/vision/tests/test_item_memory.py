"""Data in memory: a batch is one indexing operation, its order made of seed and epoch."""

import numpy as np
import pytest
import torch

from trainbus_data import Category, Data, DataError, MemoryLoader, Number, splits
from trainbus_vision import Image, RandomFlip, Resize, image_folder, image_tensors


def tensors(count=100):
    x = torch.arange(count, dtype=torch.int32).remainder(256).to(torch.uint8)
    return x.view(-1, 1, 1).expand(-1, 4, 4).contiguous(), torch.arange(count) % 3


def loader(**options):
    x, y = tensors(50)
    return MemoryLoader((x, y), ("image", "category"), batch_size=8, seed=3, **options)


def values(batches):
    return [batch[0][:, 0, 0].tolist() for batch in batches]


def test_batches_are_plain_tensors():
    """uint8 images with a channel, int64 labels; each item once."""
    data = image_tensors(tensors(), tensors(20), batch_size=16)
    batches = list(data.train)
    assert len(batches) == len(data.train) == 7
    x, y = batches[0]
    assert (x.shape, x.dtype, y.dtype) == ((16, 1, 4, 4), torch.uint8, torch.int64)
    assert sorted(int(v) for x, _ in batches for v in x[:, 0, 0, 0]) == list(range(100))
    for x, y in batches:
        assert torch.equal(x[:, 0, 0, 0] % 3, y.to(torch.uint8))


def test_validation_is_in_order():
    """The order of the items, the last batch with what is left."""
    data = image_tensors(tensors(), tensors(20), batch_size=16)
    assert [len(y) for _, y in data.valid] == [16, 4]
    assert torch.cat([y for _, y in data.valid]).tolist() == tensors(20)[1].tolist()


def test_order_is_by_seed_and_epoch():
    """The same epoch is the same order, another is another."""
    first, other = loader(shuffle=True), loader(shuffle=True)
    for each in (first, other):
        each.set_epoch(0)
    assert values(first) == values(other)
    other.set_epoch(1)
    assert values(first) != values(other)
    first.set_epoch(1)
    assert values(first) == values(other)


def test_where_nobody_tells_the_epoch_each_pass_is_the_next_one():
    told, alone = loader(shuffle=True), loader(shuffle=True)
    for epoch in range(3):
        told.set_epoch(epoch)
        assert values(told) == values(alone)


@pytest.mark.parametrize("shuffle", [True, False])
def test_starts_anywhere_once(shuffle):
    """`start_at` leaves out batches of the next pass, and of that one alone."""
    whole = values(loader(shuffle=shuffle))
    resumed = loader(shuffle=shuffle)
    resumed.start_at(4)
    assert values(resumed) == whole[4:]
    resumed.set_epoch(0)
    assert values(resumed) == whole


def test_writing_into_a_batch_leaves_the_data_alone():
    """Also without shuffling, where a view would do."""
    data = loader()
    before = values(data)
    for x, _ in data:
        x.zero_()
    assert values(data) == before


def test_leaves_the_random_state_of_training_alone():
    """A pass draws nothing from the global generator."""
    state = torch.get_rng_state()
    list(loader(shuffle=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_arrays_and_colours():
    """Arrays, channels last or first, and words as labels."""
    x = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
    y = np.array(["cat", "dog", "bird"] * 10)
    data = image_tensors((x, y), split=splits.by_index(range(6)), batch_size=6)
    batch = data.one_batch("valid")
    assert torch.equal(batch[0], torch.from_numpy(x[:6]).permute(0, 3, 1, 2))
    assert [data.target.decode(code) for code in batch[1][:3]] == ["cat", "dog", "bird"]
    assert len(data.train_items) == 24


def test_blocks_given_are_not_changed():
    """The vocabulary is learned by a copy; the block can be used for other data."""
    block = Category()
    data = Data.from_tensors(tensors(), blocks=(Image(1), block))
    assert data.vocab == [0, 1, 2]
    assert block.vocab == []


def test_label_in_validation_only():
    """It is an error that names the label and the part."""
    x, y = tensors(20)
    with pytest.raises(DataError, match="valid, category: item 0: the label 9 is not among"):
        image_tensors(tensors(), (x, y * 0 + 9))


def test_missing_targets_are_named():
    """The first item whose label or number is none."""
    x, _ = tensors(6)
    with pytest.raises(DataError, match="train, category: item 2: the label is missing"):
        image_tensors((x, ["a", "b", None, "a", None, "b"]), (x, ["a"] * 6))
    numbers = torch.tensor([1.0, 2.0, 3.0, float("nan"), 5.0, 6.0])
    with pytest.raises(DataError, match="train, number: item 3: a number that is not finite"):
        Data.from_tensors((x, numbers), (x, numbers), blocks=(Image(1), Number()))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (torch.zeros(3, 4, 4), r"train=Tensor; give \(inputs, targets\)"),
        ((torch.zeros(3, 4, 4), torch.zeros(4)), "have 3 and 4 items"),
        ((torch.zeros(0, 4, 4), torch.zeros(0)), "the train part is empty"),
        ((torch.zeros(9, 4, 4, 4, 4), torch.arange(9)), "images of shape"),
        ((torch.full((9, 4, 4), 300), torch.arange(9)), "int64 from 300 to 300; integers are"),
        ((torch.zeros(9, 4, 4), torch.zeros(9, 2)), "one for each item"),
    ],
)
def test_what_does_not_fit_is_refused(train, message):
    """Each with what was given."""
    valid = (torch.zeros(2, 4, 4), torch.arange(2))
    with pytest.raises(DataError, match=message):
        Data.from_tensors(train, valid, blocks=(Image(1), Category([*range(9)])))


def test_single_sample_at_the_end_is_left_out():
    """Batch normalization cannot train on it; validation has all."""
    data = image_tensors(tensors(33), tensors(33), batch_size=16)
    assert [len(y) for _, y in data.train] == [16, 16]
    assert [len(y) for _, y in data.valid] == [16, 16, 1]
    kept = image_tensors(tensors(33), tensors(33), batch_size=16, drop_last=False)
    assert len(kept.train) == 3


def test_drop_last_with_too_few():
    """A batch that is larger than the data, and nothing left."""
    with pytest.raises(DataError, match="leaves no batch: train has 10 items"):
        image_tensors(tensors(10), tensors(10), batch_size=16, drop_last=True)


def test_with_batch_size_shares_the_data():
    """The same tensors, in other batches."""
    data = image_tensors(tensors(), tensors(20), batch_size=16)
    larger = data.with_batch_size(50)
    assert larger.batch_size == 50
    assert [len(y) for _, y in larger.train] == [50, 50]
    assert larger.train_items is data.train_items


def test_folder_in_memory_equals_one_that_is_read(animals):
    """`memory=True` reads each file once; the batches are the same, and the names remain."""
    read = image_folder(animals, size=16, num_workers=0)
    kept = image_folder(animals, size=16, memory=True)
    assert isinstance(kept.train, MemoryLoader)
    for a, b in zip(read.one_batch("valid"), kept.one_batch("valid"), strict=True):
        assert torch.equal(a, b)
    assert kept.describe("train", 0) == "cat/00.png"


def test_memory_needs_equal_sizes_and_nothing_random(animals, make_picture):
    """A random transform would be drawn once for ever; two sizes make no tensor."""
    with pytest.raises(DataError, match=r"RandomFlip\(\) is random"):
        image_folder(animals, size=None, item_transforms=[RandomFlip()], memory=True)
    make_picture(animals / "cat" / "large.png", size=(50, 50))
    with pytest.raises(DataError, match="bring all to one size"):
        image_folder(animals, size=None, memory=True)


def test_numbers_in_memory():
    """Targets that are numbers are N x outputs."""
    x, y = tensors()
    data = Data.from_tensors((x, y.float()), blocks=(Image(1), Number()))
    assert data.one_batch()[1].shape == (data.batch_size, 1)


def test_images_of_any_size_can_be_predicted():
    """Item transforms are for raw items that come later; the tensors stay what they are."""
    data = image_tensors(tensors(), tensors(20), item_transforms=[Resize(4)])
    (x,) = next(iter(data.loader([np.zeros((9, 7), dtype=np.uint8)] * 2)))
    assert x.shape == (2, 1, 4, 4)
    assert torch.equal(data.one_batch("valid")[0][:5], tensors(20)[0][:5, None])
