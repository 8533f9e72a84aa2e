"""What loggers receive, on which thread, and what becomes of those that fail."""

import logging
import threading
import time
from itertools import pairwise

import pytest

from trainbus import PluginError, Trainer, UsageError, hookimpl
from trainbus.builtin import Checkpoint, Journal


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_logger_receives_every_record_in_order_on_a_thread_of_its_own(memory, line, make_loader):
    line.hparams = {"width": 4}
    trainer = Trainer(epochs=2, plugins=[memory])

    @trainer.on("fit_start")
    def tell(run):
        run.log_tags({"team": "red"})

    run = trainer.fit(line, make_loader(3), make_loader(1))
    assert memory.threads == {"trainbus-memory"}
    kinds = [call[0] for call in memory.calls]
    assert kinds[:3] == ["start", "params", "tags"] and kinds[-1] == "end"
    assert memory.of("params") == [({"width": 4},)]
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5, 6]
    assert memory.steps("valid/loss") == memory.steps("train/loss_epoch") == [3, 6]
    assert memory.of("end") == [("completed",)]
    assert memory.flushed, "what was handed over was made safe"
    assert run.header["memory"] == "kept in memory"


def test_the_values_and_times_are_those_that_were_logged(make_line, make_loader, read):
    seen = []

    class Times:
        @hookimpl
        def on_log_start(self):
            pass

        @hookimpl
        def on_metrics(self, step, metrics, time):
            seen.extend((step, time, value) for value in metrics.values())

    class Slow(make_line):
        def training_step(self, batch, run):
            time.sleep(0.05)
            return super().training_step(batch, run)

    before = time.time()
    run = Trainer(plugins=[Times()]).fit(Slow(), make_loader(4))
    steps = seen[:4]
    assert all(before <= at <= time.time() for _, at, _ in steps)
    gaps = [later[1] - earlier[1] for earlier, later in pairwise(steps)]
    assert min(gaps) > 0.04, "not all at the time they were fetched"
    series = read(run).series("train/loss")
    assert [(s, t, v) for s, t, v in zip(*series, strict=True)] == steps


def test_a_logger_that_is_named_needs_no_journal_to_be_named(memory, line, loader):
    trainer = Trainer(plugins=["-journal", memory])
    trainer.fit(line, loader)
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5]
    assert "journal" in trainer.bus.plugins


def test_an_error_at_the_start_stops_the_run_before_its_first_step(memory, make_line, loader):
    steps = []

    class Counting(make_line):
        def training_step(self, batch, run):
            steps.append(1)
            return super().training_step(batch, run)

    memory.error = PluginError("plugin 'memory': no key; set MEMORY_KEY")
    with pytest.raises(PluginError, match="set MEMORY_KEY") as caught:
        Trainer(plugins=[memory]).fit(Counting(), loader)
    assert steps == []
    assert caught.value.__notes__ == ["raised by plugin 'memory', on_log_start"]


def test_what_several_loggers_lack_is_told_together(make_memory, line, loader):
    loggers = []
    for number in (1, 2):
        loggers.append(make_memory())
        loggers[-1].plugin_name = f"memory_{number}"
        loggers[-1].error = PluginError(f"no key {number}")
    with pytest.raises(PluginError, match=r"(?s)2 plugins.*no key 1.*no key 2"):
        Trainer(plugins=loggers).fit(line, loader)


def test_a_logger_that_was_set_aside_gets_what_it_lacks_at_the_end(
    memory, make_line, make_loader, caplog
):
    class Failing(make_line):
        def training_step(self, batch, run):
            memory.error = ConnectionError("no route to host")
            time.sleep(0.05)  # so that what was logged before is fetched after this batch
            if run.batch_index == 4:
                deadline = time.monotonic() + 10
                while not run.errors and time.monotonic() < deadline:
                    time.sleep(0.01)
                memory.error = None
            return super().training_step(batch, run)

    journal = Journal(seconds=0.05, patience=0.5)
    run = Trainer(plugins=[memory, journal]).fit(Failing(), make_loader(5))
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5]
    (message,) = warnings(caplog)
    assert message.startswith("plugin 'memory': ConnectionError: no route to host; set aside after")
    assert f"`trainbus replay {run.dir.absolute()} --to memory` sends what is missing" in message
    assert run.errors == [message]


def test_a_logger_that_never_works_again_does_not_end_the_run(
    memory, make_line, make_loader, caplog, read
):
    class Failing(make_line):
        def training_step(self, batch, run):
            memory.error = ConnectionError("no route")
            return super().training_step(batch, run)

    run = Trainer(plugins=[memory, Journal(patience=0.2)]).fit(Failing(), make_loader(3))
    assert run.status == "completed"
    assert len(warnings(caplog)) == 1
    assert memory.of("end") == []
    state = read(run).logger("memory")
    assert state.position < read(run).last and not state.ended
    assert read(run).series("train/loss").steps.tolist() == [1, 2, 3]


def test_a_short_failure_is_tried_again_and_nobody_hears_of_it(make_memory, line, loader, caplog):
    class Stumbling(make_memory):
        stumbles = 2

        def _note(self, what, *values):
            if what == "metrics" and self.stumbles:
                self.stumbles -= 1
                raise TimeoutError
            super()._note(what, *values)

    memory = Stumbling()
    Trainer(plugins=[memory, "-nonfinite"]).fit(line, loader)
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5]
    assert warnings(caplog) == []


def test_after_a_failure_what_was_flushed_is_not_given_again(make_memory, line, loader):
    class Stumbling(make_memory):
        stumbled = False

        def _note(self, what, *values):
            if what == "metrics" and values[0] == 3 and not self.stumbled:
                self.stumbled = True
                raise TimeoutError
            super()._note(what, *values)

    memory = Stumbling()
    Trainer(plugins=[memory]).fit(line, loader)
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5]


def test_a_record_that_a_logger_rejects_is_left_out_with_one_message(memory, line, loader, caplog):
    memory.rejects = "train/loss"
    run = Trainer(plugins=[memory]).fit(line, loader)
    assert memory.steps("train/loss") == []
    assert memory.steps("train/loss_epoch") == [5]
    assert (
        run.errors
        == ["plugin 'memory' leaves something out: train/loss is not wanted"]
        == warnings(caplog)
    )


def test_a_slow_logger_does_not_hold_the_training(make_memory, line, make_loader):
    memory = make_memory(seconds=0.2)
    ended = []
    trainer = Trainer(plugins=[memory, Journal(seconds=0.05, finish_seconds=0.5)])
    started = time.monotonic()
    trainer.on("fit_end")(lambda: ended.append(time.monotonic()))
    trainer.fit(line, make_loader(50))
    assert ended[0] - started < 5, "50 steps at 0.2 s a call would be 10 s"
    assert len(memory.steps("train/loss")) < 50


def test_a_logger_that_is_not_done_in_time_is_told_of_with_what_is_left(
    make_memory, line, make_loader, caplog, read
):
    memory = make_memory(seconds=0.1)
    run = Trainer(plugins=[memory, Journal(finish_seconds=0.3)]).fit(line, make_loader(50))
    messages = warnings(caplog)
    assert len(messages) == 1
    assert "was given 0.3" in messages[0] and "records are left. Nothing is lost" in messages[0]
    assert f"trainbus replay {run.dir.absolute()} --to memory" in messages[0]
    assert run.status == "completed"


def test_waiting_for_a_logger_is_told_in_the_log(make_memory, line, make_loader, caplog):
    memory = make_memory(seconds=0.05)
    Trainer(plugins=[memory]).fit(line, make_loader(40))
    (message,) = warnings(caplog)
    assert message.startswith("waiting up to 60 s for memory (")
    assert len(memory.steps("train/loss")) == 40


def test_the_status_of_a_failed_run_reaches_the_logger(memory, make_line, make_loader, read):
    runs = []

    class Broken(make_line):
        def training_step(self, batch, run):
            if run.batch_index == 2:
                raise ZeroDivisionError("three")
            return super().training_step(batch, run)

    trainer = Trainer(plugins=[memory])
    trainer.on("fit_start")(lambda run: runs.append(run))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Broken(), make_loader(4))
    assert memory.steps("train/loss") == [1, 2]
    assert memory.of("end") == [("failed",)]
    events = {each.body["event"]: each.body for each in read(runs[0]).records("event")}
    assert events["exception"]["type"] == "ZeroDivisionError"
    assert events["end"]["status"] == "failed"


def test_one_logger_serves_several_runs(memory, line, loader):
    trainer = Trainer(plugins=[memory])
    trainer.fit(line, loader)
    trainer.fit(line, loader)
    metrics = trainer.test(line, loader)
    assert [call[0] for call in memory.calls].count("start") == 3
    assert memory.of("metrics")[-1] == (0, metrics)
    assert memory.states == [{}, {}, {}], "each is a run of its own"


def test_a_prediction_that_logs_nothing_opens_no_logger(memory, line, loader, tmp_path):
    list(Trainer(plugins=[memory]).predict(line, loader))
    assert memory.calls == []
    assert list(tmp_path.iterdir()) == []


def test_parameters_alone_are_no_reason_to_open_a_logger(memory, line, loader, tmp_path):
    line.hparams = {"width": 4}
    list(Trainer(plugins=[memory]).predict(line, loader))
    assert memory.calls == [] and list(tmp_path.iterdir()) == []
    trainer = Trainer(plugins=[memory])
    trainer.on("predict_end")(lambda run: run.log(seen=1.0))
    list(trainer.predict(line, loader))
    assert [call[0] for call in memory.calls] == ["start", "params", "metrics", "end"]


def test_a_fast_run_does_not_flush_a_logger_all_the_time(memory, line, make_loader):
    run = Trainer(plugins=[memory, Journal(seconds=0.01)]).fit(line, make_loader(300))
    assert len(memory.steps("train/loss")) == run.global_step == 300
    assert len(memory.flushed) <= 6, "once in half a second, and at the end"


def test_a_dry_run_opens_no_logger(memory, line, loader):
    Trainer(plugins=[memory], dry_run=2).fit(line, loader)
    assert memory.calls == []


def test_a_second_logger_is_not_held_by_a_failing_one(make_memory, line, loader):
    bad, good = make_memory(), make_memory()
    bad.plugin_name = "bad"
    trainer = Trainer(plugins=[bad, good, Journal(patience=0.3)])
    trainer.on("fit_start")(lambda: setattr(bad, "error", OSError("full")))
    trainer.fit(line, loader)
    assert good.steps("train/loss") == [1, 2, 3, 4, 5]
    assert good.of("end") == [("completed",)]


class OfRank:
    """Says that this process is another one."""

    def __init__(self, rank):
        self.rank = rank

    @hookimpl
    def on_run_start(self, run):
        run.rank, run.world_size = self.rank, 4


def test_other_ranks_deliver_nothing(memory, line, loader, tmp_path):
    run = Trainer(plugins=[OfRank(1), memory, "-manifest"]).fit(line, loader)
    assert memory.calls == []
    assert not run.has_dir


def test_other_ranks_deliver_to_a_logger_that_asks_for_it(make_memory, line, loader):
    class OfEach(make_memory):
        all_ranks = True

    memory = OfEach()
    run = Trainer(plugins=[OfRank(1), memory]).fit(line, loader)
    assert memory.steps("train/loss") == [1, 2, 3, 4, 5]
    assert (run.dir / "journal-rank1.db").exists()
    assert not (run.dir / "journal.db").exists()


def test_a_logger_may_ask_for_records_once_more(make_memory, line, make_loader):
    """A service may know that it has less than it was given."""

    class Forgetful(make_memory):
        @hookimpl
        def on_log_start(self, run):
            if run.record:
                run.record = 3
            super().on_log_start(run)

    first, second = Forgetful(), Forgetful()
    run = Trainer(plugins=[first, Checkpoint()]).fit(line, make_loader(5))
    second.plugin_name = first.plugin_name = "forgetful"
    run = Trainer(plugins=[second, Checkpoint()], epochs=2).fit(
        line, make_loader(5), resume=run.dir / "checkpoints" / "step-00000005"
    )
    assert second.steps("train/loss") == [3, 4, 5, 6, 7, 8, 9, 10]


def test_no_thread_is_left_when_a_run_is_over(memory, line, loader):
    before = set(threading.enumerate())
    Trainer(plugins=[memory]).fit(line, loader)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds=0: give a number greater than 0"),
        ({"records": 0}, "records=0: give a whole number of at least 1"),
        ({"patience": -1}, "patience=-1: give a number of at least 0"),
        ({"finish_seconds": -1}, "finish_seconds=-1: give a number of at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(PluginError, match=message):
        Journal(**options)


def test_a_run_directory_that_cannot_be_written_stops_the_run_first(line, loader, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot make"):
        Trainer(run_dir=tmp_path / "file").fit(line, loader)


def test_ctrl_c_ends_the_waiting_and_not_the_records(make_memory, line, make_loader, read):
    import _thread

    memory = make_memory(seconds=0.1)
    trainer = Trainer(plugins=[memory, Journal(finish_seconds=30)])

    @trainer.on("fit_end")
    def interrupt_soon():
        threading.Timer(0.5, _thread.interrupt_main).start()

    runs = []
    trainer.on("run_start")(lambda run: runs.append(run))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(line, make_loader(100))
    assert time.monotonic() - started < 8
    (run,) = runs
    assert len(read(run).series("train/loss").steps) == 100
