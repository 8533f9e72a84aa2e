"""Splits: pure functions of items, labels and a seed."""

import pytest

from trainbus_data import DataBlock, DataError, Number, splits


def labels_of(items):
    return lambda item: "rare" if item % 10 == 0 else "common"


def split(how, items=range(100)):
    items = list(items)
    return how(items, labels_of(items))


@pytest.mark.parametrize(
    "how",
    [
        splits.random(0.2, 0.1), splits.stratified(0.2, 0.1), splits.by_index(range(20), [50, 51]),
        splits.by_group(lambda item: item // 5, 0.2, 0.1), splits.by_time(lambda x: -x, 0.2, 0.1),
    ],
)  # fmt: skip
def test_each_item_is_in_one_part_and_again_the_same(how):
    """Nothing is lost or used twice, and a second call gives the same."""
    parts = split(how)
    assert len(parts) == 3
    assert sorted(index for part in parts for index in part) == list(range(100))
    assert split(how) == parts


def test_random_by_fraction_and_seed():
    """As many as asked for; another seed, others."""
    train, valid = split(splits.random(0.25, seed=1))
    assert (len(train), len(valid)) == (75, 25)
    assert split(splits.random(0.25, seed=2))[1] != valid


def test_stratified_keeps_shares():
    """A rare label is in each part as often as in all."""
    train, valid = split(splits.stratified(0.2))
    assert sum(index % 10 == 0 for index in valid) == 2
    assert sum(index % 10 == 0 for index in train) == 8


def test_groups_stay_together():
    """No group is in two parts."""
    train, valid = split(splits.by_group(lambda item: item // 5))
    assert not {index // 5 for index in train} & {index // 5 for index in valid}


def test_time_takes_the_last():
    """Validation is later than training, the test later than validation."""
    train, valid, test = split(splits.by_time(lambda item: (item * 7) % 100, 0.2, 0.1))

    def time(index):
        return (index * 7) % 100

    assert max(map(time, train)) < min(map(time, valid))
    assert max(map(time, valid)) < min(map(time, test))


def test_by_column_words_and_flags():
    """true is for validation, in each way a table writes it; or the words of the parts."""
    for yes, no in ((True, False), ("True", "False"), (1, 0), (1.0, 0.0), ("val", "train")):
        rows = [{"part": no}, {"part": yes}, {"part": no}]
        assert splits.by_column("part")(rows, None) == ([0, 2], [1])
    with pytest.raises(DataError, match="the value 'perhaps' in row 0"):
        splits.by_column("part")([{"part": "perhaps"}], None)
    with pytest.raises(DataError, match="did you mean 'part'"):
        splits.by_column("prat")([{"part": "train"}], None)


def test_by_folder():
    """The folder on the way says which part it is."""
    paths = ["d/train/a/1.png", "d/val/a/2.png", "d/test/a/3.png"]
    assert splits.by_folder("d")(paths, None) == ([0], [1], [2])
    with pytest.raises(DataError, match="in none of the folders"):
        splits.by_folder("d")(["d/other/1.png"], None)


def test_by_function():
    """A function of the item says it."""
    assert split(splits.by_function(lambda item: item < 3))[1] == [0, 1, 2]


def test_wrong_fractions_and_indices():
    """What cannot be split is said at once."""
    with pytest.raises(DataError, match=r"valid=1\.5"):
        splits.random(1.5)
    with pytest.raises(DataError, match="there is no item 200"):
        split(splits.by_index([200]))


def test_few_items_of_each_label_give_a_validation_part():
    """A fifth of all, spread over the labels; each label stays in training."""
    items = list(range(60))
    train, valid = splits.stratified(0.2)(items, lambda item: item // 2)
    assert len(valid) == 12
    assert {index // 2 for index in train} == set(range(30))


def test_a_single_item_of_a_label_is_for_training():
    """It could not be measured without being learned."""
    train, valid = splits.stratified(0.5)(list(range(9)), lambda item: "one" if item == 4 else "a")
    assert 4 in train
    assert len(valid) == 4


def test_a_file_in_folders_of_two_parts():
    """The last one of them is not guessed to be the part."""
    with pytest.raises(DataError, match=r"folders of several parts, valid and train: by_folder"):
        splits.by_folder()(["valid/train/1.png", "train/bus/2.png"], str)
    parts = splits.by_folder("d")(["d/valid/train/1.png", "d/train/bus/2.png"], str)
    assert parts == ([1], [0])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (0.2, r"split=0\.2: give splits\.random\(0\.2\)"),
        (splits.random, r"call it, splits\.random\(\)"),
    ],
)
def test_what_is_no_split_is_refused_before_anything_is_read(split, message):
    with pytest.raises(DataError, match=message):
        DataBlock((Number(), Number()), split=split)
