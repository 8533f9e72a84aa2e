"""A record that cannot be written loses itself alone; nobody changes what another one gets."""

import threading

import pytest

from trainbus import JournalFile, Trainer, UsageError, hookimpl
from trainbus.builtin import Journal


class Unprintable:
    def __str__(self):
        raise RuntimeError("on purpose")

    __repr__ = __str__


def holds_itself():
    knot = {"lr": 0.1}
    knot["self"] = knot
    return knot


def list_that_holds_itself():
    knot = [1]
    knot += [knot, knot]
    return {"knot": knot}


def deep(levels=300):
    value = {}
    for _ in range(levels):
        value = {"in": value}
    return value


LOST = {
    "a mapping that holds itself": holds_itself,
    "a list that holds itself": list_that_holds_itself,
    "an object without a text": lambda: {"odd": Unprintable()},
    "an object without a text, deep inside": lambda: {"a": [{"b": Unprintable()}]},
    "a key without a text": lambda: {Unprintable(): 1},
    "a nest of three hundred": deep,
}
KEPT = {
    "keys of tuples": ({"at": {(0, 10): 0.1}}, {"at": {"(0, 10)": 0.1}}),
    "a key that is None": ({"at": {None: 1}}, {"at": {"None": 1}}),
    "an object": ({"kind": int}, {"kind": "<class 'int'>"}),
    "bytes": ({"raw": b"ab"}, {"raw": "b'ab'"}),
    "a number that is too large for the file": ({"n": 10**30}, {"n": 10**30}),
    "a set": ({"s": {1}}, {"s": "{1}"}),
}  # fmt: skip


def values(run, name="train/loss"):
    with JournalFile.open(run.dir / "journal.db") as journal:
        return list(journal.series(name).values), journal.params()


@pytest.mark.parametrize("what", LOST)
def test_parameters_that_no_file_can_hold_are_left_out_alone(line, loader, memory, what):
    trainer = Trainer(plugins=[memory])
    trainer.on("fit_start")(lambda run: run.log_params(LOST[what]()))
    trainer.on("epoch_end")(lambda run: run.log_params({"after": 1}))
    run = trainer.fit(line, loader)
    losses, params = values(run)
    assert len(losses) == 5 and len(memory.steps("train/loss")) == 5
    assert params == {"after": 1}
    assert len([text for text in run.errors if "left out" in text]) == 1


@pytest.mark.parametrize("what", KEPT)
def test_parameters_of_odd_kinds_are_kept_as_a_reader_finds_them(line, loader, what):
    given, found = KEPT[what]
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: run.log_params(given))
    assert values(trainer.fit(line, loader))[1] == found


def test_hyperparameters_of_a_task_with_keys_that_are_no_text_are_kept(make_line, loader):
    task = make_line(milestones={(0, 10): 0.1})
    losses, params = values(Trainer().fit(task, loader))
    assert (len(losses), params) == (5, {"milestones": {"(0, 10)": 0.1}})


@pytest.mark.parametrize("name", [3, None, (1, 2)])
def test_a_number_whose_name_is_no_text_is_refused(line, loader, name):
    trainer = Trainer()
    trainer.on("train_batch_end")(lambda run: run.log({name: 1.0}))
    with pytest.raises(Exception, match="is no text"):
        trainer.fit(line, loader)


LETTERS = {
    "latin": "a",
    "umlauts": "ä",
    "bold": "\U0001d400",
    "hanzi": "漢",
    "half a pair": "\ud800",
}


@pytest.mark.parametrize("script", LETTERS)
@pytest.mark.parametrize("count", [60, 1000])
def test_an_artifact_with_a_name_of_any_length_loses_nothing(line, loader, script, count):
    trainer = Trainer(epochs=2)

    @trainer.on("epoch_end")
    def give(run):
        run.log_artifact(LETTERS[script] * count, f"text {run.epoch}", "text")

    run = trainer.fit(line, loader)
    assert len(values(run)[0]) == 10
    kept = sorted(path.read_text() for path in (run.dir / "artifacts").iterdir())
    assert kept == ["text 0", "text 1"]
    assert all(len(path.name.encode()) <= 143 for path in (run.dir / "artifacts").iterdir())


# --- who changes what ----------------------------------------------------------------------------


class Changes:
    """Tries to change what it is given."""

    observer = True

    def __init__(self):
        self.failed = []

    def _try(self, name, change):
        try:
            change()
        except (TypeError, AttributeError):
            self.failed.append(name)

    @hookimpl(tryfirst=True)
    def on_metrics(self, metrics):
        self._try("metrics", lambda: metrics.update({"train/loss": -1.0}))

    @hookimpl(tryfirst=True)
    def on_params(self, params):
        self._try("params", lambda: params.clear())
        self._try("inside", lambda: params["inner"].clear())

    @hookimpl(tryfirst=True)
    def on_tags(self, tags):
        self._try("tags", lambda: tags.update(a="b"))


def test_a_listener_cannot_change_a_record_for_others(make_line, loader):
    changes = Changes()
    trainer = Trainer(plugins=[changes])
    trainer.on("fit_start")(lambda run: run.log_tags({"team": "vision"}))
    run = trainer.fit(make_line(inner={"a": [1]}), loader)
    losses, params = values(run)
    assert all(loss >= 0 for loss in losses) and run.metrics["train/loss"] >= 0
    assert params == {"inner": {"a": [1]}}
    assert {"metrics", "params", "inside", "tags"} == set(changes.failed)


def test_what_is_changed_after_it_was_logged_was_kept_as_it_was(line, loader):
    given = {"inner": [1]}
    trainer = Trainer()

    @trainer.on("fit_start")
    def log(run):
        run.log_params(given)
        given["inner"].append(2)

    assert values(trainer.fit(line, loader))[1] == {"inner": [1]}


def test_a_logger_may_change_its_own_copy(make_memory, make_line, loader):
    class Takes(make_memory):
        @hookimpl
        def on_metrics(self, run, step, metrics, time):
            super().on_metrics(run, step, metrics, time)
            metrics.clear()

        @hookimpl
        def on_params(self, run, params):
            super().on_params(run, {"inner": list(params["inner"])})
            params["inner"].clear()

    one, two = Takes(), make_memory()
    two.plugin_name = "two"
    Trainer(plugins=[one, two]).fit(make_line(inner=[1, 2]), loader)
    for each in (one, two):
        assert len(each.steps("train/loss")) == 5
        assert each.of("params") == [({"inner": [1, 2]},)]


# --- a logger that is late, or fails in an odd way -----------------------------------------------


class Late:
    """Starts when it is told to."""

    def __init__(self, make_memory, error=None):
        self.ready, self.error = threading.Event(), error
        self.memory = make_memory()

    observer = True

    @hookimpl
    def on_log_start(self, run):
        assert self.ready.wait(20)
        if self.error is not None:
            raise self.error

    @hookimpl
    def on_metrics(self, run, step, metrics, time):
        self.memory.on_metrics(run, step, metrics, time)

    @hookimpl
    def on_log_end(self, run, status):
        self.memory.on_log_end(run, status)


def fit_with(late, line, loader):
    trainer = Trainer(plugins=[late, Journal(start_seconds=0.2)])
    trainer.on("epoch_end")(lambda run: late.ready.set())
    return trainer.fit(line, loader)


def test_a_logger_that_is_late_gets_all_when_it_is_ready(line, loader, make_memory, caplog):
    late = Late(make_memory)
    run = fit_with(late, line, loader)
    assert run.status == "completed"
    assert late.memory.steps("train/loss") == [1, 2, 3, 4, 5]
    assert late.memory.of("end") == [("completed",)]
    assert "plugin 'late' has not started in 0 s: the run goes on" in caplog.text


def test_a_logger_that_is_late_and_then_cannot_start_is_told_of(line, loader, make_memory):
    run = fit_with(Late(make_memory, ValueError("no key")), line, loader)
    assert run.status == "completed"
    assert any(
        "ValueError: no key; its records are kept: `trainbus replay" in e for e in run.errors
    )


def test_a_time_for_the_start_below_nothing_is_refused():
    with pytest.raises(Exception, match="start_seconds=-1: give a number of at least 0"):
        Journal(start_seconds=-1)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_any_exception_of_a_logger_is_a_failure_that_passes(line, make_loader, memory, error):
    class Once(type(memory)):
        @hookimpl
        def on_metrics(self, run, step, metrics, time):
            if step == 3 and not self.of("failed"):
                self.calls.append(("failed",))
                raise error
            super().on_metrics(run, step, metrics, time)

    logger = Once()
    run = Trainer(plugins=[logger]).fit(line, make_loader(20))
    assert run.status == "completed"
    assert sorted(set(logger.steps("train/loss"))) == list(range(1, 21))
    assert logger.of("end") == [("completed",)]


def test_parameters_that_hold_themselves_or_are_nested_deeply_are_left_out(line, loader):
    itself, deep = {}, {}
    itself["itself"] = inner = deep
    for _ in range(3000):
        inner["in"] = inner = {}
    itself["itself"] = itself
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: (run.log_params(itself), run.log_params(deep))[:0])
    run = trainer.fit(line, loader)
    assert run.status == "completed"
    assert sum("left out" in each or "nested" in each for each in run.errors) >= 1


@pytest.mark.parametrize("name", [None, 3, "", "n" * 1001])
def test_an_artifact_has_a_name_of_text(line, loader, name):
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: run.log_artifact(name, "text", "text"))
    with pytest.raises(UsageError, match="a name is a text of 1 to 1,000 characters"):
        trainer.fit(line, loader)


@pytest.mark.parametrize("value", [None, 5, "", b"x"])
def test_an_artifact_that_is_a_file_is_the_path_of_one(line, loader, value):
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: run.log_artifact("it", value))
    with pytest.raises(UsageError, match="give the path of a file"):
        trainer.fit(line, loader)


@pytest.mark.parametrize("value", [None, 3, "lr", ["lr"]])
@pytest.mark.parametrize("log", ["log_params", "log_tags"])
def test_what_describes_a_run_is_a_mapping(line, loader, log, value):
    trainer = Trainer()
    trainer.on("fit_start")(lambda run: getattr(run, log)(value))
    with pytest.raises(UsageError, match=f"{log}.*give a mapping"):
        trainer.fit(line, loader)


def test_what_no_reader_would_take_is_left_out_when_it_is_logged(line, loader):
    """Names of hundreds of thousands of characters, of a number and of a parameter."""
    trainer = Trainer()

    @trainer.on("fit_start")
    def log(run):
        run.header["topic"] = "h" * 500_000
        run.log_params({"p" * 200_000: 1})
        run.log_params({"lr": 0.1})
        run.log("n" * 200_000, 1.0)

    run = trainer.fit(line, loader)
    losses, params = values(run)
    assert (len(losses), params) == (5, {"lr": 0.1})
    assert sum("left out" in each for each in run.errors) == 2
