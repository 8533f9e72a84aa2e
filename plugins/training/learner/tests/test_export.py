"""Exported models: the same numbers elsewhere, and nothing that executes."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from trainbus_learner import ExportError, Learner, load

FRESH = """
import json, sys, torch
from pathlib import Path
images = torch.load("images.pt", weights_only=True)
about = json.loads(Path("out/description.json").read_text())
assert about["inputs"][0]["dtype"] == "uint8" and about["activation"] == "softmax"
output = torch.export.load("out/model.pt2").module()(images)
print(about["classes"][int(output[0].argmax())])
torch.save(output, "fresh.pt")
assert not [name for name in sys.modules if name.startswith("trainbus")]
"""


def outputs_of(trained, images):
    model = trained.model.eval()
    with torch.no_grad():
        return model(images.float() / 255)


def test_a_fresh_process_with_torch_alone_gives_the_same_numbers(trained, digits):
    trained.export("out", format="torch.export")
    torch.save(digits[0][:7], "images.pt")
    done = subprocess.run(
        [sys.executable, "-c", FRESH], check=True, capture_output=True, text=True, timeout=120
    )
    fresh = torch.load("fresh.pt", weights_only=True)
    assert torch.allclose(fresh, outputs_of(trained, digits[0][:7]), atol=1e-6)
    assert done.stdout.strip() == trained.predict(digits[0][0]).label


@pytest.mark.parametrize(
    "format", ["weights", "torch.export", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_what_is_loaded_predicts_as_the_learner_does(trained, digits, make_model, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    trained.export("out", format=format)
    model = make_model(seed=9) if format == "weights" else None
    predictor = load("out", model=model)
    for size in (1, 5):
        mine = list(trained.predictions(digits[0][:size]))
        for here, there in zip(mine, predictor.predictions(digits[0][:size]), strict=True):
            assert there.label == here.label
            assert torch.allclose(there.probabilities, here.probabilities, atol=1e-5)
    assert predictor.vocab == tuple(trained.data.vocab)


@pytest.mark.parametrize("format", ["torch.export", pytest.param("onnx", marks=pytest.mark.slow)])
def test_batch_height_and_width_are_open_where_the_model_takes_any(digits, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    pooled = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )
    pairs = [(digits[0][:20].float() / 255, digits[1][:20])]
    Learner((pairs, pairs), pooled, loss=functional.cross_entropy).export("out", format=format)
    predictor = load("out")
    assert predictor.about["dynamic"] == ["batch", "height", "width"]
    wide = torch.rand(1, 17, 12)
    with torch.no_grad():
        expected = pooled.eval()(wide[None]).softmax(dim=1)[0]
    assert torch.allclose(predictor.predict(wide).probabilities, expected, atol=1e-5)


def test_exporting_changes_nothing_of_the_learner(trained):
    trained.model.train()
    state = torch.get_rng_state()
    trained.export("out")
    assert trained.model.training and torch.get_rng_state().equal(state)
    names = set(load_file("out/weights.safetensors"))
    assert names == set(trained.model.state_dict())


def test_a_path_that_is_taken_is_left_alone_unless_it_is_an_export(trained, own_directory):
    trained.export("out")
    with pytest.raises(ExportError, match="exists; give another path, or overwrite=True"):
        trained.export("out")
    trained.export("out", format="torch.export", overwrite=True)
    assert not (own_directory / "out" / "weights.safetensors").exists()
    (own_directory / "mine").mkdir()
    with pytest.raises(ExportError, match="is no export"):
        trained.export("mine", overwrite=True)
    with pytest.raises(ExportError, match="did you mean 'onnx'"):
        trained.export("else", format="onx")


def test_a_model_that_is_no_graph_says_so_and_leaves_nothing(digits, own_directory):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            return self.head(x.flatten(1)) * (1 if x.mean().item() > 0 else 2)

    pairs = [(digits[0][:20].float() / 255, digits[1][:20])]
    learner = Learner((pairs, pairs), Odd(), loss=functional.cross_entropy)
    with pytest.raises(ExportError, match="Odd cannot be exported as a graph"):
        learner.export("out", format="torch.export")
    assert not list(own_directory.iterdir())


# --- files that are not right --------------------------------------------------------------------


def described(change):
    path = Path("out/description.json")
    about = json.loads(path.read_text())
    change(about)
    path.write_text(json.dumps(about))


def test_weights_without_a_description_of_their_model_ask_for_it(trained):
    trained.export("out")
    with pytest.raises(ExportError, match=r"load\(path, model=...\)"):
        load("out")
    with pytest.raises(ExportError, match="do not fit Linear"):
        load("out", model=nn.Linear(2, 2))


def test_a_builder_is_taken_from_installed_distributions_alone(trained, monkeypatch):
    ran = []
    monkeypatch.setattr("os.getcwd", lambda: ran.append(1))
    trained.export("out")
    described(lambda about: about["model"].update(build={"builder": "os:getcwd", "options": {}}))
    with pytest.raises(ExportError, match="no installed distribution offers"):
        load("out")
    assert not ran


def test_a_builder_of_an_installed_distribution_builds_it(trained, digits, make_model, monkeypatch):
    class Offered:
        name, value = "digits", "some_package:build"

        def load(self):
            return lambda seed: make_model(seed)

    offered = {"trainbus.models": [Offered()]}
    monkeypatch.setattr(
        "trainbus_learner.loading.entry_points", lambda group: offered.get(group, [])
    )
    trained.model_description = {"builder": "some_package:build", "options": {"seed": 3}}
    try:
        trained.export("out")
    finally:
        trained.model_description = None
    assert load("out").predict(digits[0][0]).label == trained.predict(digits[0][0]).label
    described(lambda about: about["model"]["build"].update(options={"sede": 3}))
    with pytest.raises(ExportError, match="cannot build its model"):
        load("out")


def test_damaged_foreign_and_newer_exports_are_told_apart(trained, own_directory):
    with pytest.raises(ExportError, match="there is no 'out'"):
        load("out")
    trained.export("out")
    weights = own_directory / "out" / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\1\2\3")
    with pytest.raises(ExportError, match=r"checksum of weights\.safetensors differs"):
        load("out")
    weights.unlink()
    with pytest.raises(ExportError, match="is missing"):
        load("out")
    described(lambda about: about.update(format=99))
    with pytest.raises(ExportError, match="format 99, this trainbus-learner reads up to 1"):
        load("out")
    (own_directory / "out" / "description.json").write_text("[1, 2")
    with pytest.raises(ExportError, match="is no export of a learner, or is damaged"):
        load("out")
    with pytest.raises(ExportError, match="is no export of a learner"):
        load(own_directory)


def rewritten(name, change):
    """The archive of the export with one member changed or added, and the checksum that fits."""
    from trainbus_learner.description import sha256

    file = Path("out/model.pt2")
    with zipfile.ZipFile(file) as archive:
        members = {each: archive.read(each) for each in archive.namelist()}
    members[name] = change(members.get(name, b""))
    with zipfile.ZipFile(file, "w") as archive:
        for each, content in members.items():
            archive.writestr(each, content)
    described(lambda about: about["files"].update({"model.pt2": sha256(file)}))


WEIGHTS, GRAPH = "archive/data/weights/model_weights_config.json", "archive/models/model.json"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("archive/data/constants/custom_obj_0", lambda old: b"cos\nsystem\n."),
        ("archive/data/aotinductor/model/a.so", lambda old: b"ELF"),
        (WEIGHTS, lambda old: old.replace(b'"use_pickle": false', b'"use_pickle": true', 1)),
        (GRAPH, lambda old: old.replace(b"torch.ops.aten.linear.default", b"torch.os.system", 1)),
        (GRAPH, lambda old: old.replace(b"Symbol(", b"open(", 1)),
        ("archive/data/sample_inputs/model.pt", lambda old: b"cos\nsystem\n."),
    ],
)
def test_an_archive_that_could_execute_something_is_not_loaded(trained, name, change):
    trained.export("out", format="torch.export")
    rewritten(name, change)
    with pytest.raises(ExportError, match="may execute code"):
        load("out")


def test_an_export_holds_nothing_of_the_data(trained):
    trained.export("out", format="torch.export")
    (example,), _ = torch.export.load("out/model.pt2").example_inputs
    assert not example.any()


def test_batch_transforms_that_would_be_missing_are_told(digits, model, image_block):
    from trainbus_data import Category, Data

    data = Data.from_tensors(
        (digits[0][:50], digits[1][:50]), (digits[0][50:90], digits[1][50:90]),
        blocks=(image_block, Category()), batch_transforms=[lambda batch, kinds: batch],
    )  # fmt: skip
    with pytest.raises(ExportError, match="batch transforms"):
        Learner(data, model).export("out")


# --- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path):
    """A disk without room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    with (place / "filling").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(512))
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("format", ["weights", "torch.export", "onnx"])
def test_a_full_disk_is_told_as_such_and_the_process_lives(trained, full_disk, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    if (pid := os.fork()) == 0:
        told = ""
        try:
            trained.export(full_disk / "model", format=format)
        except ExportError as error:
            told = str(error)
        finally:
            gc.collect()
            right = "No space left on device" in told and len(list(full_disk.iterdir())) == 1
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("number", [1, 2])
def test_an_export_whose_place_cannot_be_taken_leaves_the_one_of_before(
    trained, tmp_path, monkeypatch, number
):
    path = tmp_path / "model"
    trained.export(path, format="weights")
    before, calls, real = (path / "description.json").read_bytes(), [], os.rename

    def rename(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            raise OSError(5, "Input/output error")
        real(*arguments, **options)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(ExportError, match="Input/output error"):
        trained.export(path, format="torch.export", overwrite=True)
    assert (path / "description.json").read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_is_found_when_its_process_was_killed_between_two_renames(trained, tmp_path):
    trained.export(tmp_path / "model", format="torch.export")
    (tmp_path / "model").rename(tmp_path / ".model.old")
    load(tmp_path / "model")
    trained.export(tmp_path / "model", format="torch.export")
    load(tmp_path / "model")
