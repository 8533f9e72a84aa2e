"""Without a terminal: lines of text."""

import logging
import os
import re

import pytest
import rich
from rich.console import Console

from trainbus import PluginError, Trainer, hookimpl
from trainbus_progress import Progress
from trainbus_progress.display import Plain

NUMBER = r"\d+\.\d{4}"
TIME = r"\d+\.\ds"


@pytest.fixture
def every_batch(monkeypatch):
    """Write a line after every batch, as after 30 seconds."""
    monkeypatch.setattr(Plain, "interval", 0.0)


def test_a_fit_is_a_header_a_line_for_each_epoch_and_an_ending(plain, line, batches):
    run = Trainer(epochs=2, plugins=[plain.progress()]).fit(line, batches, batches)
    *header, head, first, second, ending = plain.lines
    assert [each.split()[0] for each in header] == ["task", *run.header, "directory"]
    assert head.split() == ["epoch", "train/loss", "valid/loss", "valid/accuracy", "time"]
    assert re.fullmatch(rf" +1/2 +{NUMBER} +{NUMBER} +0\.5000 +{TIME}", first)
    assert re.fullmatch(rf" +2/2 +{NUMBER} +{NUMBER} +0\.5000 +{TIME}", second)
    assert len(head) == len(first) == len(second)
    assert re.fullmatch(
        rf"training completed after {TIME}: 2 epochs, 8 steps, in {re.escape(str(run.dir))}", ending
    )


def test_the_row_holds_the_means_of_the_epoch(plain, line, batches):
    run = Trainer(plugins=[plain.progress()]).fit(line, batches, batches)
    cells = plain.lines[-2].split()
    assert cells[1] == f"{run.metrics['train/loss_epoch']:.4f}"
    assert cells[2] == f"{run.metrics['valid/loss']:.4f}"


def test_there_are_no_control_characters(line, batches, capsys, monkeypatch, every_batch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(rich, "_console", None)  # the global one, made when it is asked for
    Trainer(epochs=2, plugins=["progress"]).fit(line, batches, batches)
    text = capsys.readouterr().out
    assert "epoch 2/2  4/4" in text
    assert text.isascii()
    assert text.replace("\n", "").isprintable()


def test_a_short_epoch_has_no_lines_inside(plain, line, batches):
    Trainer(plugins=[plain.progress()]).fit(line, batches)
    assert "4/4" not in plain.text


def test_a_long_epoch_tells_where_it_is(plain, line, batches, every_batch, fetch):
    trainer = Trainer(epochs=2, plugins=[plain.progress()])
    fetch(trainer)
    trainer.fit(line, batches, batches)
    assert re.search(
        rf"epoch 2/2  3/4  [\d.]+ it/s  0:00<0:00  run 0:00 left  loss {NUMBER}\n", plain.text
    )
    assert re.search(r"\nvalid  2/4  [\d.]+ it/s  0:00<0:00\n", plain.text)


def test_a_loader_without_length_has_count_and_rate_only(plain, line, endless, every_batch):
    Trainer(plugins=[plain.progress()]).fit(line, endless)
    assert re.search(r"\nepoch 1/1  3 batches  [\d.]+ it/s  0:00\n", plain.text)
    assert "<" not in plain.text


def test_a_column_that_comes_later_is_told_in_a_new_head(plain, line, batches):
    trainer = Trainer(epochs=4, validate_every=2, plugins=[plain.progress()])
    trainer.fit(line, batches, batches)
    head, _, new_head, second, third, *_ = plain.lines[-7:]
    assert "valid/loss" not in head
    assert "valid/loss" in new_head
    assert "-" not in second
    assert third.split()[2:4] == ["-", "-"], "the epoch was not validated"


def test_validation_inside_an_epoch_has_a_row_of_its_own(plain, line, batches):
    trainer = Trainer(epochs=2, validate_every=0.25, plugins=[plain.progress()])
    trainer.fit(line, batches, batches[:1])
    labels = [each.split()[0] for each in plain.lines[5:]]
    first = ["epoch", "0.25", "0.50", "0.75", "epoch", "1/2"]
    assert labels == [*first, "1.25", "1.50", "1.75", "2/2", "training"]


def test_metrics_chooses_what_is_shown(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress(metrics=["train/loss", "accuracy"])])
    trainer.fit(line, batches, batches)
    assert plain.lines[-3].split() == ["epoch", "train/loss", "valid/accuracy", "time"]


def test_a_chosen_metric_that_never_came_is_named(plain, line, batches, caplog):
    caplog.set_level(logging.WARNING, "trainbus")
    trainer = Trainer(plugins=[plain.progress(metrics=["loss", "acuracy"])])
    trainer.fit(line, batches, batches)
    (message,) = caplog.messages
    assert "'acuracy'" in message
    assert "did you mean 'accuracy'?" in message


def test_a_metric_that_an_object_computes_has_a_column(plain, make_line, batches):
    class Meter:
        def compute(self):
            return 0.25

        def reset(self):
            pass

    class Metered(make_line):
        def training_step(self, batch, run):
            run.log(share=Meter())
            return super().training_step(batch, run)

    Trainer(plugins=[plain.progress()]).fit(Metered(), batches)
    assert plain.lines[-3].split() == ["epoch", "train/loss", "train/share", "time"]
    assert plain.lines[-2].split()[2] == "0.2500"


def test_an_epoch_that_was_cut_short_is_labelled_by_its_share(plain, line, batches):
    Trainer(max_steps=6, plugins=[plain.progress()]).fit(line, batches)
    assert [each.split()[0] for each in plain.lines[-3:-1]] == ["1", "1.50"]


def test_batches_and_steps_differ_when_gradients_accumulate(plain, line, batches, every_batch):
    Trainer(accumulate=2, max_steps=2, plugins=[plain.progress()]).fit(line, batches)
    assert re.search(r"epoch 1  4/4 .*  step 2/2  ", plain.text)
    assert "1 epoch, 2 steps" in plain.lines[-1]


def test_a_loop_of_ones_own(plain, line, batches):
    with Trainer(plugins=[plain.progress()]).open(line) as run:
        for batch in run.batches(batches, epochs=2):
            run.step(line.training_step(batch, run))
    assert [each.split()[0] for each in plain.lines[-4:]] == ["epoch", "1/2", "2/2", "training"]


def test_a_loop_of_ones_own_without_epochs(plain, line, batches):
    with Trainer(plugins=[plain.progress()]).open(line) as run:
        for batch in run.batches(batches):
            run.step(line.training_step(batch, run))
    assert plain.lines[-2].split()[0] == "1"


def test_two_optimizers_in_one_step(plain, make_line, batches):
    class Pair(make_line):
        def configure_optimizer(self):
            return [super(Pair, self).configure_optimizer() for _ in range(2)]

        def training_step(self, batch, run):
            for name, optimizer in zip("ab", run.optimizers, strict=True):
                loss = self(batch[0]).square().mean()
                run.backward(loss, optimizer)
                run.optimizer_step(optimizer)
                run.log({name: loss})

    Trainer(plugins=[plain.progress()]).fit(Pair(), batches)
    assert plain.lines[-3].split() == ["epoch", "train/a", "train/b", "time"]
    assert "4 steps" in plain.lines[-1]


def test_test_tells_its_metrics(plain, line, batches):
    metrics = Trainer(plugins=[plain.progress()]).test(line, batches)
    (ending,) = plain.lines
    told = rf"4 batches, test/loss {metrics['test/loss']:.4f}, test/accuracy 0\.5000"
    assert re.fullmatch(rf"test completed after {TIME}: {told}", ending)


def test_validate_tells_its_metrics(plain, line, batches):
    Trainer(plugins=[plain.progress()]).validate(line, batches)
    assert re.fullmatch(
        rf"validation completed after {TIME}: 4 batches, valid/loss .*", plain.text.rstrip()
    )


def test_predictions_that_are_abandoned_are_stopped(plain, line, batches):
    predictions = Trainer(plugins=[plain.progress()]).predict(line, batches)
    next(predictions)
    next(predictions)
    predictions.close()
    assert re.fullmatch(rf"prediction stopped after {TIME}: 2 batches", plain.text.rstrip())


def test_a_failing_step_is_in_the_ending(plain, make_line, batches):
    class Broken(make_line):
        def training_step(self, batch, run):
            raise RuntimeError("no such thing\nat all")

    with pytest.raises(RuntimeError):
        Trainer(plugins=[plain.progress()]).fit(Broken(), batches)
    assert plain.lines[-1].startswith("training failed (RuntimeError: no such thing) after")


def test_the_reason_of_a_stop_is_in_the_ending(plain, line, batches):
    trainer = Trainer(epochs=9, plugins=[plain.progress()])
    trainer.on("epoch_end")(lambda run: run.stop("good enough"))
    trainer.fit(line, batches)
    assert plain.lines[-1].startswith("training stopped (good enough) after")


def test_plugins_that_failed_are_in_the_ending(plain, line, batches):
    class Weak:
        observer = True

        @hookimpl
        def on_epoch_end(self):
            raise ValueError("weak")

    Trainer(plugins=[plain.progress(), Weak()]).fit(line, batches)
    assert plain.lines[-1] == "error: plugin 'weak', on_epoch_end: ValueError: weak"


def test_a_dry_run_says_so_and_names_no_directory(plain, line, batches):
    Trainer(dry_run=2, plugins=[plain.progress()]).fit(line, batches, batches)
    assert any(each.startswith("dry run ") for each in plain.lines)
    assert plain.lines[-1].startswith("dry run: training completed")
    assert "directory" not in plain.text
    assert " in " not in plain.lines[-1]


def test_lines_that_others_add_to_the_header_are_shown(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress()])

    @trainer.on("fit_start")
    def link(run):
        run.header["curves"] = "somewhere"

    trainer.fit(line, batches)
    assert re.search(r"^curves +somewhere$", plain.text, re.MULTILINE)


def test_a_long_header_ends_after_ten_lines(plain, line, batches):
    def many(run):
        run.header.update({f"topic{i}": "text" for i in range(20)})

    trainer = Trainer(plugins=[plain.progress()])
    trainer.on("fit_start")(many)
    run = trainer.fit(line, batches)
    shown = plain.lines[: plain.lines.index(next(x for x in plain.lines if "epoch" in x))]
    assert len(shown) == 10
    left_out = len(run.header) + 2 - 9  # the task and the directory are lines, too
    assert shown[-1].strip() == f"and {left_out} lines more; `trainbus -v` shows them"


def test_verbose_shows_the_whole_header(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress(verbose=True)])
    trainer.on("fit_start")(lambda run: run.header.update({f"t{i}": "x" for i in range(20)}))
    trainer.fit(line, batches)
    assert all(re.search(rf"^t{i} +x$", plain.text, re.MULTILINE) for i in range(20))


def test_an_instance_serves_one_run_after_another(plain, line, batches):
    progress = plain.progress()
    trainer = Trainer(plugins=[progress])
    trainer.fit(line, batches, batches)
    first = len(plain.lines)
    trainer.test(line, batches)
    Trainer(plugins=[progress]).fit(line, batches, batches)
    again = plain.lines[first + 1 :]
    assert len(again) == first
    assert [each.split()[0] for each in again] == [each.split()[0] for each in plain.lines[:first]]


def test_other_processes_are_silent(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress()])

    @trainer.on("run_start")
    def second(run):
        run.rank = 1

    trainer.fit(line, batches)
    assert plain.text == ""


def test_a_run_that_cannot_start_leaves_the_word_to_the_error(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress()])

    @trainer.on("run_start")
    def refuse(run):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        trainer.fit(line, batches)
    assert plain.text == ""


def test_its_own_failure_does_not_end_the_run(plain, line, batches):
    trainer = Trainer(epochs=2, plugins=[plain.progress()])
    trainer.on("train_epoch_start")(lambda run: plain.file.close())
    run = trainer.fit(line, batches)
    assert run.status == "completed"
    assert "'progress'" in run.errors[0]
    assert "on_epoch_end: ValueError" in run.errors[0]


def test_it_is_found_by_name_and_writes_to_the_standard_output(line, batches, capsys):
    Trainer(plugins=["progress"]).fit(line, batches)
    assert "training completed" in capsys.readouterr().out


def test_without_it_nothing_is_printed(line, batches, capsys):
    Trainer().fit(line, batches, batches)
    assert capsys.readouterr() == ("", "")


def test_a_refresh_of_nothing_is_refused():
    with pytest.raises(PluginError, match="refresh=0"):
        Progress(refresh=0)


def test_a_test_inside_a_fit_is_a_line_and_no_epoch(plain, line, batches):
    trainer = Trainer(plugins=[plain.progress()])

    @trainer.on("fit_end")
    def test_it(run):
        list(run.evaluation_batches(batches, "test", run.bus.validation_step))

    trainer.fit(line, batches)
    assert re.fullmatch(rf"test: test/loss {NUMBER}, test/accuracy 0\.5000", plain.lines[-2])
    assert plain.text.count("epoch  train/loss") == 1


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_an_output_that_nobody_reads_ends_no_training(when, line, batches, caplog):
    reading, writing = os.pipe()
    file = os.fdopen(writing, "w")
    progress = Progress()
    progress.console = Console(file=file)
    trainer = Trainer(epochs=3, plugins=[progress])
    if when == "before":
        os.close(reading)
    else:
        trainer.on("epoch_start")(lambda run: os.close(reading) if run.epoch == 1 else None)
    run = trainer.fit(line, batches)
    with pytest.raises(BrokenPipeError):  # what the buffer still holds
        file.close()
    assert (run.status, run.epoch) == ("completed", 3)
    assert "'progress'" in run.errors[0]
    assert caplog.text.count("cannot be shown") == (when == "before")
