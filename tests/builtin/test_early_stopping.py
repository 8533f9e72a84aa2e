"""A run ends when its metric does not get better."""

import math

import pytest

from trainbus import PluginError, Trainer, UsageError, hookimpl
from trainbus.builtin.early_stopping import EarlyStopping


@pytest.fixture
def scripted(make_line):
    """Make a task whose validation gives these values, one in each pass, as `valid/score`."""

    def make(*values):
        class Scripted(make_line):
            passes = 0

            def validation_step(self, batch, run):
                run.log(score=values[self.passes])

            @hookimpl
            def on_validation_end(self):
                self.passes += 1

        return Scripted()

    return make


@pytest.fixture
def fit(scripted, loader):
    """Fit a scripted task with early stopping; returns the run."""

    def start(values, trainer=None, **options):
        plugin = EarlyStopping("valid/score", **options)
        settings = {"epochs": len(values), **(trainer or {})}
        return Trainer(plugins=[plugin], **settings).fit(
            scripted(*values), loader, [next(iter(loader))]
        )

    return start


def test_a_run_ends_after_patience_values_that_are_no_better(fit):
    run = fit([3.0, 2.0, 2.5, 2.0, 1.0, 1.0], patience=2)
    assert (run.status, run.epoch) == ("stopped", 4)
    assert run.stop_reason == "valid/score has not become better for 2 validations; the best was 2"


def test_a_better_value_starts_the_wait_again(fit):
    run = fit([3.0, 3.5, 2.0, 2.5, 1.0], patience=2)
    assert (run.status, run.epoch) == ("completed", 5)


def test_larger_is_better_with_mode_max(fit):
    assert fit([1.0, 2.0, 3.0], mode="max", patience=1).status == "completed"
    assert fit([3.0, 2.0, 1.0], mode="max", patience=1).epoch == 2


def test_less_than_min_delta_is_no_better(fit):
    assert fit([3.0, 2.9, 2.8, 2.7], patience=2, min_delta=0.5).epoch == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_ends_the_run_at_once(fit, value):
    run = fit([3.0, value, 1.0])
    assert (run.epoch, run.stop_reason) == (2, f"valid/score is {value}")


def test_without_check_finite_nan_is_only_no_better(fit):
    run = fit([3.0, math.nan, 1.0, math.nan, math.nan], check_finite=False, patience=2)
    assert run.epoch == 5
    assert "the best was 1" in run.stop_reason


@pytest.mark.parametrize(("mode", "values"), [("min", [3.0, 1.0, 0.5]), ("max", [0.1, 1.0, 2.0])])
def test_a_value_that_is_good_enough_ends_the_run(fit, mode, values):
    run = fit(values, mode=mode, stop_at=1.0)
    assert (run.epoch, run.stop_reason) == (2, "valid/score is 1 and was to reach 1")


def test_epochs_without_validation_do_not_count(fit):
    run = fit([3.0, 4.0, 5.0], trainer={"epochs": 6, "validate_every": 2}, patience=2)
    assert (run.status, run.epoch) == ("stopped", 6)


def test_validations_inside_an_epoch_are_looked_at(fit):
    run = fit([3.0, 4.0, 5.0, 6.0], trainer={"epochs": 1, "validate_every": "1 step"}, patience=2)
    assert (run.status, run.global_step) == ("stopped", 3)


def test_a_run_that_somebody_stopped_is_not_judged(fit, make_line, loader):
    class Stops(make_line):
        @hookimpl
        def on_train_batch_end(self, run):
            run.stop("enough")

    run = Trainer(epochs=3, plugins=[EarlyStopping()]).fit(Stops(), loader, loader)
    assert run.stop_reason == "enough"


def test_a_metric_that_was_never_logged_is_an_error(line, loader):
    trainer = Trainer(epochs=2, plugins=[EarlyStopping("valid/acc")])
    with pytest.raises(UsageError, match=r"early_stopping monitors 'valid/acc'.*valid/loss"):
        trainer.fit(line, loader, loader)


def test_a_fit_without_validation_is_an_error(line, loader):
    with pytest.raises(UsageError, match=r"'valid/loss', which was not logged.*train/loss"):
        Trainer(epochs=2, plugins=[EarlyStopping()]).fit(line, loader)


def test_a_second_fit_starts_again(scripted, loader):
    trainer = Trainer(epochs=2, plugins=[EarlyStopping("valid/score", patience=1)])
    trainer.fit(scripted(0.0, -1.0), loader, [next(iter(loader))])
    run = trainer.fit(scripted(9.0, 8.0), loader, [next(iter(loader))])
    assert run.status == "completed"


def test_a_test_after_the_fit_does_not_forget_the_best(scripted, loader):
    plugin = EarlyStopping("valid/score")
    trainer = Trainer(epochs=2, plugins=[plugin])
    task = scripted(2.0, 1.0, 0.0)
    trainer.fit(task, loader, [next(iter(loader))])
    trainer.test(task, [next(iter(loader))])
    assert plugin.best == 1.0


def test_a_loaded_checkpoint_goes_on_waiting(scripted, loader, tmp_path):
    class Saves:
        @hookimpl(after=["early_stopping"])
        def on_epoch_end(self, run):
            run.save_checkpoint(tmp_path / "saved")

    class Loads:
        @hookimpl
        def on_fit_start(self, run):
            run.load_checkpoint(tmp_path / "saved")

    valid = [next(iter(loader))]
    first = EarlyStopping("valid/score", patience=3)
    Trainer(epochs=3, plugins=[first, Saves()]).fit(scripted(1.0, 2.0, 2.0), loader, valid)
    second = EarlyStopping("valid/score", patience=3)
    run = Trainer(epochs=9, plugins=[second, Loads()]).fit(scripted(1.5, 0.0), loader, valid)
    assert (run.epoch, second.best) == (4, 1.0)


def test_it_works_in_a_loop_of_ones_own(line, loader):
    with Trainer(plugins=[EarlyStopping("train/loss_epoch", stop_at=1e9)]).open(line) as run:
        for batch in run.batches(loader, epochs=5):
            run.step(line.training_step(batch, run))
    assert run.epoch == 1


def test_options_come_from_text(monkeypatch):
    monkeypatch.setenv("TRAINBUS_EARLY_STOPPING_PATIENCE", "7")
    monkeypatch.setenv("TRAINBUS_EARLY_STOPPING_MODE", "max")
    monkeypatch.setenv("TRAINBUS_EARLY_STOPPING_STOP_AT", "0.9")
    trainer = Trainer(plugins=["trainbus.builtin.early_stopping:EarlyStopping"])
    plugin = trainer.bus.plugins["early_stopping"]
    assert (plugin.patience, plugin.mode, plugin.stop_at) == (7, "max", 0.9)


@pytest.mark.parametrize(
    "options", [{"patience": 0}, {"mode": "up"}, {"min_delta": -0.1}, {"stop_at": math.nan}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(PluginError, match=next(iter(options))):
        EarlyStopping(**options)
