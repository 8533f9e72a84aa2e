"""Data that are no images: tables, texts in files, series; and blocks of your own."""

import json
from pathlib import Path

import pytest
import torch

from trainbus_data import (
    Block,
    Category,
    Data,
    DataBlock,
    DataError,
    ItemTransform,
    MemoryLoader,
    Number,
    Recipe,
    block_from_state,
    find_files,
    splits,
)


class Cut(ItemTransform):
    """A number of values: the first ones, in training from anywhere."""

    def __init__(self, length, anywhere=True):
        self.length, self.anywhere = length, anywhere

    def __call__(self, parts, kinds):
        first, *rest = parts
        room = len(first) - self.length
        start = int(torch.randint(room + 1, ())) if self.anywhere else 0
        return (first[start : start + self.length], *rest)

    def for_validation(self):
        return Cut(self.length, anywhere=False) if self.anywhere else self

    def options(self):
        return {"length": self.length, "anywhere": self.anywhere}


class Text(Block):
    """A text file as the codes of its bytes."""

    kind, is_file, endings = "text", True, (".txt",)
    shape_hint = "cut all to one length, with size=8"
    seen = None

    def encode(self, raw):
        data = Path(raw).read_bytes() if isinstance(raw, Path) else raw.encode()
        if b"?" in data:
            raise DataError("the text is damaged")
        return torch.tensor(list(data))

    def sized(self, size):
        return Cut(size)

    def see(self, parts, kinds):
        self.seen = (kinds, parts[0].shape)


@pytest.fixture
def texts(tmp_path):
    """A folder with 12 letters and 8 bills of 10 bytes, and a file that is none."""
    for number in range(20):
        path = tmp_path / "texts" / ("letter" if number < 12 else "bill") / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text no {number:02}")
    (tmp_path / "texts" / "letter" / "notes.md").write_text("no text")
    return tmp_path / "texts"


@pytest.fixture
def flowers():
    """A table of two columns of numbers, and a kind."""
    return {
        "length": [float(number) for number in range(20)],
        "width": [number / 10 for number in range(20)],
        "kind": ["rose" if number % 2 else "tulip" for number in range(20)],
        "part": ["valid" if number % 4 == 0 else "train" for number in range(20)],
    }


def test_columns_of_numbers_are_one_input(flowers):
    """With one block of numbers several columns go together; the split is a column."""
    data = Data.from_table(
        flowers, ["length", "width"], "kind", blocks=(Number(2), Category()), split="part"
    )
    x, y = data.one_batch("valid")
    assert x.tolist() == [[n, pytest.approx(n / 10)] for n in (0, 4, 8, 12, 16)]
    assert [data.target.decode(code) for code in y] == ["tulip"] * 5
    assert (data.kinds, data.recipe.inputs) == (("number", "category"), 1)


def test_each_column_is_an_input_where_there_is_a_block_for_each(flowers):
    blocks = (Number(), Number(), Category())
    data = Data.from_table(flowers, ["length", "width"], "kind", blocks=blocks)
    assert [part.shape for part in data.one_batch()] == [(8, 1), (8, 1), (8,)]


def test_files_that_a_block_reads_are_found_by_their_endings(texts):
    data = Data.from_folder(texts, (Text(), Category()), batch_size=4)
    assert (len(data.train_items), len(data.valid_items)) == (16, 4)
    x, y = data.one_batch("valid")
    assert (x.shape, x.dtype, y.shape) == ((4, 10), torch.int64, (4,))
    assert data.describe("train", 0) == "bill/12.txt"
    assert bytes(data.valid_items[0][0].read_bytes()) == bytes(x[0].tolist())


def test_files_named_in_a_table_are_in_its_folder(texts):
    names = [str(path.relative_to(texts).with_suffix("")) for path in find_files(texts, [".txt"])]
    table = {"file": names, "kind": [name.split("/")[0] for name in names]}
    blocks = (Text(), Category())
    data = Data.from_table(table, blocks=blocks, folder=texts, suffix=".txt", num_workers=0)
    assert data.one_batch()[0].shape == (8, 10)


def test_a_size_is_what_the_first_block_says(texts, flowers):
    data = Data.from_folder(texts, (Text(), Category()), size=6, num_workers=0)
    assert data.one_batch("valid")[0].shape == (4, 6)
    assert data.recipe.transforms[0].options() == {"length": 6, "anywhere": True}
    with pytest.raises(DataError, match="size=6: Number has no size"):
        Data.from_table(flowers, "length", "kind", blocks=(Number(), Category()), size=6)


def test_lengths_that_differ_are_named_with_what_to_do(texts):
    (texts / "letter" / "00.txt").write_text("a much longer text")
    data = Data.from_folder(texts, (Text(), Category()), batch_size=16, num_workers=0)
    message = r"the text is 1.* in item .*, but 1.* in item .*; cut all to one length, with size=8"
    with pytest.raises(DataError, match=message):
        list(data.train)


def test_a_block_sees_a_batch_as_validation_has_it(texts):
    data = Data.from_folder(texts, (Text(), Category()), size=6, num_workers=0)
    assert data.blocks[0].seen == (("text", "category"), (1, 6))


def test_damaged_texts_are_listed_or_left_out(texts):
    (texts / "letter" / "03.txt").write_text("text no ??")
    data = Data.from_folder(texts, (Text(), Category()), num_workers=0)
    assert len(data.unreadable()) == 1 and "letter/03.txt" in data.unreadable()[0]
    kept = Data.from_folder(texts, (Text(), Category()), unreadable="skip")
    assert len(kept.train_items) + len(kept.valid_items) == 19
    with pytest.raises(DataError, match="1 items cannot be read"):
        Data.from_folder(texts, (Text(), Category()), unreadable="list")


def test_in_memory_nothing_is_random_unless_the_transform_fits(texts):
    """What cuts from anywhere would be drawn once for ever."""
    with pytest.raises(DataError, match=r"Cut\(length=6\) is random"):
        Data.from_folder(texts, (Text(), Category()), size=6, memory=True)
    fixed = [Cut(6, anywhere=False)]
    data = Data.from_folder(texts, (Text(), Category()), item_transforms=fixed, memory=True)
    assert isinstance(data.train, MemoryLoader)

    class Fits(Cut):
        fits_memory = True

    kept = Data.from_folder(texts, (Text(), Category()), item_transforms=[Fits(6)], memory=True)
    for a, b in zip(data.one_batch("valid"), kept.one_batch("valid"), strict=True):
        assert torch.equal(a, b)


def test_series_in_memory():
    """Tensors of any shape are an input, by a block of your own."""

    class Series(Block):
        kind = "series"

        def encode(self, raw):
            return torch.as_tensor(raw)

        def encode_all(self, raws):
            return torch.as_tensor(raws)

    x, y = torch.randn(40, 3, 50), torch.rand(40)
    data = Data.from_tensors((x, y), blocks=(Series(), Number()), split=splits.by_time(int))
    batch = data.one_batch("valid")
    assert torch.equal(batch[0], x[32:]) and torch.equal(batch[1][:, 0], y[32:])
    assert type(data.with_batch_size(7)) is Data and data.with_batch_size(7).batch_size == 7


def test_a_recipe_is_kept_without_its_classes():
    """They are given, or offered by an installed distribution; a name alone is never imported."""
    recipe = Recipe((Text(), Category(["a", "b"])), transforms=[Cut(4)])
    state = json.loads(json.dumps(recipe.state()))
    again = Recipe.from_state(state, known=[Text, Cut])
    assert again.encode_input("abcdef").tolist() == [97, 98, 99, 100]
    with pytest.raises(DataError, match="a block of the class 'Text' is not known"):
        Recipe.from_state(state)
    with pytest.raises(DataError, match="a transform of the class 'Cut' is not known"):
        Recipe.from_state(state, known=[Text])


def test_a_class_that_a_distribution_offers_is_found_by_its_name(monkeypatch):
    from importlib.metadata import EntryPoint, EntryPoints

    from trainbus_data import recipe

    each = EntryPoint("Own", "trainbus_data:Number", recipe.GROUP)
    monkeypatch.setattr(recipe, "entry_points", lambda group: EntryPoints([each]))
    assert block_from_state({"block": "Own", "outputs": 2}).options() == {"outputs": 2}
    with pytest.raises(DataError, match=r"'Ownn' is not known; did you mean 'Own'\?"):
        block_from_state({"block": "Ownn"})


def test_the_summary_of_a_table(flowers):
    data = Data.from_table(flowers, "length", "kind", blocks=(Number(), Category()))
    text = data.summary()
    assert "read: number [" in text and "metrics: accuracy" in text
    assert repr(data).startswith("Data(train 16, valid 4, batch_size=8, Recipe(")


def test_the_summary_of_a_source(texts):
    block = DataBlock((Text(), Category()), items=lambda folder: find_files(folder, [".txt"]))
    assert block.summary(texts).startswith("source: 20 items, the first is ")
    assert block.summary(texts / "none").startswith("FAILED: there is no folder")


def test_files_of_any_kind_are_found(texts):
    assert len(find_files(texts)) == 21
    (texts / "empty").mkdir()
    with pytest.raises(DataError, match="there are no files"):
        find_files(texts / "empty")
