"""What is no state of the training: it is set aside and told, and the training goes on."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus import CheckpointError, Task, Trainer, hookimpl, load_weights, save_weights
from trainbus.builtin import Checkpoint
from trainbus.checkpoints import archive, states

DATA = [(torch.ones(4, 3), torch.zeros(4, dtype=torch.long))] * 4


def fit(run_dir="runs", epochs=2, resume=None, plugins=(), **options):
    keep = Checkpoint(monitor="valid/loss", **options)
    trainer = Trainer(epochs=epochs, run_dir=run_dir, plugins=[*plugins, keep])
    task = Task.supervised(nn.Linear(3, 2))
    return trainer.fit(task, DATA, DATA[:1], resume=resume)


@pytest.fixture
def no_links(monkeypatch):
    """A file system without symbolic links."""

    def none(*_args, **_options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", none)


# --- the best ------------------------------------------------------------------------------------


def test_without_links_the_best_is_a_file_with_its_name(no_links):
    run = fit()
    best = run.dir / "checkpoints" / "best"
    assert (run.status, run.errors) == ("completed", [])
    assert best.is_file() and not best.is_symlink()
    assert best.read_text() == "best-00000008"
    archive.check(best)
    net = Task.supervised(nn.Linear(3, 2))
    load_weights(net, best)
    assert torch.equal(net.state_dict()["model.weight"], run.task.state_dict()["model.weight"])
    again = fit(epochs=3, resume="best")
    assert (again.dir, again.global_step) == (run.dir, 12)
    by_path = fit(epochs=4, resume=best)
    assert (by_path.dir, by_path.global_step) == (run.dir, 16)


@pytest.mark.parametrize("text", ["../../secret", "/etc", "best-1/../..", "best", "", "x" * 101])
def test_a_file_in_place_of_the_best_names_nothing_but_a_state_beside_it(tmp_path, text):
    path = tmp_path / "best"
    path.write_text(text)
    assert states.leading_to(path) == path
    with pytest.raises(CheckpointError):
        archive.check(path)


def test_a_copy_of_the_best_gives_way_to_a_link():
    fit()
    shutil.copytree("runs", "copy")  # follows links
    (best,) = Path("copy").glob("*/checkpoints/best")
    assert best.is_dir() and not best.is_symlink()
    run = fit("copy", epochs=4, resume="auto")
    assert (run.status, run.global_step, run.errors) == ("completed", 16, [])
    assert best.is_symlink()
    assert best.resolve().name == "best-00000016"


def test_a_best_that_can_be_neither_is_told_once(monkeypatch, no_links, caplog):
    real = os.replace

    def replace(source, target, **options):
        if Path(target).name == "best":
            raise OSError(errno.EPERM, "Operation not permitted")
        real(source, target, **options)

    monkeypatch.setattr(os, "replace", replace)
    run = fit(epochs=3)
    assert run.status == "completed"
    assert [error for error in run.errors if "best is left out" in error] == run.errors
    assert len(run.errors) == 1


# --- a state that cannot be taken ----------------------------------------------------------------


class Own:
    plugin_name = "own"

    @hookimpl
    def on_epoch_end(self, run):
        pass

    def state_dict(self):
        raise ConnectionError("no connection")

    def load_state_dict(self, state):
        pass


def test_a_plugin_whose_state_cannot_be_taken_is_named_and_not_the_one_who_asked():
    with pytest.raises(CheckpointError, match=r"plugin 'own'.*: state_dict failed") as raised:
        fit(plugins=[Own()])
    notes = " ".join(raised.value.__notes__)
    assert "raised by plugin 'own'" in notes
    assert "checkpoint" not in notes
    assert isinstance(raised.value.__cause__, ConnectionError)


@pytest.mark.parametrize("background", [False, True])
def test_where_that_was_asked_for_the_run_goes_on_without_such_a_state(background, caplog):
    run = fit(plugins=[Own()], on_error="warn", background=background)
    assert (run.status, run.global_step) == ("completed", 8)
    assert all("plugin 'own'" in error and "no connection" in error for error in run.errors)
    assert run.errors


def test_the_states_of_before_stay_when_a_state_cannot_be_taken():
    class Later(Own):
        def state_dict(self):
            if self.run.epoch:
                return super().state_dict()
            return {}

        @hookimpl
        def on_run_start(self, run):
            self.run = run

    run = fit(plugins=[Later()], on_error="warn", epochs=3)
    assert run.status == "completed"
    names = states.found(run.dir / "checkpoints")
    assert names == {"best-00000004", "step-00000004"}


def test_a_task_whose_state_cannot_be_taken_is_named():
    class Broken(nn.Linear):
        def get_extra_state(self):
            raise RuntimeError("the table is gone")

        def set_extra_state(self, state):
            pass

    trainer = Trainer(plugins=["checkpoint"])
    with pytest.raises(CheckpointError, match="the task: state_dict failed: RuntimeError"):
        trainer.fit(Task.supervised(Broken(3, 2)), DATA)


# --- names and disks -----------------------------------------------------------------------------


def test_a_task_with_a_long_name_in_any_script_is_trained_and_found_again():
    for name in ("漢" * 80, "é" * 200, "x" * 300):
        task = type(name, (type(Task.supervised(nn.Linear(3, 2))),), {})
        net = Task.supervised(nn.Linear(3, 2))
        net.__class__ = task
        run = Trainer(run_dir=name[0], plugins=["checkpoint"]).fit(net, DATA)
        assert len(os.fsencode(run.dir.name)) < 143
        again = Trainer(epochs=2, run_dir=name[0], plugins=["checkpoint"]).fit(
            net, DATA, resume="auto"
        )
        assert again.dir == run.dir


LIMITED = """
import resource, sys
import torch
from torch import nn
from trainbus import CheckpointError, save_weights
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    save_weights(nn.Linear(100, 100), sys.argv[1])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_for_which_there_is_no_room_is_told_in_words(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save_weights(nn.Linear(3, 2), path)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert re.match(r"cannot write .*: .*File too large", done.stdout), done.stdout + done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
