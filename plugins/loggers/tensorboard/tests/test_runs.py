"""What becomes of a run: its scalars, its directory, and its end."""

import math
import resource
import subprocess
import sys
import time

import pytest
import tensorboard

from trainbus import PluginError, Trainer
from trainbus.testing import Line
from trainbus_tensorboard import TensorBoard


def test_every_metric_is_written_at_its_step_and_its_time(batches, read):
    trainer = Trainer(epochs=2, plugins=["tensorboard"])
    told, times = {}, []

    @trainer.on("metrics")
    def listen(step, metrics, time):
        times.append(time)
        for name, value in metrics.items():
            told.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6)))

    run = trainer.fit(Line(), batches, batches)
    events = read(run.dir / "tensorboard")
    assert [step for step, _ in told["train/loss"]] == list(range(1, 11))
    assert events.points() == told
    assert {e.wall_time for name in events.names() for e in events.Scalars(name)} == set(times)
    assert run.errors == []


def test_not_a_number_infinity_and_any_name_are_written(batches, read):
    trainer = Trainer(plugins=[TensorBoard()], limit_batches=1)
    long = "n" * 5000

    @trainer.on("train_batch_end")
    def log(run):
        run.log({"nan": math.nan, "inf": -math.inf, "größe, in µm": 1, "日本/損失 (raw)": 2})
        run.log({"huge": 1e300, long: 3})

    events = read(trainer.fit(Line(), batches).dir / "tensorboard")
    assert math.isnan(events.series("train/nan")[0][1])
    assert events.series("train/inf") == [(1, -math.inf)]
    assert events.series("train/größe, in µm") == [(1, 1.0)]
    assert events.series("日本/損失 (raw)") == [(1, 2.0)]
    assert events.series("train/huge") == [(1, math.inf)]  # single precision
    assert events.series(f"train/{long}") == [(1, 3.0)]


def test_a_step_that_goes_back_loses_nothing(batches, read):
    trainer = Trainer(epochs=2, plugins=[TensorBoard()])

    @trainer.on("train_epoch_end")
    def go_back(run):
        run.global_step = 2

    events = read(trainer.fit(Line(), batches).dir / "tensorboard")
    steps = [step for step, _ in events.series("train/loss")]
    assert steps == [1, 2, 3, 4, 5, 3, 4, 5, 6, 7]


def test_what_was_logged_a_second_ago_is_on_the_disk(batches, read):
    trainer = Trainer(plugins=[TensorBoard()])

    @trainer.on("train_epoch_end")
    def look(run):
        run.log_artifact("last", "words", "text")
        deadline = time.monotonic() + 20
        while "last/text_summary" not in read(run.dir / "tensorboard").Tags()["tensors"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    trainer.fit(Line(), batches)


def test_a_test_is_a_run_with_a_directory_of_its_own(batches, read, tmp_path):
    trainer = Trainer(plugins=[TensorBoard()])
    task = Line()
    fitted = trainer.fit(task, batches).dir.resolve()
    metrics = trainer.test(task, batches)
    (tested,) = set((tmp_path / "runs").iterdir()) - {fitted}
    assert read(tested / "tensorboard").points() == {
        "test/loss": [(0, pytest.approx(metrics["test/loss"]))]
    }
    assert "test/loss" not in read(fitted / "tensorboard").names()


def test_a_run_that_logs_nothing_makes_no_directory(batches, tmp_path):
    trainer = Trainer(plugins=[TensorBoard()])
    assert len(list(trainer.predict(Line(), batches))) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_logs_nothing_has_no_event_file(batches):
    class Silent(Line):
        def training_step(self, batch, run):
            return self(batch[0]).mean()

    run = Trainer(plugins=[TensorBoard()]).fit(Silent(), batches)
    assert list((run.dir / "tensorboard").iterdir()) == []


@pytest.mark.parametrize("directory", [None, "logs"])
def test_a_dry_run_leaves_nothing(batches, tmp_path, directory):
    Trainer(plugins=[TensorBoard(directory)], dry_run=2).fit(Line(), batches, batches)
    assert list(tmp_path.iterdir()) == []


def test_one_instance_serves_several_fits(batches, read):
    trainer = Trainer(plugins=[TensorBoard()])
    first = trainer.fit(Line(width=1), batches).dir
    second = trainer.fit(Line(depth=2), batches[:2]).dir
    assert len(read(first / "tensorboard").series("train/loss")) == 5
    assert len(read(second / "tensorboard").series("train/loss")) == 2
    assert "width" not in read(second / "tensorboard").text("params")[0]


def test_the_header_says_how_to_look_at_it(batches):
    trainer = Trainer(plugins=[TensorBoard()], run_dir="my runs")
    seen = []
    trainer.on("fit_start", tryfirst=True)(lambda run: seen.append(run.header["tensorboard"]))
    trainer.fit(Line(), batches)
    assert seen == ["tensorboard --logdir 'my runs'"]


def test_the_header_gives_a_directory_elsewhere_in_full(batches, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run = Trainer(plugins=[TensorBoard(elsewhere)]).fit(Line(), batches)
    assert run.header["tensorboard"] == f"tensorboard --logdir {elsewhere}"


def test_dir_gets_one_directory_for_each_run(batches, read):
    trainer = Trainer(plugins=[TensorBoard(dir="logs")])
    run = trainer.fit(Line(), batches)
    assert read(f"logs/{run.dir.name}").names() == ["train/loss", "train/loss_epoch"]
    assert run.header["tensorboard"] == "tensorboard --logdir logs"
    assert not (run.dir / "tensorboard").exists()


def test_other_processes_than_the_first_write_nothing(batches):
    trainer = Trainer(plugins=[TensorBoard()])

    @trainer.on("run_start", tryfirst=True)
    def second_process(run):
        run.rank = 1

    assert not (trainer.fit(Line(), batches).dir / "tensorboard").exists()


def test_a_directory_that_cannot_be_made_stops_the_run_before_its_first_step(batches, tmp_path):
    (tmp_path / "file").write_text("in the way")
    trainer = Trainer(plugins=[TensorBoard("file")])
    steps = []
    trainer.on("train_batch_start")(lambda run: steps.append(run.global_step))
    with pytest.raises(PluginError, match=r"'tensorboard' cannot write to .*/file/"):
        trainer.fit(Line(), batches)
    assert steps == []


def test_a_disk_that_was_full_for_a_while_loses_and_doubles_nothing(info, read):
    logger, run = TensorBoard(), info()
    logger.on_log_start(run)
    logger.on_metrics(run, 1, {"loss": 1.0}, 1.0)
    logger.on_log_flush(run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        logger.on_metrics(run, 2, {"loss": 2.0, "n" * 200_000: 1.0}, 2.0)
        with pytest.raises(OSError, match="too large"):
            logger.on_log_flush(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    logger.on_metrics(run, 2, {"loss": 2.0, "n" * 200_000: 1.0}, 2.0)
    logger.on_log_flush(run)
    logger.on_log_end(run, "completed")
    assert read(run.dir / "tensorboard").points() == {
        "loss": [(1, 1.0), (2, 2.0)], "n" * 200_000: [(2, 1.0)]
    }  # fmt: skip


def test_without_the_sdk_the_run_does_not_start(batches, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PluginError, match=r"pip install 'tensorboard>=2.17'"):
        Trainer(plugins=[TensorBoard()]).fit(Line(), batches)


def test_an_old_sdk_is_named(info, monkeypatch):
    monkeypatch.setattr(tensorboard, "__version__", "2.9.1")
    with pytest.raises(PluginError, match=r"finds tensorboard 2.9.1: pip install 'tensorboard>="):
        TensorBoard().on_log_start(info())


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = (
        "import sys, trainbus_tensorboard; "
        "assert not {'torch', 'numpy', 'PIL', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
