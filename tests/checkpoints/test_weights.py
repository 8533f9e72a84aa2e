"""The weights of a model alone."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from trainbus import CheckpointError, Task, UsageError, load_weights, save_weights


def net(out=2):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, out))


def same(one, other):
    return all(
        torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items()
    )


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_come_back(tmp_path, name):
    one, other = net(), net()
    save_weights(one, tmp_path / "new" / name)
    load_weights(other, tmp_path / "new" / name)
    assert same(one, other)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


def test_others_read_our_safetensors_and_we_read_theirs(tmp_path):
    one, other, third = net(), net(), net()
    save_weights(one, tmp_path / "ours.safetensors")
    safetensors.torch.load_model(other, tmp_path / "ours.safetensors")
    assert same(one, other)
    safetensors.torch.save_model(one, tmp_path / "theirs.safetensors")
    load_weights(third, tmp_path / "theirs.safetensors")
    assert same(one, third)


@pytest.mark.parametrize("writer", [save_weights, safetensors.torch.save_model])
def test_tied_weights_are_kept_once_and_come_back_under_both_names(tmp_path, writer):
    def tied():
        model = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
        model["b"].weight = model["a"].weight
        return model

    one, other = tied(), tied()
    writer(one, tmp_path / "w.safetensors")
    assert len(safetensors.torch.load_file(tmp_path / "w.safetensors")) == 3
    load_weights(other, tmp_path / "w.safetensors")
    assert same(one, other)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_weights_that_do_not_fit_say_where_and_change_nothing(tmp_path, name):
    save_weights(net(out=5), tmp_path / name)
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2\.weight: \(5, 4\) in the file, \(2, 4\) in the"):
        load_weights(model, tmp_path / name)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match=f"{name} cannot be read|{name} holds more"):
        load_weights(net(), tmp_path / name)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file"):
        load_weights(net(), tmp_path / "none.pt")


def test_code_in_a_file_is_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"a": Hostile()}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="may execute code"):
        load_weights(net(), tmp_path / "w.pt")


def test_what_safetensors_cannot_hold_is_told(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"text": "hello"}

    with pytest.raises(CheckpointError, match="_extra_state is a dict"):
        save_weights(Extra(1, 1), tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


class Tied(nn.Module):
    """An embedding whose weights are those of the head, too."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_file_may_hold_tied_weights_under_either_name_alone(tmp_path, name):
    weight = torch.randn(5, 4)
    safetensors.torch.save_file(
        {name: weight}, tmp_path / "w.safetensors", metadata={"format": "pt"}
    )
    model = Tied()
    load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model.embed.weight, weight)
    assert model.head.weight is model.embed.weight


def test_weights_that_are_only_of_the_same_shape_are_not_tied(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    torch.save({"0.weight": torch.ones(3, 3)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"only in the model: 1.weight"):
        load_weights(model, tmp_path / "w.pt")


# --- files that people have ----------------------------------------------------------------------


def renamed(model, change):
    return {change(name): value for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda m: {"model": m.state_dict(), "epoch": 3},
        lambda m: {"state_dict": renamed(m, "model.{}".format), "global_step": 5, "loops": {}},
        lambda m: {"model": {"state_dict": m.state_dict()}},
        lambda m: renamed(m, "module.{}".format),
        lambda m: renamed(m, "_orig_mod.{}".format),
        lambda m: renamed(m, "module._orig_mod.{}".format),
        lambda m: renamed(m, lambda name: name.replace("2.", "2._orig_mod.")),
    ],
)
def test_names_of_wrappers_and_mappings_around_the_weights_are_seen_through(tmp_path, content):
    one, other = net(), net()
    torch.save(content(one), tmp_path / "w.ckpt")
    assert load_weights(other, tmp_path / "w.ckpt").is_whole
    assert same(one, other)


def test_a_model_and_its_task_read_each_other(tmp_path):
    one, other = net(), net()
    save_weights(Task.supervised(one), tmp_path / "task.pt")
    save_weights(one, tmp_path / "bare.pt")
    load_weights(other, tmp_path / "task.pt")
    assert same(one, other)
    task = Task.supervised(net())
    load_weights(task, tmp_path / "bare.pt")
    assert same(one, task.model)


def test_what_fits_is_taken_and_the_rest_is_told(tmp_path, caplog):
    class More(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.extra = net(out=5), nn.Linear(1, 1)

    one, other = More(), net()
    torch.save(one.state_dict(), tmp_path / "w.pt")
    found = load_weights(other, tmp_path / "w.pt", strict=False, prefix="body.")
    assert "0.weight" in found.taken
    assert found.differing == (
        "2.weight: (5, 4) in the file, (2, 4) in the model",
        "2.bias: (5,) in the file, (2,) in the model",
    )
    assert "2.weight: (5, 4) in the file" in caplog.text
    assert torch.equal(other[0].weight, one.body[0].weight)


def test_missing_and_unexpected_are_told(tmp_path):
    torch.save({"0.weight": torch.ones(4, 3), "other": torch.ones(1)}, tmp_path / "w.pt")
    found = load_weights(net(), tmp_path / "w.pt", strict=False)
    assert (found.taken, found.unexpected) == (("0.weight",), ("other",))
    assert "2.bias" in found.missing


@pytest.mark.parametrize(
    "rename", [{"encoder.": ""}, lambda name: name.removeprefix("encoder.") or None]
)
def test_names_are_changed(tmp_path, rename):
    one, other = net(), net()
    torch.save(renamed(one, "encoder.{}".format), tmp_path / "w.pt")
    load_weights(other, tmp_path / "w.pt", rename=rename)
    assert same(one, other)


def sharded(folder, model, kind="safetensors", **changes):
    names = list(model.state_dict())
    files = {name: f"model-0000{1 + (i > 2)}-of-00002.{kind}" for i, name in enumerate(names)}
    for file in set(files.values()):
        part = {name: model.state_dict()[name] for name in names if files[name] == file}
        if kind == "safetensors":
            safetensors.torch.save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
    index = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    (folder / f"{index}.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {**files, **changes}})
    )


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_several_files_with_an_index(tmp_path, kind):
    one, other = net(), net()
    sharded(tmp_path, one, kind)
    load_weights(other, tmp_path)
    assert same(one, other)


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "..", ""])
def test_an_index_names_files_beside_it_only(tmp_path, place):
    sharded(tmp_path, net(), **{"0.weight": place})
    with pytest.raises(CheckpointError, match="is no list of files of weights"):
        load_weights(net(), tmp_path)


def test_the_only_file_of_a_directory(tmp_path):
    one, other = net(), net()
    safetensors.torch.save_file(one.state_dict(), tmp_path / "model.safetensors")
    load_weights(other, tmp_path)
    assert same(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "body."}, "the names begin otherwise: 0.weight"),
        ({"prefix": 3}, "give a text"),
        ({"rename": 3}, "give {'old.': 'new.'}, or a function"),
        ({"rename": {"": "x."}, "strict": False}, "nothing of .* fits the model"),
    ],
)
def test_names_that_cannot_be(tmp_path, options, message):
    save_weights(net(), tmp_path / "w.pt")
    with pytest.raises((UsageError, CheckpointError), match=message):
        load_weights(net(), tmp_path / "w.pt", **options)


def test_a_file_that_needs_code_is_refused(tmp_path):
    torch.save({"state_dict": net().state_dict(), "hparams": Path("x")}, tmp_path / "w.ckpt")
    with pytest.raises(CheckpointError, match="may execute code, it is not loaded"):
        load_weights(net(), tmp_path / "w.ckpt")
