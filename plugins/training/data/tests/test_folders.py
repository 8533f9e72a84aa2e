"""What folders say: parts, classes, links, and files beside them."""

from pathlib import Path

import pytest
import torch

from trainbus_data import Block, Category, Data, DataError, find_files, splits


class Text(Block):
    """A text file as the codes of its bytes."""

    kind, is_file, endings = "text", True, (".txt",)

    def encode(self, raw):
        return torch.tensor(list(Path(raw).read_bytes()[:1]))


BLOCKS = (Text(), Category())


def write(*folders, count=6):
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Path(folder, f"{number}.txt").write_text(f"{number} of {folder}")


def sizes(data):
    stores = (data.train_items, data.valid_items, data.test_items)
    return [None if store is None else len(store) for store in stores]


def test_a_class_may_be_called_train(caplog):
    """Beside other classes it is one, which is said; labels of a function see all files."""
    write("d/bus", "d/car", "d/train")
    data = Data.from_folder("d", BLOCKS)
    assert data.vocab == ["bus", "car", "train"]
    assert sizes(data) == [14, 4, None]
    assert "d/train is taken as a class, for there is bus, car beside it" in caplog.text
    labelled = Data.from_folder("d", BLOCKS, label=lambda path: path.parts[1])
    assert labelled.vocab == ["bus", "car", "train"]


def test_a_class_may_be_called_train_inside_of_a_part():
    """The first folder on the way is the part, the last one the class."""
    write("d/train/train", "d/train/bus", "d/val/train", "d/val/bus")
    data = Data.from_folder("d", BLOCKS)
    assert data.vocab == ["bus", "train"]
    assert sizes(data) == [12, 12, None]


def test_folders_beside_the_parts_are_left_out_and_said(caplog):
    """Where there are two parts, other folders are none."""
    write("d/train/a", "d/train/b", "d/val/a", "d/val/b", "d/extra/a")
    assert sizes(Data.from_folder("d", BLOCKS)) == [12, 12, None]
    assert "train, val are the parts of the data, and extra is left out" in caplog.text


def test_a_folder_without_files_beside_train_changes_nothing():
    """It holds no class."""
    write("d/train/a", "d/train/b")
    Path("d/notes").mkdir()
    Path("d/notes/README.md").write_text("nothing")
    assert Data.from_folder("d", BLOCKS).vocab == ["a", "b"]


def test_a_test_part_without_labels_is_left_out_and_said(caplog):
    """The layout of a competition: train/CLASS/FILE and test/FILE."""
    write("d/train/a", "d/train/b", "d/test", count=10)
    data = Data.from_folder("d", BLOCKS)
    assert sizes(data) == [16, 4, None]
    assert "d/test: 10 files in no folder of a class" in caplog.text


def test_a_part_for_validation_without_classes_is_refused():
    """It would have nothing to measure by."""
    write("d/train/a", "d/train/b", "d/valid")
    with pytest.raises(DataError, match=r"d/valid: its 6 files are in no folders"):
        Data.from_folder("d", BLOCKS)


def test_a_file_beside_the_classes_is_refused():
    """It would make a class of the folder's own name."""
    write("d/a", "d/b")
    Path("d/banner.txt").write_text("x")
    with pytest.raises(DataError, match=r"d/banner\.txt lies beside the folders that are the cl"):
        Data.from_folder("d", BLOCKS)
    assert Data.from_folder("d", BLOCKS, label=lambda path: path.stem[0] < "3").vocab


def test_hidden_files_and_empty_folders(caplog):
    """Hidden ones are not seen; a folder without files is no class, which is said."""
    write("d/a", "d/b", "d/.cache")
    Path("d/a/.hidden.txt").write_text("x")
    Path("d/c").mkdir()
    data = Data.from_folder("d", BLOCKS)
    assert data.vocab == ["a", "b"]
    assert sum(sizes(data)[:2]) == 12
    assert "no class without files: c" in caplog.text


def test_classes_of_deeper_folders_are_said(caplog):
    """The class is the folder of the file; which of several that is, nobody said."""
    write("d/bus/day", "d/car/night")
    assert Data.from_folder("d", BLOCKS).vocab == ["day", "night"]
    assert "'day' for bus/day; label=" in caplog.text


def test_a_link_that_leads_back_is_left_out_and_said(caplog):
    """Each file is there once."""
    write("d/a", "d/b")
    Path("d/a/back").symlink_to("..")
    Path("d/b/again").symlink_to(Path("d/a").resolve())
    Path("d/b/copy.txt").symlink_to(Path("d/a/0.txt").resolve())
    assert len(find_files("d")) == 12
    assert "links to what is in the folder anyway are left out" in caplog.text


def test_links_to_files_and_folders_elsewhere_are_followed():
    """A data set may be made of links; one that leads back from there ends."""
    write("store/one", "store/two")
    Path("d/b").mkdir(parents=True)
    Path("d/a").symlink_to(Path("store/one").resolve())
    Path("store/one/back").symlink_to(Path("store/one").resolve())
    for number in range(6):
        Path(f"d/b/{number}.txt").symlink_to(Path(f"store/two/{number}.txt").resolve())
    assert len(find_files("d")) == 12


def test_a_file_in_training_and_validation_is_said(caplog):
    """Its items are known from training."""
    write("d/a", "d/b")
    files = [*find_files("d"), Path("d/a/0.txt")]
    labels = [file.parent.name for file in files]
    Data.from_lists(files, labels, BLOCKS, split=splits.by_index([12]))
    assert "1 files are in training and in valid, d/a/0.txt for example" in caplog.text


def test_a_label_of_a_local_function_goes_to_any_process():
    """It is taken once, when the data are made: a process that is not forked gets no function."""
    import pickle

    write("d/a", "d/b")
    asked = []

    def label(path):
        asked.append(path)
        return path.parent.name

    data = Data.from_folder("d", BLOCKS, label=label, num_workers=0)
    before = len(asked)
    items = pickle.loads(pickle.dumps(data.train_items))
    assert [items[0][1], items[9][1]] == ["a", "b"]
    assert sum(len(y) for _, y in data.train) == 10
    assert len(asked) == before
