"""The weights of a model alone."""

import pytest
import safetensors.torch
import torch
from torch import nn

from trainbus import CheckpointError, load_weights, save_weights


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
