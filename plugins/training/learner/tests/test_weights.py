"""Weights of an earlier training are the start of another one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainbus import UsageError
from trainbus_data import Category, Data, Number
from trainbus_learner import Learner

QUIET = ["-progress", "-journal", "-manifest"]


def net(outputs=3):
    body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Linear(8, outputs))


def data(words=("a", "b", "c")):
    x, y = torch.rand(24, 4), torch.arange(24) % len(words)
    blocks = (Number(4), Category(list(words)))
    return Data.from_tensors((x, y), (x, y), blocks=blocks, batch_size=8)


def learner(words=("a", "b", "c"), grouped=True, **options):
    groups = (lambda model: [[model[0]], [model[1]]]) if grouped else None
    options = {"plugins": QUIET, "groups": groups, **options}
    return Learner(data(words), net(len(words)), **options)


@pytest.fixture
def first():
    made = learner(plugins=["-progress", "checkpoint"])
    made.fit(1)
    return made


def places(first):
    """Every form in which weights are kept."""
    first.export("export")
    torch.save({"state_dict": first.model.state_dict()}, "wrapped.pth")
    torch.save(nn.DataParallel(first.model).state_dict(), "parallel.pth")
    return {
        "export": "export",
        "safetensors": first.save("kept.safetensors"),
        "torch": first.save("kept.pth"),
        "another program's": "wrapped.pth",
        "wrapped in front": "parallel.pth",
        "checkpoint": next((first.run.dir / "checkpoints").glob("step-*")),
        "run": first.run.dir,
    }


def same(one, other):
    return all(torch.equal(each, other[name]) for name, each in one.items())


def test_weights_of_every_form_are_taken(first):
    """By `load_weights` and by `weights=`; the model is what it was."""
    for form, place in places(first).items():
        loaded = learner()
        taken = loaded.load_weights(place)
        assert same(first.model.state_dict(), loaded.model.state_dict()), form
        assert same(first.model.state_dict(), learner(weights=place).model.state_dict()), form
        assert not taken.new
        assert loaded.pretrained
        assert "the head's too" in loaded.summary()


@pytest.mark.parametrize("grouped", [True, False])
def test_the_head_is_new_where_it_does_not_fit(first, grouped):
    place = first.save("kept.pth")
    other = learner(("a", "b"), grouped=grouped)
    taken = other.load_weights(place)
    assert taken.new == ["1.weight", "1.bias"]
    assert "1.weight" in repr(taken)
    assert same(first.model[0].state_dict(), other.model[0].state_dict())
    assert "2 tensors of the head are new" in other.choices["weights"]


@pytest.mark.parametrize("words", [("c", "b", "a"), ("x", "y", "z")])
def test_as_many_other_classes_get_a_new_head(first, words):
    """An export says what its outputs mean; the same number of outputs is not the same."""
    first.export("export")
    other = learner(words)
    before = other.model[1].weight.clone()
    assert "its classes are others" in str(other.load_weights("export"))
    assert torch.equal(other.model[1].weight, before)
    assert same(first.model[0].state_dict(), other.model[0].state_dict())


def test_weights_of_another_architecture_change_nothing(first):
    place = first.save("kept.pth")
    wide = nn.Sequential(nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9)), nn.Linear(9, 3))
    other = Learner(data(), wide, plugins=QUIET)
    before = {name: each.clone() for name, each in wide.state_dict().items()}
    with pytest.raises(UsageError, match="another architecture than Sequential"):
        other.load_weights(place)
    assert same(before, wide.state_dict())
    assert not other.pretrained


def test_what_holds_no_weights_is_refused(first, tmp_path):
    first.export("program", format="torch.export")
    torch.save([1, 2], "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty").mkdir()
    cases = {
        "nowhere": "no such file or directory",
        "program": "training goes on from one in the format 'weights'",
        "list.pth": "cannot be read as the tensors",
        "text.pth": "cannot be read as the tensors",
        "empty": "cannot be read as the tensors",
    }
    for place, message in cases.items():
        with pytest.raises(UsageError, match=message):
            first.load_weights(place)


class Touch:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return open, ("executed", "w")


def test_a_file_executes_nothing(first, tmp_path):
    torch.save({"0.0.weight": Touch()}, "evil.pth")
    with pytest.raises(UsageError, match=r"evil\.pth"):
        first.load_weights("evil.pth")
    assert not (tmp_path / "executed").exists()


def test_training_goes_on_from_there(first):
    place = first.save("kept.safetensors")
    other = learner(weights=place)
    other.fine_tune(1)
    assert other.run.status == "completed"
    numbers = Data.from_tensors(
        (torch.rand(24, 4), torch.rand(24, 1)), blocks=(Number(4), Number())
    )
    groups = lambda model: [[model[0]], [model[1]]]  # noqa: E731
    assert Learner(numbers, net(1), groups=groups, weights=place, plugins=QUIET).pretrained
