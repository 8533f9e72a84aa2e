"""How large batches are, how often items are drawn, and which are trained on."""

import pickle

import pytest
import torch

from trainbus_data import Categories, Category, Data, DataError, Number, splits


def in_memory(count=60, rare=10, **options):
    """Numbers, `rare` of which are called rare."""
    x = torch.arange(count).float()[:, None]
    y = (x[:, 0] < rare).long()
    options.setdefault("split", splits.everything())
    blocks = options.pop("blocks", (Number(), Category(["common", "rare"])))
    return Data.from_tensors((x, y), blocks=blocks, **options)


def of_table(count=60, rare=10, **options):
    rows = {"x": range(count), "kind": ["rare" if i < rare else "common" for i in range(count)]}
    options.setdefault("split", splits.everything())
    blocks = (Number(), Category())
    return Data.from_table(rows, blocks=blocks, num_workers=0, **options)


@pytest.mark.parametrize(
    ("items", "size"), [(10, 8), (144, 8), (319, 8), (320, 16), (1000, 32), (1280, 64), (9999, 64)]
)
def test_few_items_come_in_small_batches(items, size):
    """A power of two from 8 to 64 with which an epoch has 20 steps, if it can."""
    assert in_memory(items, 1).batch_size == size
    assert in_memory(items, 1, batch_size=48).batch_size == 48


def test_the_rule_goes_by_the_items_of_training():
    data = in_memory(400, split=splits.random(0.5))
    assert (len(data.train_items), data.batch_size) == (200, 8)
    assert data.batch_size_by_rule
    assert data.all_for_training().batch_size == 16
    assert not data.with_batch_size(32).batch_size_by_rule


@pytest.mark.parametrize("make", [in_memory, of_table])
def test_balanced_sampling_draws_labels_equally_often(make):
    """One of six items is rare; half of what is drawn is, and the epoch is as long as before."""
    data = make(600, 100, sampling="balanced")
    rare = data.vocab.index("rare")
    drawn = torch.cat([batch[1] for batch in data.train])
    assert len(drawn) == 600
    assert 0.4 < (drawn == rare).float().mean() < 0.6


@pytest.mark.parametrize("make", [in_memory, of_table])
def test_weights_of_labels_say_how_often_they_are_drawn(make):
    """Those with 0 never are; 1, 1.0 and "1" would be one label."""
    data = make(60, 10, sampling={"common": 0})
    assert {int(code) for batch in data.train for code in batch[1]} == {data.vocab.index("rare")}


@pytest.mark.parametrize("make", [in_memory, of_table])
def test_what_is_drawn_depends_on_seed_and_epoch_alone(make):
    """The same again, another epoch differs, and it begins anywhere."""

    def epoch(number, skip=0):
        loader = make(sampling="balanced").train
        loader.set_epoch(number)
        loader.start_at(skip)
        return torch.cat([batch[0] for batch in loader]).flatten()

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))
    assert torch.equal(epoch(0, 3), epoch(0)[24:])


def test_what_is_drawn_is_the_same_in_workers():
    data = of_table(sampling="balanced")
    pickle.dumps(data.train.dataset)
    again = of_table(sampling="balanced", batch_size=8)
    assert torch.equal(next(iter(data.train))[0], next(iter(again.train))[0])


def test_of_several_labels_the_greatest_weight_counts():
    x = torch.arange(40).float()[:, None]
    y = torch.zeros(40, 2)
    y[:, 0] = 1
    y[:4, 1] = 1
    blocks = (Number(), Categories(["often", "rare"]))
    data = Data.from_tensors((x, y), (x, y), blocks=blocks, sampling="balanced")
    drawn = torch.cat([batch[1] for batch in data.train])
    assert 0.3 < drawn[:, 1].mean() < 0.75


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"rar": 2}, "did you mean 'rare'"),
        ({"rare": -1}, "0 or above"),
        ({"rare": 0, "common": 0}, "no item has a weight above 0"),
        ("even", "give 'balanced'"),
    ],
)
def test_weights_that_cannot_be_are_refused(sampling, message):
    with pytest.raises(DataError, match=message):
        in_memory(sampling=sampling)


def test_numbers_have_no_classes():
    x = torch.rand(40, 1)
    with pytest.raises(DataError, match="the target is Number"):
        Data.from_tensors((x, x), blocks=(Number(), Number()), sampling="balanced")


def test_labels_are_counted():
    assert in_memory().class_counts() == {"common": 50, "rare": 10}
    assert of_table().class_counts() == {"common": 50, "rare": 10}


# --- all for training ----------------------------------------------------------------------------

EVERYTHING = {
    "everything": splits.everything(),
    "random": splits.random(0),
    "stratified": splits.stratified(0),
    "index": splits.by_index([]),
    "function": splits.by_function(lambda item: False),
}


@pytest.mark.parametrize("how", EVERYTHING)
def test_a_split_may_leave_nothing_for_validation(how, caplog):
    """It is said where the split does not say so itself."""
    for make in (in_memory, of_table):
        data = make(split=EVERYTHING[how])
        assert (len(data.train_items), data.valid, data.valid_items) == (60, None, None)
        assert "valid" not in repr(data)
        assert "train 60" in data.summary()
        with pytest.raises(DataError, match="no valid part"):
            data.one_batch("valid")
    assert ("no item is for validation" in caplog.text) == (how in ("index", "function"))


@pytest.mark.parametrize("make", [in_memory, of_table])
def test_data_that_have_a_validation_part_train_on_it_too(make):
    """In the last run: all items, each once, in one order for a seed; the test part stays."""
    data = make(split=splits.random(0.2, 0.1))
    whole = data.all_for_training()
    assert (len(whole.train_items), whole.valid) == (54, None)
    assert len(whole.test_items) == 6
    seen = sorted(float(x) for batch in whole.train for x in batch[0])
    tested = {float(x) for batch in whole.test for x in batch[0]}
    assert seen == [x for x in range(60) if x not in tested]
    assert whole.all_for_training() is whole


def test_nothing_for_training_is_an_error():
    with pytest.raises(DataError, match="train part is empty"):
        in_memory(split=splits.by_function(lambda item: True))
    with pytest.raises(DataError, match="train part is empty"):
        of_table(split=splits.by_function(lambda item: True))


# --- cleaning ------------------------------------------------------------------------------------


def files(tmp_path, **options):
    """Twenty files of numbers in two folders, read by a block."""
    from trainbus_data import Block

    class File(Block):
        kind, is_file, endings = "number", True, (".txt",)

        def encode(self, raw):
            return torch.tensor([float(raw.read_text())])

    for number in range(20):
        path = tmp_path / "files" / ("a" if number < 10 else "b") / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    blocks = (File(), Category())
    return Data.from_folder(tmp_path / "files", blocks, num_workers=0, **options)


def contents(data, stage):
    """{number: label} of a stage."""
    loader = getattr(data, stage)
    words = data.vocab
    return {int(x): words[y] for batch in loader for x, y in zip(*batch, strict=True)}


def test_files_are_dropped_and_relabelled_in_the_part_where_they_are(tmp_path):
    before = files(tmp_path)
    train, valid = contents(before, "train"), contents(before, "valid")
    drop, other = sorted(train)[0], sorted(train)[-1]
    gone = sorted(valid)[0]
    table = [
        {"file": f"{train[drop]}/{drop}.txt", "action": "drop", "label": ""},
        {"file": f"{train[other]}/{other}.txt", "action": "relabel", "label": "a"},
        {"file": str(tmp_path / "files" / valid[gone] / f"{gone}.txt"), "action": "Drop "},
        {"file": "b/19.txt", "action": None},
    ]
    after = files(tmp_path, clean=table)
    train.pop(drop)
    valid.pop(gone)
    assert contents(after, "train") == {**train, other: "a"}
    assert contents(after, "valid") == valid


def test_a_table_of_names_is_cleaned_by_a_csv(tmp_path):
    files(tmp_path)
    (tmp_path / "clean.csv").write_text("file,action,label\nfiles/a/1.txt,drop,\n")
    table = {"file": ["a/0.txt", "a/1.txt", "b/10.txt"], "kind": ["a", "a", "b"]}
    block = files(tmp_path).recipe.blocks[0]
    data = Data.from_table(
        table,
        blocks=(block, Category()),
        folder="files",
        split=splits.everything(),
        clean="clean.csv",
        num_workers=0,
    )
    assert contents(data, "train") == {0: "a", 10: "b"}


def test_a_new_label_may_be_a_new_class(tmp_path):
    table = [{"file": "a/0.txt", "action": "relabel", "label": "c"}]
    data = files(tmp_path, split=splits.everything(), clean=table)
    assert data.vocab == ["a", "b", "c"]
    assert contents(data, "train")[0] == "c"


def test_tables_that_say_nothing_or_too_much(tmp_path, caplog):
    assert len(files(tmp_path, clean=[]).train_items) == 16
    with pytest.raises(DataError, match="did you mean 'drop'"):
        files(tmp_path, clean=[{"file": "a/0.txt", "action": "dorp"}])
    with pytest.raises(DataError, match="no new label"):
        files(tmp_path, clean=[{"file": "a/0.txt", "action": "relabel", "label": ""}])
    with pytest.raises(DataError, match="no column 'file'"):
        files(tmp_path, clean=[{"path": "a/0.txt", "action": "drop"}])
    files(tmp_path, clean=[{"file": "a/99.txt", "action": "drop"}])
    assert "1 files of the table are not among the items, a/99.txt" in caplog.text
