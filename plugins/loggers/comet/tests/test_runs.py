"""What becomes of a run: its experiment, its archive, its end; and what is missing."""

import logging
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from trainbus import JournalFile, PluginError, Trainer
from trainbus.builtin.journal import Journal
from trainbus_comet import Comet


def offline(**options):
    return Comet(mode="offline", **options)


def fit(make_line, batches, *plugins, epochs=1, **options):
    trainer = Trainer(epochs=epochs, plugins=["checkpoint", *plugins])
    return trainer.fit(make_line(), batches, **options)


def test_a_fit_and_a_test_of_one_trainer_are_two_experiments(make_line, batches, archives):
    trainer = Trainer(epochs=1, plugins=[offline()])
    fitted = trainer.fit(make_line(width=4), batches)
    trainer.test(make_line(), batches)
    (tested,) = set(Path("runs").resolve().iterdir()) - {fitted.dir.resolve()}
    (first,), (second,) = archives(fitted.dir / "comet"), archives(tested / "comet")
    assert first.about["offline_id"] != second.about["offline_id"]
    assert second.names() == {"test/loss"}
    assert "width" not in second.params()


def test_the_header_has_the_command_that_uploads_it(make_line, batches):
    trainer = Trainer(epochs=1, plugins=[offline()], run_dir="my runs")
    seen = []
    trainer.on("fit_start", tryfirst=True)(lambda run: seen.append(run.header["comet"]))
    run = trainer.fit(make_line(), batches)
    (archive,) = (run.dir / "comet").iterdir()
    command, verb, pattern = shlex.split(seen[0])
    assert (command, verb) == ("comet", "upload")
    assert list(Path.cwd().glob(pattern)) == [archive.resolve()]


def test_resumed_a_run_continues_its_experiment(make_line, batches, archives):
    first = fit(make_line, batches, offline(name="mine"))
    second = fit(make_line, batches, offline(name="mine"), epochs=2, resume="auto")
    assert second.dir == first.dir
    one, two = archives(first.dir / "comet")
    assert one.about["offline_id"] == two.about["offline_id"]
    assert two.about["resume_strategy"] == "get_or_create"
    assert [step for step, _ in one.series("train/loss")] == [1, 2, 3, 4, 5]
    assert [step for step, _ in two.series("train/loss")] == [6, 7, 8, 9, 10]
    assert one.others()["Name"] == "mine"
    assert "Name" not in two.others()  # whoever renamed it meanwhile keeps the name


def test_a_failing_run_says_so_and_keeps_what_it_logged(make_line, batches, archives):
    class Broken(make_line):
        def training_step(self, batch, run):
            if run.global_step == 3:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    with pytest.raises(ZeroDivisionError):
        fit(Broken, batches, offline(dir="here"))
    (archive,) = archives("here")
    assert archive.others()["status"] == "failed"
    assert [step for step, _ in archive.series("train/loss")] == [1, 2, 3]


def test_an_experiment_that_somebody_else_ends_is_reported(make_line, batches):
    import comet_ml

    trainer = Trainer(epochs=1, plugins=[Journal(patience=0), offline()])
    trainer.on("train_epoch_start")(lambda run: comet_ml.OfflineExperiment().end())
    run = trainer.fit(make_line(), batches)
    (error,) = run.errors
    assert "another experiment of this process ended this one" in error
    assert "trainbus replay" in error


def test_a_dry_run_leaves_nothing(make_line, batches, tmp_path):
    Trainer(plugins=[offline(dir="here")], dry_run=2).fit(make_line(), batches)
    assert list(tmp_path.iterdir()) == []


# --- killed -------------------------------------------------------------------------------------

KILLED = textwrap.dedent("""
    import os, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from conftest import Line
    import torch
    from trainbus import Trainer
    from trainbus_comet import Comet

    trainer = Trainer(epochs=3, plugins=["checkpoint", Comet(mode="offline")])

    @trainer.on("epoch_start")
    def kill(run):
        if run.epoch == 2:
            run.log_tags({"late": "tag"})
            run.flush()
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.fit(Line(), list(torch.randn(5, 2, 4)))
""")


def test_what_a_killed_run_had_logged_is_packed_when_it_is_resumed(make_line, batches, archives):
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent)]
    environment = {**os.environ, "TMPDIR": os.environ["HOME"]}
    assert subprocess.run(command, env=environment).returncode == -9
    (left,) = Path("runs").glob("*/comet/*.zip")
    assert left.stat().st_size == 22  # Comet's client leaves an archive with nothing in it
    run = fit(make_line, batches, offline(), epochs=3, resume="auto")
    killed, resumed = archives(run.dir / "comet")
    assert killed.about["offline_id"] == resumed.about["offline_id"]
    assert [step for step, _ in killed.series("train/loss")] == list(range(1, 11))
    assert killed.others()["late"] == "tag"
    assert [step for step, _ in resumed.series("train/loss")] == list(range(11, 16))
    with JournalFile.open(run.dir / "journal.db") as journal:
        assert "open" not in journal.logger("comet").state


def test_temporary_files_that_are_gone_are_reported(make_line, batches, caplog):
    run = fit(make_line, batches, offline())
    with JournalFile.create(run.dir / "journal.db") as journal:
        before = journal.logger("comet")
        before.state["open"] = str(Path("gone").absolute())
        journal.set_logger("comet", before)
    fit(make_line, batches, offline(), epochs=2, resume="auto")
    assert f"is gone with {Path('gone').absolute()}" in caplog.text


# --- credentials, connections, the SDK ------------------------------------------------------------


def test_without_an_api_key_the_run_does_not_start(make_line, batches):
    with pytest.raises(PluginError, match=r"no API key: run `comet login` or set COMET_API_KEY"):
        fit(make_line, batches, Comet())
    assert not list(Path("runs").glob("*/comet"))


def test_without_an_api_key_the_run_is_offline_if_that_is_allowed(
    make_line, batches, archives, caplog
):
    run = fit(make_line, batches, Comet(offline_fallback=True))
    (archive,) = archives(run.dir / "comet")
    assert len(archive.series("train/loss")) == 5
    assert "no API key" in caplog.text
    assert "this run is logged offline" in caplog.text
    assert run.header["comet"].startswith("comet upload ")


@pytest.mark.slow
def test_a_server_that_does_not_answer_stops_the_run_or_lets_it_be_offline(
    make_line, batches, monkeypatch, caplog
):
    monkeypatch.setenv("COMET_API_KEY", "x" * 25)
    with pytest.raises(PluginError, match=r"cannot begin: .*127\.0\.0\.1"):
        fit(make_line, batches, Comet())
    run = fit(make_line, batches, Comet(offline_fallback=True))
    assert run.header["comet"].startswith("comet upload ")
    assert "127.0.0.1" in caplog.text


def test_a_directory_that_cannot_be_made_stops_the_run(make_line, batches):
    Path("file").write_text("in the way")
    with pytest.raises(PluginError, match=r"cannot begin: .*file"):
        fit(make_line, batches, offline(dir="file"))


def test_without_the_sdk_the_run_does_not_start(make_line, batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", None)
    with pytest.raises(PluginError, match=r"pip install 'comet-ml>=3.49'"):
        fit(make_line, batches, offline())


def test_an_old_sdk_is_named(make_line, batches, monkeypatch):
    import comet_ml

    monkeypatch.delattr(comet_ml, "start")
    with pytest.raises(PluginError, match=r"needs comet-ml 3.49 or newer, this is 3"):
        fit(make_line, batches, offline())


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


def test_comets_client_does_not_talk_between_the_lines(make_line, batches, capfd):
    fit(make_line, batches, offline())
    assert "COMET" not in capfd.readouterr().err
    assert logging.getLogger("comet_ml").level == logging.WARNING


def test_system_metrics_are_recorded_if_they_are_asked_for(make_line, batches, archives):
    run = fit(make_line, batches, offline(system_metrics=True))
    (archive,) = archives(run.dir / "comet")
    assert {"sys.cpu.percent.avg", "sys.ram.used"} <= archive.names()
