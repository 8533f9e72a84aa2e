"""The exact sequence of events."""

import pytest

from trainbus import SkipBatch, SkipStep, StopEpoch, StopRun, Trainer

BATCH = [
    "train_batch_start",
    "after_loss",
    "after_backward",
    "before_optimizer_step",
    "after_optimizer_step",
    "train_batch_end",
    "savepoint",
]
ENDED = BATCH[-2:]
MICRO_BATCH = ["train_batch_start", "after_loss", "after_backward", "train_batch_end"]
VALIDATION = ["validation_start", *["validation_batch_start", "validation_batch_end"] * 2,
              "validation_end"]  # fmt: skip


def epoch(batches, validation=()):
    passes = ["train_epoch_start", *batches, "train_epoch_end", *validation]
    return ["epoch_start", *passes, "epoch_end", "savepoint"]


def whole(*epochs):
    events = [event for each in epochs for event in each]
    return ["run_start", "fit_start", *events, "fit_end", "run_end"]


def test_fit_with_validation(line, make_loader, record):
    trainer = Trainer(epochs=2)
    events = record(trainer)
    trainer.fit(line, make_loader(2), make_loader(2))
    assert events == whole(*[epoch(BATCH * 2, [*VALIDATION, "savepoint"])] * 2)


def test_fit_with_accumulation_steps_at_the_end_of_each_window(line, make_loader, record):
    trainer = Trainer(accumulate=2)
    events = record(trainer)
    trainer.fit(line, make_loader(3))
    assert events == whole(epoch([*MICRO_BATCH, *BATCH, *BATCH]))


def test_a_loader_without_length_steps_its_last_window_after_its_last_batch(
    line, make_loader, record
):
    trainer = Trainer(accumulate=2)
    events = record(trainer)
    run = trainer.fit(line, (batch for batch in make_loader(3)))
    flush = ["before_optimizer_step", "after_optimizer_step"]
    assert events == whole(epoch([*MICRO_BATCH, *BATCH, *MICRO_BATCH, *flush]))
    assert run.global_step == 2


def test_an_exception_ends_with_on_exception_and_on_run_end(make_line, make_loader, record):
    class Broken(make_line):
        def training_step(self, batch, run):
            raise RuntimeError("broken")

    trainer = Trainer()
    events = record(trainer)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Broken(), make_loader(2))
    assert events == ["run_start", "fit_start", "epoch_start", "train_epoch_start",
                      "train_batch_start", "exception", "run_end"]  # fmt: skip


def test_the_events_of_a_test_and_of_a_prediction(line, make_loader, record):
    trainer = Trainer()
    events = record(trainer)
    trainer.test(line, make_loader(1))
    test = ["test_start", "test_batch_start", "test_batch_end", "test_end"]
    assert events == ["run_start", *test, "run_end"]
    events.clear()
    list(trainer.predict(line, make_loader(1)))
    predict = ["predict_start", "predict_batch_start", "predict_batch_end", "predict_end"]
    assert events == ["run_start", *predict, "run_end"]


def test_validate_test_and_predict_have_the_same_shape(line, make_loader, record):
    trainer = Trainer()
    events = record(trainer)
    trainer.validate(line, make_loader(2))
    validation = events.copy()
    events.clear()
    trainer.test(line, make_loader(2))
    testing = events.copy()
    events.clear()
    list(trainer.predict(line, make_loader(2)))
    assert validation == ["run_start", *VALIDATION, "run_end"]
    assert testing == [event.replace("validation", "test") for event in validation]
    assert events == [event.replace("validation", "predict") for event in validation]


def test_validation_inside_an_epoch(line, make_loader, record):
    trainer = Trainer(validate_every=0.5)
    events = record(trainer)
    trainer.fit(line, make_loader(4), make_loader(2))
    half = [*BATCH * 2, *VALIDATION, "savepoint"]
    assert events == whole(epoch([*half, *half]))


@pytest.mark.parametrize(
    ("hook", "control", "expected"),
    [
        ("train_batch_start", SkipBatch, [*BATCH, "train_batch_start", *ENDED, *BATCH]),
        ("after_loss", SkipBatch, [*BATCH, *BATCH[:2], *ENDED, *BATCH]),
        ("before_optimizer_step", SkipStep, [*BATCH, *BATCH[:4], *ENDED, *BATCH]),
        ("after_backward", SkipStep, [*BATCH, *BATCH[:3], *ENDED, *BATCH]),
        ("train_batch_start", StopEpoch, [*BATCH, "train_batch_start", *ENDED]),
        ("train_batch_end", StopEpoch, [*BATCH, *BATCH]),
        ("train_batch_end", StopRun, [*BATCH, *BATCH]),
    ],
)
def test_control_flow_skips_what_it_says_and_the_ends_still_fire(
    line, make_loader, record, hook, control, expected
):
    trainer = Trainer()
    events = record(trainer)

    @trainer.on(hook)
    def direct(run):
        if run.batch_index == 1:
            raise control

    run = trainer.fit(line, make_loader(3))
    # An epoch that is cut short is no state to go on from.
    left = -1 if control is StopRun else None
    assert events == whole(epoch(expected)[:left])
    assert run.status == ("stopped" if control is StopRun else "completed")


def test_stop_epoch_ends_one_pass_only(line, make_loader):
    trainer = Trainer(epochs=2)

    @trainer.on("train_batch_end")
    def end(run):
        raise StopEpoch

    run = trainer.fit(line, make_loader(3))
    assert (run.epoch, run.global_step, run.status) == (2, 2, "completed")


def test_skip_batch_raised_by_the_task(make_line, make_loader, record):
    class Picky(make_line):
        def training_step(self, batch, run):
            if run.batch_index == 0:
                raise SkipBatch
            return super().training_step(batch, run)

    trainer = Trainer()
    events = record(trainer)
    run = trainer.fit(Picky(), make_loader(2))
    assert events == whole(epoch(["train_batch_start", *ENDED, *BATCH]))
    assert run.global_step == 1


def test_stop_run_during_validation_ends_it_without_a_mean(line, make_loader, record):
    trainer = Trainer(epochs=3)
    events = record(trainer)

    @trainer.on("validation_batch_end")
    def enough(run):
        run.stop("enough")

    run = trainer.fit(line, make_loader(1), make_loader(2))
    short = ["validation_start", "validation_batch_start", "validation_batch_end", "savepoint",
             "validation_end"]  # fmt: skip
    assert events == whole(epoch(BATCH, short)[:-1])
    assert run.stop_reason == "enough"
    assert "valid/loss" not in run.metrics


def test_a_task_listens_with_its_own_marked_methods(make_line, make_loader):
    from trainbus import hookimpl

    seen = []

    class Listening(make_line):
        @hookimpl
        def on_epoch_end(self, run):
            seen.append(run.epoch)

    trainer = Trainer(epochs=2)
    trainer.fit(Listening(), make_loader(1))
    assert seen == [0, 1]
    assert "task" not in trainer.bus.plugins


def test_a_task_with_an_unmarked_hook_is_told(make_line, make_loader):
    from trainbus import PluginError

    class Forgetful(make_line):
        def on_epoch_end(self, run):
            pass

    with pytest.raises(PluginError, match=r"on_epoch_end.*@hookimpl"):
        Trainer().fit(Forgetful(), make_loader(1))


def test_stop_before_the_first_batch_trains_none(line, make_loader, record):
    for event in ("run_start", "fit_start", "epoch_start", "train_epoch_start"):
        trainer = Trainer(epochs=2)
        events = record(trainer)

        @trainer.on(event)
        def stop(run):
            raise StopRun("not today")

        run = trainer.fit(line, make_loader(2))
        assert (run.global_step, run.status, run.stop_reason) == (0, "stopped", "not today")
        assert "train_batch_start" not in events


def test_stop_epoch_before_its_first_batch_leaves_it_out(line, make_loader):
    trainer = Trainer(epochs=2)

    @trainer.on("epoch_start")
    def leave_out_the_first(run):
        if run.epoch == 0:
            raise StopEpoch

    run = trainer.fit(line, make_loader(3))
    assert (run.epoch, run.global_step) == (2, 3)


def test_stop_run_raised_while_metrics_are_told(line, make_loader):
    trainer = Trainer(epochs=5)

    @trainer.on("metrics")
    def stop(step, metrics):
        raise StopRun("seen enough")

    run = trainer.fit(line, make_loader(2))
    assert (run.status, run.global_step) == ("stopped", 2)


def test_a_test_in_a_run_that_was_stopped_is_made_whole(line, make_loader):
    trainer = Trainer(epochs=5)
    outputs = []

    @trainer.on("epoch_end")
    def stop(run):
        run.stop("early")

    @trainer.on("fit_end")
    def test_it(run):
        outputs.extend(run.evaluation_batches(make_loader(3), "test", run.bus.validation_step))

    run = trainer.fit(line, make_loader(1))
    assert len(outputs) == 3 and "test/loss" in run.metrics
    assert (run.status, run.epoch) == ("stopped", 1)


def test_a_skipped_validation_batch_still_ends(line, make_loader, record):
    trainer = Trainer()
    events = record(trainer)

    @trainer.on("validation_batch_start")
    def skip(run):
        if run.batch_index == 0:
            raise SkipBatch

    trainer.validate(line, make_loader(2))
    assert events == ["run_start", *VALIDATION, "run_end"]


def test_on_predict_batch_end_may_change_what_is_handed_out(line, make_loader):
    trainer = Trainer()

    @trainer.on("predict_batch_end")
    def label(run):
        run.output = f"batch {run.batch_index}"

    assert list(trainer.predict(line, make_loader(2))) == ["batch 0", "batch 1"]
