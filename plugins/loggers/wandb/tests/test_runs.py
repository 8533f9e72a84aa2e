"""Runs from their beginning to their end, offline: status, resume, neighbours, what is missing."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import wandb

from trainbus import JournalFile, PluginError, Trainer, hookimpl
from trainbus.builtin.checkpoint import Checkpoint
from trainbus.testing import Line
from trainbus_wandb import Wandb


def test_a_completed_run_is_finished(batches, read):
    run = Trainer(plugins=[Wandb()]).fit(Line(), batches)
    assert read(run.dir)[0].exit_code == 0


@pytest.mark.parametrize(("error", "code"), [(ZeroDivisionError, 1), (KeyboardInterrupt, 255)])
def test_a_run_that_fails_or_is_interrupted_says_so(batches, read, error, code):
    trainer = Trainer(plugins=[Wandb()])
    runs = []

    @trainer.on("train_batch_end")
    def fail(run):
        runs.append(run)
        raise error

    with pytest.raises(error):
        trainer.fit(Line(), batches)
    (file,) = read(runs[0].dir)
    assert file.exit_code == code
    assert len(file.series("train/loss")) == 1


def test_the_header_has_the_command_that_sends_the_run(batches, read):
    run = Trainer(plugins=[Wandb()]).fit(Line(), batches)
    path = read(run.dir.absolute())[0].path.parent
    kind, _, command = run.header["wandb"].partition("; later: ")
    assert kind == "offline"
    pattern = command.removeprefix("wandb sync ")
    assert list(Path("/").glob(pattern.lstrip("/"))) == [path]


def test_fit_and_test_with_one_plugin_are_two_runs(batches, read):
    trainer, task = Trainer(plugins=[Wandb()]), Line()
    trained = trainer.fit(task, batches)
    trainer.test(task, batches)
    files = [file for path in sorted(trained.dir.parent.iterdir()) for file in read(path)]
    assert len({file.run.run_id for file in files}) == 2
    assert sorted(len(file.series("test/loss")) for file in files) == [0, 1]


def test_a_run_of_the_users_own_goes_on_beside_it(batches, read, tmp_path):
    mine = wandb.init(project="mine", dir=str(tmp_path))
    try:
        run = Trainer(plugins=[Wandb()]).fit(Line(), batches)
        assert wandb.run is mine
        mine.log({"x": 1})
    finally:
        mine.finish()
    assert read(tmp_path)[0].rows[0]["x"] == 1
    assert len(read(run.dir)[0].series("train/loss")) == 5


def test_steps_that_go_back_are_all_kept(batches, read):
    checkpoint = Checkpoint(keep_last=2)
    first = Trainer(epochs=2, plugins=[Wandb(), checkpoint]).fit(Line(), batches)
    other = [(inputs + 1, target) for inputs, target in batches]
    trainer = Trainer(epochs=2, plugins=[Wandb(), checkpoint])
    trainer.fit(Line(), other, resume=first.dir / "checkpoints" / "step-00000005")
    files = read(first.dir)
    steps = [step for file in files for step, _ in file.series("train/loss")]
    assert steps == [*range(1, 11), *range(6, 11)]
    numbers = [row["_step"] for file in files for row in file.rows]
    assert numbers == sorted(set(numbers))


class Failing(Wandb):
    """Loses the connection at its first flush."""

    failed = False

    @hookimpl
    def on_log_flush(self, run):
        if not self.failed:
            self.failed = True
            raise ConnectionError("gone")
        super().on_log_flush(run)


@pytest.mark.slow
def test_what_is_delivered_again_is_there_once(batches, read):
    plugin = Failing()
    run = Trainer(epochs=2, plugins=[plugin]).fit(Line(), batches, batches)
    assert plugin.failed
    (file,) = read(run.dir)
    assert [step for step, _ in file.series("train/loss")] == list(range(1, 11))
    assert [step for step, _ in file.series("valid/loss")] == [5, 10]


SCRIPT = """
    import os, signal, time
    from trainbus import Trainer
    from trainbus.testing import Line, make_line_loader
    from trainbus_wandb import Wandb

    trainer = Trainer(epochs=3, plugins=[Wandb(console=True), "checkpoint"])

    @trainer.on("epoch_start")
    def die(run):
        if run.epoch == 2:
            print("what is printed")
            time.sleep(1.5)  # the logger gets all that was logged so far
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.fit(Line(), make_line_loader())
"""


@pytest.fixture
def killed(tmp_path):
    """The directory of a run that was killed after 10 of 15 steps."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_SERVICE", None)  # it has a client process of its own
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == -signal.SIGKILL
    (path,) = (tmp_path / "runs").iterdir()
    return path


def test_a_killed_run_loses_nothing_and_goes_on_as_the_same_run(killed, batches, read):
    with JournalFile.open(killed / "journal.db") as journal:
        position = journal.logger("wandb").position
    (before,) = read(killed, ended=False)
    assert position >= before.rows[-1]["_step"] > 0
    assert any("what is printed" in each.line for each in before.of("output_raw"))
    trainer = Trainer(epochs=3, plugins=[Wandb(), "checkpoint"])
    assert trainer.fit(Line(), batches, resume="auto").dir.samefile(killed)
    first, second = read(killed)
    assert first.of("run")[0].run_id == second.of("run")[0].run_id
    steps = [step for file in (first, second) for step, _ in file.series("train/loss")]
    assert steps == list(range(1, 16))
    assert not first.of("exit") and second.exit_code == 0
    assert not second.of("run")[0].display_name


# --- what is missing, and what is wrong ----------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "on"}, r"Wandb\(mode='on'\): give 'online' or 'offline'"),
        ({"init_timeout": 0}, r"Wandb\(init_timeout=0\): give a number greater than 0"),
        ({"finish_timeout": -1}, r"Wandb\(finish_timeout=-1\): give a number greater than 0"),
    ],
)
def test_an_option_that_cannot_be_is_an_error(options, message):
    with pytest.raises(PluginError, match=message):
        Wandb(**options)


def test_without_its_sdk_the_run_stops_and_names_what_to_install(monkeypatch, batches):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PluginError) as caught:
        Trainer(plugins=[Wandb()]).fit(Line(), batches)
    assert "plugin 'wandb' cannot import its SDK" in str(caught.value)
    assert "pip install 'wandb>=0.31' 'pillow>=10.1'" in str(caught.value)


def test_an_sdk_that_is_too_old_is_named(monkeypatch, tmp_path, batches):
    (tmp_path / "wandb-0.16.0.dist-info").mkdir()
    (tmp_path / "wandb-0.16.0.dist-info" / "METADATA").write_text("Name: wandb\nVersion: 0.16.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"needs wandb 0\.31 or newer, not 0\.16\.0: pip install"):
        Trainer(plugins=[Wandb()]).fit(Line(), batches)


def test_the_sdk_is_not_imported_before_a_run_starts():
    code = "import sys, trainbus_wandb; trainbus_wandb.Wandb(); sys.exit('wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_shared_run_is_an_error(environment, batches):
    environment(MODE="shared")
    with pytest.raises(PluginError, match="WANDB_MODE is 'shared'"):
        Trainer(plugins=[Wandb()]).fit(Line(), batches)


def test_a_disabled_client_writes_nothing(environment, batches):
    environment(MODE="disabled")
    trainer = Trainer(plugins=[Wandb()])
    trainer.on("train_batch_end", once=True)(lambda run: run.log_tags({"a": "b"}))
    run = trainer.fit(Line(lr=0.1), batches)
    assert not list(run.dir.rglob("*.wandb"))
    assert not run.errors
    assert run.header["wandb"] == "disabled by WANDB_MODE"


def test_a_dry_run_leaves_nothing(batches, tmp_path):
    Trainer(plugins=[Wandb()], dry_run=1).fit(Line(), batches)
    assert not list(tmp_path.rglob("*wandb*"))


def test_the_files_can_be_elsewhere(batches, tmp_path, read):
    run = Trainer(plugins=[Wandb(dir=tmp_path / "a" / "b")]).fit(Line(), batches)
    assert len(read(tmp_path / "a" / "b")) == 1 and not (run.dir / "wandb").exists()


@pytest.mark.parametrize("on", [False, True])
def test_system_metrics_are_an_option(batches, read, on):
    run = Trainer(plugins=[Wandb(system_metrics=on)]).fit(Line(), batches)
    assert bool(read(run.dir)[0].of("stats")) is on
