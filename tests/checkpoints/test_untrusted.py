"""Checkpoints of somebody: what they may say, and that nothing else of them is believed."""

import copy
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, Trainer, load_weights
from trainbus.builtin import EMA, Checkpoint, EarlyStopping, Schedule
from trainbus.checkpoints import archive, optimizer_values
from trainbus.storage.lock import lock


def plugins():
    schedule = Schedule(name="one_cycle")
    return [Checkpoint(monitor="valid/loss"), EMA(), EarlyStopping("valid/loss"), schedule]


@pytest.fixture
def run(line, loader):
    return Trainer(epochs=2, plugins=plugins()).fit(line, loader, loader)


@pytest.fixture
def good(run):
    return run.dir / "checkpoints" / "step-00000010"


def changed(good, change, path="theirs"):
    """A checkpoint elsewhere with other parts."""
    parts = copy.deepcopy(archive.read(good))
    change(parts)
    archive.write(Path(path).absolute(), parts, archive.about(good))
    return path


def resumed(line, loader, path):
    trainer = Trainer(epochs=3, plugins=plugins(), run_dir="mine")
    return trainer.fit(line, loader, loader, resume=path)


@pytest.mark.parametrize("section", ["superseded", "last", "best"])
@pytest.mark.parametrize(
    "name", ["{home}", "../../../home", "..", "", "step-1", "step-00000001/x", 3]
)
def test_a_name_in_a_checkpoint_is_that_of_a_state_and_no_place(
    good, line, loader, section, name, tmp_path
):
    home = tmp_path / "home"
    home.mkdir()
    (home / "text.tex").write_text("two years of work")
    name = name.format(home=home) if isinstance(name, str) else name
    names = [[1.0, name]] if section == "best" else [name]
    path = changed(good, lambda parts: parts["plugins"]["checkpoint"].update({section: names}))
    with pytest.raises(CheckpointError, match=rf"section of checkpoint .*it\.{section}"):
        resumed(line, loader, path)
    assert (home / "text.tex").exists()


def test_how_a_step_is_computed_is_a_matter_of_the_process_and_not_of_a_file(good, line, loader):
    """torch refuses what cannot be together only when it makes the step."""

    def change(parts):
        group = parts["optimizers"][0]["param_groups"][0]
        group.update(fused=True, foreach=True, differentiable=True, capturable=True)

    run = resumed(line, loader, changed(good, change))
    given = torch.optim.SGD([torch.zeros(1)], lr=0.1).param_groups[0]
    for name in ("fused", "foreach", "differentiable"):
        assert run.optimizer.param_groups[0][name] == given[name]


def test_a_state_that_is_a_link_to_another_place_is_left_alone(good, line, loader, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "text.tex").write_text("two years of work")
    (good.parent / "step-00000001").symlink_to(home, target_is_directory=True)
    trainer = Trainer(epochs=3, plugins=plugins())
    trainer.fit(line, loader, loader, resume="auto")
    assert (home / "text.tex").exists()


OTHER = [None, 3, -1, 2**70, "x", [], {}, [1], {"a": 1}, float("nan"), True]


@pytest.mark.parametrize("field", ["format", "written", "about", "parts"])
def test_other_types_in_a_manifest_are_told_and_give_way_to_the_state_before(
    run, good, line, loader, field, caplog
):
    manifest = json.loads((good / "manifest.json").read_text())
    newer = good.parent / "step-00000099"
    shutil.copytree(good, newer)
    for other in OTHER:
        value = {**manifest, "written": "2999", field: other}
        (newer / "manifest.json").write_text(json.dumps(value))
        fine = {"about": isinstance(other, dict), "written": other == "x"}
        if not fine.get(field):
            with pytest.raises(CheckpointError):
                archive.check_state(newer)
        assert archive.newest_valid(good.parent) in (good, newer)
    (newer / "manifest.json").write_text("[" * 100_000)
    assert archive.newest_valid(good.parent).name != newer.name
    Trainer(epochs=3, plugins=plugins()).fit(line, loader, loader, resume="auto")
    assert "step-00000099 is damaged; trying an older checkpoint" in caplog.text


def paths_of(value, path=()):
    """The place of each value in nested dictionaries and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)) and len(value) < 20:
        items = enumerate(value)
    for key, item in items:
        yield from paths_of(item, (*path, key))


def put(parts, path, other):
    *outer, last = path
    for key in outer:
        parts = parts[key]
    if isinstance(parts, (dict, list)):
        parts[last] = other


@pytest.mark.parametrize("each", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_other_types_in_any_place_of_a_part_are_told_or_harmless(good, make_line, loader, each):
    parts = archive.read(good)
    line, told, count = make_line(), 0, 0
    for path in list(paths_of(parts))[1::each]:
        for other in (None, "x", -7, [1]):
            count += 1
            changed(good, lambda p, path=path, other=other: put(p, path, other))
            try:
                Trainer(epochs=2, plugins=plugins(), run_dir="mine").fit(
                    line, loader, loader, resume="theirs"
                )
            except CheckpointError:
                told += 1
    assert told > count / 2


NO_STATE = [None, "x", [1.0], {}, torch.zeros(2, 1)]
NO_MOMENT = [3.0, torch.tensor(3.0)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, value) for key in ("exp_avg", "exp_avg_sq", "step") for value in NO_STATE),
        *((key, value) for key in ("exp_avg", "exp_avg_sq") for value in NO_MOMENT),
    ],
)
def test_what_an_optimizer_keeps_is_what_its_step_takes(key, value):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    optimizer_values.check(optimizer, state, "it")
    state["state"][0][key] = value
    with pytest.raises(CheckpointError, match=f"{key} is "):
        optimizer_values.check(optimizer, state, "it")


def test_a_failed_resume_lets_the_directory_go(run, good, line, loader):
    parts = archive.read(good)
    parts["loop"]["global_step"] = "x"
    archive.write(good, parts, archive.about(good))
    with pytest.raises(CheckpointError, match=r"loop\.global_step is 'x'"):
        Trainer(epochs=3, plugins=plugins()).fit(line, loader, loader, resume=good)
    held = lock(run.dir)
    assert held is not None
    held.release()


@pytest.mark.parametrize("name", ["../other", "a/b", "/etc/x", ".hidden"])
def test_a_part_is_a_file_in_the_directory_of_the_checkpoint(good, name):
    manifest = json.loads((good / "manifest.json").read_text())
    manifest["parts"][name] = manifest["parts"]["model"]
    (good / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"manifest\.json\.parts: a key"):
        archive.check(good)


def test_a_manifest_without_an_end_is_not_waited_for(good):
    (good / "manifest.json").unlink()
    os.mkfifo(good / "manifest.json")
    with pytest.raises(CheckpointError, match="no regular file"):
        archive.check(good)


def test_a_packed_file_of_weights_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for each in source.infolist():
            packed.writestr(each.filename, source.read(each))
    with pytest.raises(CheckpointError, match="is packed, which torch does not do"):
        load_weights(nn.Linear(2, 2), tmp_path / "packed.pt")


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_shapes_are_compared_before_the_numbers_are_read(tmp_path, name):
    from safetensors.torch import save_file

    state = {"weight": torch.zeros(100, 10**6), "bias": torch.zeros(2)}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    del state
    before = _resident()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_weights(nn.Linear(2, 2), tmp_path / name)
    assert _resident() - before < 100 * 2**20  # the file has 400 MB


def _resident():
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_values_that_hold_themselves_or_each_other_too_often_are_refused(tmp_path):
    many = []
    for _ in range(60):
        many = [many, many]
    torch.save({"weight": many}, tmp_path / "many.pt")
    with pytest.raises(CheckpointError, match="it holds too many values"):
        load_weights(nn.Linear(2, 2), tmp_path / "many.pt")
    around = []
    around.append(around)
    torch.save({"weight": around}, tmp_path / "around.pt")
    with pytest.raises(CheckpointError, match="it holds itself"):
        load_weights(nn.Linear(2, 2), tmp_path / "around.pt")


def test_a_state_does_not_take_the_place_of_a_method(good, line, loader):
    def change(parts):
        parts["plugins"]["schedule"]["schedulers"][0]["step"] = "x"

    with pytest.raises(CheckpointError, match="has a value for 'step'"):
        resumed(line, loader, changed(good, change))
