"""What becomes of a run: its experiment, its archive, its end; and what is missing."""

import logging
import os
import shlex
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from trainbus import JournalFile, PluginError, Trainer
from trainbus.builtin.journal import Journal
from trainbus.testing import Line
from trainbus_comet import Comet


def offline(**options):
    return Comet(mode="offline", **options)


def fit(batches, *plugins, task=Line, epochs=1, **options):
    trainer = Trainer(epochs=epochs, plugins=["checkpoint", *plugins])
    return trainer.fit(task(), batches, **options)


def test_a_fit_and_a_test_of_one_trainer_are_two_experiments(batches, archives):
    trainer = Trainer(epochs=1, plugins=[offline()])
    fitted = trainer.fit(Line(width=4), batches)
    trainer.test(Line(), batches)
    (tested,) = set(Path("runs").resolve().iterdir()) - {fitted.dir.resolve()}
    (first,), (second,) = archives(fitted.dir / "comet"), archives(tested / "comet")
    assert first.about["offline_id"] != second.about["offline_id"]
    assert second.names() == {"test/loss"}
    assert "width" not in second.params()


def test_the_header_has_the_command_that_uploads_it(batches):
    trainer = Trainer(epochs=1, plugins=[offline()], run_dir="my runs")
    seen = []
    trainer.on("fit_start", tryfirst=True)(lambda run: seen.append(run.header["comet"]))
    run = trainer.fit(Line(), batches)
    (archive,) = (run.dir / "comet").iterdir()
    command, verb, pattern = shlex.split(seen[0])
    assert (command, verb) == ("comet", "upload")
    assert list(Path.cwd().glob(pattern)) == [archive.resolve()]


def test_resumed_a_run_continues_its_experiment(batches, archives):
    first = fit(batches, offline(name="mine"))
    second = fit(batches, offline(name="mine"), epochs=2, resume="auto")
    assert second.dir == first.dir
    one, two = archives(first.dir / "comet")
    assert one.about["offline_id"] == two.about["offline_id"]
    assert two.about["resume_strategy"] == "get_or_create"
    assert [step for step, _ in one.series("train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in two.series("train/loss")] == [6, 7, 8, 9, 10]
    assert one.others()["Name"] == "mine"
    assert "Name" not in two.others()  # whoever renamed it meanwhile keeps the name


def test_a_failing_run_says_so_and_keeps_what_it_logged(batches, archives):
    class Broken(Line):
        def training_step(self, batch, run):
            if run.global_step == 3:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    with pytest.raises(ZeroDivisionError):
        fit(batches, offline(dir="here"), task=Broken)
    (archive,) = archives("here")
    assert archive.others()["status"] == "failed"
    assert [step for step, _ in archive.series("train/loss")] == [1, 2, 3]


def test_an_experiment_that_somebody_else_ends_is_reported(batches):
    import comet_ml

    trainer = Trainer(epochs=1, plugins=[Journal(patience=0), offline()])
    trainer.on("train_epoch_start")(lambda run: comet_ml.OfflineExperiment().end())
    run = trainer.fit(Line(), batches)
    (error,) = run.errors
    assert "another experiment of this process ended this one" in error
    assert "trainbus replay" in error


def test_a_dry_run_leaves_nothing(batches, tmp_path):
    Trainer(plugins=[offline(dir="here")], dry_run=2).fit(Line(), batches)
    assert list(tmp_path.iterdir()) == []


# --- killed -------------------------------------------------------------------------------------

KILLED = textwrap.dedent("""
    import os, signal, time
    from trainbus import Trainer
    from trainbus.testing import Line, make_line_loader
    from trainbus_comet import Comet

    trainer = Trainer(epochs=3, plugins=["checkpoint", Comet(mode="offline")])

    @trainer.on("epoch_start")
    def kill(run):
        if run.epoch == 2:
            run.log_tags({"late": "tag"})
            run.flush()
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.fit(Line(), make_line_loader())
""")


def test_what_a_killed_run_had_logged_is_packed_when_it_is_resumed(batches, archives):
    command = [sys.executable, "-c", KILLED]
    environment = {**os.environ, "TMPDIR": os.environ["HOME"]}
    assert subprocess.run(command, env=environment).returncode == -9
    (left,) = Path("runs").glob("*/comet/*.zip")
    assert left.stat().st_size == 22  # Comet's client leaves an archive with nothing in it
    run = fit(batches, offline(), epochs=3, resume="auto")
    killed, resumed = archives(run.dir / "comet")
    assert killed.about["offline_id"] == resumed.about["offline_id"]
    assert [step for step, _ in killed.series("train/loss")] == list(range(1, 11))
    assert killed.others()["late"] == "tag"
    assert [step for step, _ in resumed.series("train/loss")] == list(range(11, 16))
    with JournalFile.open(run.dir / "journal.db") as journal:
        assert "open" not in journal.logger("comet").state


def test_temporary_files_that_are_gone_are_reported(batches, caplog):
    run = fit(batches, offline())
    with JournalFile.create(run.dir / "journal.db") as journal:
        before = journal.logger("comet")
        before.state["open"] = str(Path("gone").absolute())
        journal.set_logger("comet", before)
    fit(batches, offline(), epochs=2, resume="auto")
    assert f"is gone with {Path(tempfile.gettempdir(), 'gone')}" in caplog.text


def test_what_a_journal_names_is_packed_only_if_it_is_of_this_experiment(batches, tmp_path):
    run = fit(batches, offline())
    place = Path(tempfile.mkdtemp())
    (place / "messages.json").write_text("of somebody else\n")
    with JournalFile.create(run.dir / "journal.db") as journal:
        before = journal.logger("comet")
        before.state["open"] = str(place)
        journal.set_logger("comet", before)
    fit(batches, offline(), epochs=2, resume="auto")
    assert (place / "messages.json").read_text() == "of somebody else\n"
    assert not list((run.dir / "comet").glob(f"*{place.name}*"))


# --- credentials, connections, the SDK ------------------------------------------------------------


def test_without_an_api_key_the_run_does_not_start(batches):
    with pytest.raises(PluginError, match=r"no API key: run `comet login` or set COMET_API_KEY"):
        fit(batches, Comet())
    assert not list(Path("runs").glob("*/comet"))


def test_without_an_api_key_the_run_is_offline_if_that_is_allowed(batches, archives, caplog):
    run = fit(batches, Comet(offline_fallback=True))
    (archive,) = archives(run.dir / "comet")
    assert len(archive.series("train/loss")) == 5
    assert "no API key" in caplog.text
    assert "this run is logged offline" in caplog.text
    assert run.header["comet"].startswith("comet upload ")


@pytest.mark.slow
def test_a_server_that_does_not_answer_stops_the_run_or_lets_it_be_offline(
    batches, monkeypatch, caplog
):
    monkeypatch.setenv("COMET_API_KEY", "x" * 25)
    with pytest.raises(PluginError, match=r"cannot begin: .*127\.0\.0\.1"):
        fit(batches, Comet())
    run = fit(batches, Comet(offline_fallback=True))
    assert run.header["comet"].startswith("comet upload ")
    assert "127.0.0.1" in caplog.text


def test_a_directory_that_cannot_be_made_stops_the_run(batches):
    Path("file").write_text("in the way")
    with pytest.raises(PluginError, match=r"cannot begin: .*file"):
        fit(batches, offline(dir="file"))


def test_without_the_sdk_the_run_does_not_start(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with pytest.raises(PluginError, match=r"pip install 'comet-ml>=3.49'"):
        fit(batches, offline())


def test_an_old_sdk_is_named(batches, monkeypatch):
    import comet_ml

    monkeypatch.delattr(comet_ml, "start")
    with pytest.raises(PluginError, match=r"needs comet-ml 3.49 or newer, this is 3"):
        fit(batches, offline())


def test_an_unknown_mode_is_refused():
    with pytest.raises(PluginError, match=r"mode='off'\): give 'online' or 'offline'"):
        Comet(mode="off")


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = (
        "import sys, trainbus_comet; "
        "assert not {'torch', 'numpy', 'PIL', 'comet_ml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_sdk_patches_nobody_and_leaves_the_environment_as_it_was():
    code = textwrap.dedent("""
        import os, sys
        before = dict(os.environ)
        from trainbus_comet.client import import_comet
        comet_ml = import_comet()
        assert not any("Comet" in type(each).__name__ for each in sys.meta_path), sys.meta_path
        assert dict(os.environ) == before
    """)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_comets_client_does_not_talk_between_the_lines(batches, capfd):
    fit(batches, offline())
    assert "COMET" not in capfd.readouterr().err
    assert logging.getLogger("comet_ml").level == logging.WARNING


def test_system_metrics_are_recorded_if_they_are_asked_for(batches, archives):
    run = fit(batches, offline(system_metrics=True))
    (archive,) = archives(run.dir / "comet")
    assert {"sys.cpu.percent.avg", "sys.ram.used"} <= archive.names()
