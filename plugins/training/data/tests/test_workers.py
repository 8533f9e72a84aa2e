"""Worker processes: one that ends names its item, and what cannot go to one is named before."""

import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from trainbus_data import Block, Category, Data, DataError, Number
from trainbus_data.items import Items
from trainbus_data.workers import check_portable, is_portable


class Deadly(Block):
    """A number; reading 7 ends the process, as a bug in a decoder does."""

    kind = "number"

    def encode(self, raw):
        if raw == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([float(raw)])


def deadly(**options):
    labels = [number % 2 for number in range(40)]
    blocks = (Deadly(), Category())
    return Data.from_lists(list(range(40)), labels, blocks, batch_size=4, num_workers=2, **options)


def item_seven(data):
    things = [raw for raw, _ in (data.train_items[i] for i in range(len(data.train_items)))]
    return things.index(7)


def test_a_worker_that_ends_names_the_item_that_it_read():
    data = deadly()
    with pytest.raises(DataError, match=rf"while it read item {item_seven(data)} of train") as bad:
        list(data.train)
    assert "num_workers=0" in str(bad.value)


def test_it_is_named_wherever_the_training_is_by_then():
    """Torch notices it in a signal handler, in the middle of a step."""
    data = deadly()
    with pytest.raises(DataError, match=rf"while it read item {item_seven(data)} of train"):
        for _ in data.train:
            for _ in range(200):
                signal.sigtimedwait([], 0.005)


PROGRAM = """
import multiprocessing
import torch
from trainbus_data import Category, Data, DataError, Number

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    for name, options in {
        "label": {"targets": lambda item: torch.tensor(item % 2)},
        "transform": {"targets": [0, 1] * 10, "item_transforms": [lambda parts, kinds: parts]},
    }.items():
        data = Data.from_lists(
            list(range(20)), blocks=(Number(), Category()), batch_size=4, num_workers=1, **options
        )
        try:
            print(name, sum(len(y) for _, y in data.train))
        except DataError as error:
            print(name, error)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="no forkserver here"
)
def test_processes_that_are_not_forked_get_labels_and_no_functions(tmp_path):
    """As on macOS, Windows and Python 3.14: what cannot be sent is named before it is tried."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, cwd=tmp_path
    )
    label, transform = done.stdout.splitlines()
    assert label == "label 16"
    assert "the item transform <lambda> cannot go to worker processes" in transform
    assert "num_workers=0" in transform


def test_what_cannot_be_sent_is_named():
    """A lambda and a file; what a module defines can."""
    spawn = multiprocessing.get_context("spawn")
    check_portable([("the label", str), ("the block", Category(["a", "b"]))], spawn)
    with pytest.raises(DataError, match="the transform cannot go to worker processes"):
        check_portable([("the transform", lambda parts, kinds: parts)], spawn)


def test_labels_of_a_local_function_are_taken_once_whatever_their_type():
    """Texts, NumPy's numbers, arrays of a few points: a worker gets them and no function."""
    points = np.zeros((3, 2))
    for label in ("a", np.int64(3), torch.tensor(1), points, [points.tolist()]):
        items = Items([0, 1], [float, lambda _, label=label: label])
        assert is_portable(items.portable().getters)
    large = Items([0, 1], [float, lambda _: np.zeros((100, 100))])
    assert large.portable().getters == large.getters


def test_a_local_function_goes_to_processes_that_are_forked():
    """As it always did."""
    data = Data.from_lists(
        list(range(20)), lambda item: item % 2, (Number(), Category()),
        item_transforms=[lambda parts, kinds: parts], num_workers=0,
    )  # fmt: skip
    assert sum(len(y) for _, y in data.train) == 16
