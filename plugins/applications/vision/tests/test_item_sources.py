"""Where items come from: folders, tables, lists and functions."""

import json

import pytest
import torch

from trainbus import UsageError
from trainbus_data import (
    Categories,
    Category,
    Data,
    DataBlock,
    DataError,
    Number,
    Recipe,
    find_files,
    splits,
)
from trainbus_vision import Image, Points, Resize, find_images, image_folder, image_table


def test_folder_with_classes(animals):
    """The class is the folder of a file; a fifth is for validation, of each class."""
    data = image_folder(animals, size=None)
    assert data.vocab == ["cat", "dog"]
    assert (len(data.train_items), len(data.valid_items), data.test) == (16, 4, None)
    x, y = data.one_batch("valid")
    assert (x.shape, x.dtype, y.dtype) == ((4, 3, 16, 20), torch.uint8, torch.int64)
    assert data.describe("train", 0) == "cat/00.png"
    assert y.tolist() == [["cat", "dog"].index(raw[1]) for raw in data.valid_items]


def test_folder_with_parts(staged):
    """Folders called train, val and test are the parts."""
    data = image_folder(staged, size=None)
    assert [len(part) for part in (data.train_items, data.valid_items, data.test_items)] == [
        12,
        4,
        2,
    ]
    assert data.kinds == ("image", "category")


def test_folder_with_train_and_test_only(staged):
    """Without a part for validation, a fifth of train is it."""
    (staged / "val").rename(staged.parent / "gone")
    data = image_folder(staged, size=None)
    assert [len(part) for part in (data.train_items, data.valid_items, data.test_items)] == [
        9,
        3,
        2,
    ]


def test_folder_with_a_label_function(animals):
    """A label can be any function of the path; here a number."""
    data = Data.from_folder(animals, (Image(1), Number()), label=lambda path: int(path.stem))
    x, y = data.one_batch("valid")
    assert x.shape[1] == 1
    assert y.flatten().tolist() == [float(raw[1]) for raw in data.valid_items]


def test_files_are_sorted_and_hidden_ones_left_out(animals, make_picture):
    """The order of a folder does not depend on the file system."""
    make_picture(animals / ".trash" / "x.png")
    (animals / "notes.txt").write_text("no image")
    files = find_images(animals)
    assert files == sorted(files)
    assert len(files) == 20
    assert len(find_files(animals)) == 21


@pytest.fixture
def table(animals):
    """Columns with files, labels and numbers, for `animals`."""
    files = [str(path.relative_to(animals)) for path in find_images(animals)]
    return {
        "file": files,
        "kind": [name.split("/")[0] for name in files],
        "weight": [float(number) for number in range(20)],
        "tags": ["big furry" if number % 2 else "furry" for number in range(20)],
        "is_valid": [number % 4 == 0 for number in range(20)],
    }


@pytest.mark.parametrize("kind", ["mapping", "rows", "pandas", "polars", "csv", "parquet"])
def test_tables_of_all_kinds_agree(table, animals, kind):
    """The same rows, whatever holds them."""
    given, folder = table, animals
    if kind == "rows":
        given = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    elif kind == "polars":
        given = pytest.importorskip("polars").DataFrame(table)
    elif kind != "mapping":
        given = pytest.importorskip("pandas").DataFrame(table)
        if kind in ("csv", "parquet"):
            folder = None  # that of the table's file
            path = animals / f"table.{kind}"
            given.to_csv(path, index=False) if kind == "csv" else given.to_parquet(path)
            given = path
    data = image_table(given, "file", "kind", size=None, folder=folder, split="is_valid")
    assert data.vocab == ["cat", "dog"]
    assert len(data.valid_items) == 5
    x, y = data.one_batch("valid")
    assert x.shape == (5, 3, 16, 20)
    assert y.tolist() == [0, 0, 0, 1, 1]


def test_table_with_several_labels_in_a_column(table, animals):
    """A delimiter makes several labels of one text."""
    data = image_table(table, "file", "tags", size=None, folder=animals, delimiter=" ")
    assert isinstance(data.target, Categories)
    assert data.vocab == ["big", "furry"]
    assert data.one_batch()[1][:, 1].tolist() == [1.0] * 8


def test_table_with_several_numbers(table, animals):
    """Several columns are one target of several numbers."""
    data = Data.from_table(
        table, "file", ["weight", "weight"], blocks=(Image(), Number(2)), folder=animals
    )
    assert data.one_batch()[1].shape == (8, 2)


def test_table_with_two_inputs(table, animals):
    """Several inputs come as several tensors before the target."""
    blocks = (Image(), Image(1), Category())
    data = Data.from_table(table, ["file", "file"], "kind", blocks=blocks, folder=animals)
    batch = data.one_batch()
    assert [part.shape[1:] for part in batch] == [(3, 16, 20), (1, 16, 20), ()]
    file = animals / table["file"][0]
    assert [part.shape[0] for part in data.recipe.encode_input((file, file))] == [3, 1]


def test_lists_and_a_function(animals):
    """Targets are a list, or a function of the input."""
    files = find_images(animals)
    blocks = (Image(), Category())
    labels = [file.parent.name for file in files]
    by_list = Data.from_lists(files, labels, blocks, split=splits.random())
    by_function = Data.from_lists(files, lambda file: file.parent.name, blocks)
    for a, b in zip(by_list.one_batch(), by_function.one_batch(), strict=True):
        assert torch.equal(a, b)


def test_points_learn_the_size_of_images(animals):
    """Without being told: the size that validation has, behind `Resize`."""
    files = find_images(animals)
    points = [[(5, 5), (19, 15)]] * 20
    data = Data.from_lists(files, points, (Image(), Points()), size=(32, 40))
    assert data.target.size == (32, 40)
    assert data.target.outputs == 4
    assert data.one_batch("valid")[1][0].tolist() == [[10, 10], [38, 30]]


def test_block_of_functions():
    """A DataBlock is functions: items of a source, input and label of an item."""
    block = DataBlock(
        (Image(1), Category()),
        items=range,
        split=splits.by_function(lambda item: item >= 8),
        input=lambda item: torch.full((1, 4, 4), item, dtype=torch.uint8),
        label=lambda item: "odd" if item % 2 else "even",
    )
    data = block.data(10)
    x, y = data.one_batch("valid")
    assert x[:, 0, 0, 0].tolist() == [8, 9]
    assert [data.target.decode(code) for code in y] == ["even", "odd"]
    # The block itself learned nothing: another source has a vocabulary of its own.
    assert block.recipe.target.vocab == []


def test_unequal_lists():
    """Two lists of different lengths."""
    with pytest.raises(DataError, match="2 inputs, but 3 targets"):
        Data.from_lists([1, 2], [1, 2, 3], (Number(), Category()))


def test_a_delimiter_goes_with_the_usual_blocks(table, animals):
    """With blocks of your own it would be said twice."""
    blocks = (Image(), Categories(delimiter=" "))
    data = image_table(table, "file", "tags", size=8, folder=animals, blocks=blocks)
    assert data.vocab == ["big", "furry"] and data.one_batch()[0].shape == (8, 3, 8, 8)
    with pytest.raises(UsageError, match=r"write Categories\(delimiter=\.\.\.\)"):
        image_table(table, "file", "tags", folder=animals, delimiter=" ", blocks=blocks)


def test_a_recipe_of_images_is_found_again_by_the_names_of_its_classes():
    """The distribution offers them, so that an export knows how files are read."""
    recipe = Recipe((Image(1), Points(2, (8, 8))), transforms=[Resize(8)])
    again = Recipe.from_state(json.loads(json.dumps(recipe.state())))
    assert again.state() == recipe.state()
    assert all(type(a) is type(b) for a, b in zip(again.blocks, recipe.blocks, strict=True))
