"""What becomes of a run: its scalars, its directory, and its end."""

import math
import resource
import subprocess
import sys
from time import sleep

import pytest

from trainbus import PluginError, Trainer, UsageError
from trainbus_tensorboard import TensorBoard


def test_every_metric_is_written_at_its_step(make_line, batches, read):
    trainer = Trainer(epochs=2, plugins=["tensorboard"])
    told = {}

    @trainer.on("metrics")
    def listen(step, metrics):
        for name, value in metrics.items():
            told.setdefault(name, []).append((step, pytest.approx(value, rel=1e-6)))

    run = trainer.fit(make_line(), batches, batches)
    events = read(run.dir / "tensorboard")
    assert [step for step, _ in told["train/loss"]] == list(range(1, 11))
    assert {name: events.series(name) for name in events.names()} == told
    assert run.errors == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_not_a_number_infinity_and_any_name_are_written(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard()], limit_batches=1)

    @trainer.on("train_batch_end")
    def log(run):
        run.log({"nan": math.nan, "inf": -math.inf, "größe, in µm": 1, "日本/損失 (raw)": 2})

    events = read(trainer.fit(make_line(), batches).dir / "tensorboard")
    assert math.isnan(events.series("train/nan")[0][1])
    assert events.series("train/inf") == [(1, -math.inf)]
    assert events.series("train/größe, in µm") == [(1, 1.0)]
    assert events.series("日本/損失 (raw)") == [(1, 2.0)]


def test_a_step_that_goes_back_loses_nothing(make_line, batches, read):
    trainer = Trainer(epochs=2, plugins=[TensorBoard()])

    @trainer.on("train_epoch_end")
    def go_back(run):
        run.global_step = 2

    events = read(trainer.fit(make_line(), batches).dir / "tensorboard")
    steps = [step for step, _ in events.series("train/loss")]
    assert steps == [1, 2, 3, 4, 5, 3, 4, 5, 6, 7]


def test_a_failing_step_leaves_all_that_was_logged(make_line, batches, read):
    class Broken(make_line):
        def training_step(self, batch, run):
            if run.global_step == 3:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    paths = []
    trainer = Trainer(plugins=[TensorBoard()])
    trainer.on("fit_start")(lambda run: paths.append(run.dir / "tensorboard"))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken(), batches)
    assert [step for step, _ in read(paths[0]).series("train/loss")] == [1, 2, 3]


def test_an_exception_puts_what_was_logged_on_the_disk_at_once(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard(flush_secs=3600)])
    seen = []

    @trainer.on("train_epoch_end")
    def fail(run):
        run.log_artifact("takes long to write", "x" * 1_000_000, "text")
        run.log_artifact("last", "words", "text")
        raise KeyboardInterrupt

    @trainer.on("exception", after=["tensorboard"])
    def look(run):
        seen.append(read(run.dir / "tensorboard").Tags()["tensors"])

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(make_line(), batches)
    assert "last/text_summary" in seen[0]


def test_a_test_is_a_run_with_a_directory_of_its_own(make_line, batches, read, tmp_path):
    trainer = Trainer(plugins=[TensorBoard()])
    task = make_line()
    fitted = trainer.fit(task, batches).dir.resolve()
    metrics = trainer.test(task, batches)
    (tested,) = set((tmp_path / "runs").iterdir()) - {fitted}
    assert read(tested / "tensorboard").series("test/loss") == [
        (0, pytest.approx(metrics["test/loss"]))
    ]
    assert "test/loss" not in read(fitted / "tensorboard").names()


def test_a_run_that_logs_nothing_makes_no_directory(make_line, batches, tmp_path):
    trainer = Trainer(plugins=[TensorBoard()])
    task = make_line(width=4)
    task.forward = lambda batch: batch
    assert len(list(trainer.predict(task, batches))) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("directory", [None, "logs"])
def test_a_dry_run_leaves_nothing(make_line, batches, tmp_path, directory):
    Trainer(plugins=[TensorBoard(directory)], dry_run=2).fit(make_line(), batches, batches)
    assert list(tmp_path.iterdir()) == []


def test_one_instance_serves_several_fits(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard()])
    first = trainer.fit(make_line(width=1), batches).dir
    second = trainer.fit(make_line(depth=2), batches[:2]).dir
    assert len(read(first / "tensorboard").series("train/loss")) == 5
    assert len(read(second / "tensorboard").series("train/loss")) == 2
    assert "width" not in read(second / "tensorboard").text("params")[0]


def test_what_is_logged_after_the_end_joins_its_run(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard()])
    first = trainer.fit(make_line(width=1), batches)

    @trainer.on("train_epoch_start")
    def look_back(run):
        first.log_artifact("verdict", "good", "text")
        first.log_tags({"kept": "yes"})
        first.log(score=1)
        assert first.metrics["train/score"] == 1

    second = trainer.fit(make_line(depth=2), batches)
    events = read(first.dir / "tensorboard")
    assert events.text("verdict") == ["good"]
    assert "| kept | yes |" in events.text("tags")[0]
    assert events.series("train/score") == [(5, 1.0)]
    assert len(events.series("train/loss")) == 5
    others = read(second.dir / "tensorboard")
    assert set(others.Tags()["tensors"]) == {
        "params/text_summary", "_hparams_/session_start_info", "_hparams_/session_end_info"
    }  # fmt: skip
    assert others.names() == ["train/loss", "train/loss_epoch"]


def test_the_header_says_how_to_look_at_it(make_line, batches):
    trainer = Trainer(plugins=[TensorBoard()], run_dir="my runs")
    seen = []
    trainer.on("fit_start", tryfirst=True)(lambda run: seen.append(run.header["tensorboard"]))
    trainer.fit(make_line(), batches)
    assert seen == ["tensorboard --logdir 'my runs'"]


def test_dir_gets_one_directory_for_each_run(make_line, batches, read):
    trainer = Trainer(plugins=[TensorBoard(dir="logs")])
    run = trainer.fit(make_line(), batches)
    assert read(f"logs/{run.dir.name}").names() == ["train/loss", "train/loss_epoch"]
    assert run.header["tensorboard"] == "tensorboard --logdir logs"
    assert not (run.dir / "tensorboard").exists()


def test_other_processes_than_the_first_write_nothing(make_line, batches):
    trainer = Trainer(plugins=[TensorBoard()])

    @trainer.on("run_start", tryfirst=True)
    def second_process(run):
        run.rank = 1

    assert not (trainer.fit(make_line(), batches).dir / "tensorboard").exists()


@pytest.mark.parametrize("options", [{"run_dir": "file"}, {"plugins": [TensorBoard("file")]}])
def test_a_directory_that_cannot_be_made_stops_the_run_before_its_first_step(
    make_line, batches, tmp_path, options
):
    (tmp_path / "file").write_text("in the way")
    trainer = Trainer(**{"plugins": [TensorBoard(), "-manifest"], **options})
    steps = []
    trainer.on("train_batch_start")(lambda run: steps.append(run.global_step))
    with pytest.raises((PluginError, UsageError), match=r"cannot (make|write to) file/"):
        trainer.fit(make_line(), batches)
    assert steps == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fills_up_does_not_end_the_training(make_line, batches):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer = Trainer(epochs=2, plugins=[TensorBoard()])

    @trainer.on("epoch_start", once=True)
    def fill(run):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        run.log_artifact("too much", "x" * 3_000_000, "text")
        for _ in range(500):  # the file is written by a thread
            if run.errors:
                break
            run.log_tags({"still": "here"})
            sleep(0.01)

    try:
        run = trainer.fit(make_line(), batches)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (run.status, run.global_step) == ("completed", 10)
    assert any("plugin 'tensorboard'" in error for error in run.errors)


def test_without_the_sdk_the_run_does_not_start(make_line, batches, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(PluginError, match=r"pip install 'tensorboard>=2.17'"):
        Trainer(plugins=[TensorBoard()]).fit(make_line(), batches)
    assert list(tmp_path.iterdir()) == []


def test_importing_the_plugin_imports_neither_torch_nor_the_sdk():
    code = (
        "import sys, trainbus_tensorboard; "
        "assert not {'torch', 'numpy', 'PIL', 'tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_flush_interval_below_a_second_is_refused():
    with pytest.raises(PluginError, match="flush_secs=0"):
        TensorBoard(flush_secs=0)
