"""What `run.log` and its relatives tell the loggers."""

from pathlib import Path

import pytest
import torch

from trainbus import Trainer, UsageError


@pytest.fixture
def told():
    """Collects (step, name, value) of all metrics of a trainer."""

    def listen(trainer):
        records = []

        @trainer.on("metrics")
        def collect(step, metrics):
            records.extend((step, name, value) for name, value in metrics.items())

        return records

    return listen


def logging_task(make_line, log):
    class Logging(make_line):
        def training_step(self, batch, run):
            loss = super().training_step(batch, run)
            log(run)
            return loss

    return Logging()


def test_each_step_is_told_with_its_number_and_the_epoch_with_its_mean(make_line, loader, told):
    trainer = Trainer()
    records = told(trainer)
    trainer.fit(logging_task(make_line, lambda run: run.log(i=run.batch_index)), loader)
    steps = [(step, value) for step, name, value in records if name == "train/i"]
    assert steps == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 3.0), (5, 4.0)]
    assert (5, "train/i_epoch", 2.0) in records


def test_all_hooks_of_a_step_log_at_the_same_step(line, make_loader, told):
    trainer = Trainer()
    records = told(trainer)
    for event in ("train_batch_start", "after_optimizer_step", "train_batch_end"):
        trainer.on(event)(lambda run, event=event: run.log({event: 1}))
    trainer.fit(line, make_loader(1))
    assert {step for step, name, _ in records if not name.endswith("_epoch")} == {1}


def test_micro_batches_of_one_step_become_one_value(make_line, make_loader, told):
    trainer = Trainer(accumulate=2)
    records = told(trainer)
    task = logging_task(make_line, lambda run: run.log(i=run.batch_index))
    trainer.fit(task, make_loader(4))
    steps = [(step, value) for step, name, value in records if name == "train/i"]
    assert steps == [(1, 0.5), (2, 2.5)]


def test_log_every_thins_the_steps_but_not_the_mean(make_line, make_loader, told):
    trainer = Trainer(log_every=3)
    records = told(trainer)
    task = logging_task(make_line, lambda run: run.log(i=run.batch_index))
    trainer.fit(task, make_loader(7))
    assert [step for step, name, _ in records if name == "train/i"] == [3, 6]
    assert (7, "train/i_epoch", 3.0) in records


def test_what_is_logged_is_not_changed_by_later_arithmetic_in_place(make_line, make_loader, told):
    class InPlace(make_line):
        def training_step(self, batch, run):
            value = torch.tensor(1.0)
            run.log(value=value)
            value *= 100
            return super().training_step(batch, run)

    trainer = Trainer()
    records = told(trainer)
    trainer.fit(InPlace(), make_loader(1))
    assert (1, "train/value", 1.0) in records


def test_a_name_with_a_slash_is_taken_as_it_is(make_line, make_loader, told):
    trainer = Trainer()
    records = told(trainer)
    task = logging_task(make_line, lambda run: run.log({"lr/body": 0.5}))
    trainer.fit(task, make_loader(1))
    assert (1, "lr/body", 0.5) in records


def test_numbers_of_all_kinds(make_line, make_loader, told):
    import numpy

    values = {
        "float": 1.5,
        "int": 2,
        "bool": True,
        "numpy": numpy.float32(3.5),
        "tensor": torch.tensor(4),
        "element": torch.tensor([[5.0]]),
        "double": torch.tensor(6.0, dtype=torch.float64),
    }
    trainer = Trainer()
    records = told(trainer)
    trainer.fit(logging_task(make_line, lambda run: run.log(values)), make_loader(1))
    got = {name.removeprefix("train/"): value for step, name, value in records if step == 1}
    expected = {"float": 1.5, "int": 2, "bool": 1, "numpy": 3.5, "tensor": 4, "element": 5}
    assert {name: got[name] for name in values} == expected | {"double": 6}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(2, 3), r"run.log\(train/x=...\): a tensor of shape \(2, 3\)"),
        ("high", r"run.log\(train/x=...\): str 'high' is neither a number"),
        (None, r"NoneType None is neither a number"),
    ],
)
def test_what_is_no_number_is_refused_with_its_name(make_line, make_loader, value, message):
    with pytest.raises(UsageError, match=message):
        Trainer().fit(logging_task(make_line, lambda run: run.log(x=value)), make_loader(1))


class Meter:
    """An object like those of torchmetrics."""

    def __init__(self):
        self.total, self.resets = 0.0, 0

    def update(self, output, target):
        self.total += len(target)

    def compute(self):
        return torch.tensor(self.total)

    def reset(self):
        self.total, self.resets = 0.0, self.resets + 1


def test_a_metric_object_is_asked_once_at_the_end_of_the_pass(make_loader, told):
    from torch import nn

    from trainbus import Task

    meter = Meter()
    task = Task.supervised(nn.Linear(4, 1), nn.functional.mse_loss, metrics={"samples": meter})
    trainer = Trainer(epochs=2)
    records = told(trainer)
    trainer.fit(task, make_loader(1), make_loader(3))
    assert [r for r in records if r[1] == "valid/samples"] == [
        (1, "valid/samples", 6.0),
        (2, "valid/samples", 6.0),
    ]
    assert meter.resets == 2


def test_run_metrics_reads_the_newest_values_at_once(line, make_loader):
    trainer = Trainer()
    seen = []

    @trainer.on("train_batch_end")
    def read(run):
        seen.append((run.metrics["train/loss"], run.loss.item()))

    trainer.fit(line, make_loader(3))
    assert all(logged == pytest.approx(loss) for logged, loss in seen)


def test_parameters_tags_and_artifacts_reach_their_listeners(line, make_loader, tmp_path):
    trainer = Trainer()
    seen = []
    trainer.on("params")(lambda params: seen.append(params))
    trainer.on("tags")(lambda tags: seen.append(tags))
    trainer.on("artifact")(lambda artifact: seen.append((artifact.kind, artifact.name)))

    @trainer.on("fit_start")
    def tell(run):
        run.log_params({"lr": 0.1})
        run.log_tags({"team": "red"})
        run.log_artifact("note", "# hello", "text")

    line.hparams = {"width": 4}
    trainer.fit(line, make_loader(1))
    assert seen == [{"width": 4}, {"lr": 0.1}, {"team": "red"}, ("text", "note")]


def test_an_artifact_of_unknown_kind_or_missing_file_is_refused(line, make_loader):
    for arguments, message in (
        (("a", 1, "picture"), "kind='picture'"),
        (("a", Path("nothing.bin")), "there is no file 'nothing.bin'"),
    ):
        trainer = Trainer()
        trainer.on("fit_start")(lambda run, given=arguments: run.log_artifact(*given))
        with pytest.raises(UsageError, match=message):
            trainer.fit(line, make_loader(1))


def test_a_nan_loss_is_warned_of_once(make_line, make_loader, caplog):
    class Lost(make_line):
        def training_step(self, batch, run):
            return self(batch[0]).mean() * float("nan")

    Trainer(epochs=3).fit(Lost(), make_loader(3))
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1 and "the loss is nan at the end of epoch 0" in warnings[0]


def test_a_logged_nan_is_warned_of_with_its_step(make_line, make_loader, caplog):
    task = logging_task(
        make_line, lambda run: run.log(z=float("inf") if run.global_step == 1 else 0.0)
    )
    Trainer().fit(task, make_loader(3))
    assert [r.message for r in caplog.records if "train/z is inf at step 2" in r.message]


def test_a_run_without_progress_and_loggers_prints_nothing(line, loader, capfd):
    Trainer(epochs=2).fit(line, loader, loader)
    assert capfd.readouterr() == ("", "")


def test_what_is_logged_at_the_very_end_is_told(line, make_loader, told):
    trainer = Trainer()
    records = told(trainer)
    trainer.on("epoch_end")(lambda run: run.log(at_epoch_end=1))
    trainer.on("fit_end")(lambda run: run.log(at_fit_end=2))
    trainer.fit(line, make_loader(1))
    assert (1, "train/at_epoch_end", 1.0) in records
    assert (1, "train/at_fit_end", 2.0) in records


def test_what_was_logged_before_a_failure_is_told(make_line, make_loader, told):
    class Broken(make_line):
        def training_step(self, batch, run):
            if run.batch_index == 2:
                raise RuntimeError("broken")
            return super().training_step(batch, run)

    trainer = Trainer()
    records = told(trainer)
    with pytest.raises(RuntimeError):
        trainer.fit(Broken(), make_loader(3))
    assert [step for step, name, _ in records if name == "train/loss"] == [1, 2]


def test_a_validation_inside_an_epoch_leaves_the_means_of_the_epoch(make_line, make_loader, told):
    meter = Meter()

    class Counting(make_line):
        def training_step(self, batch, run):
            meter.update(None, batch[0])
            run.log(i=run.batch_index, samples=meter)
            return super().training_step(batch, run)

    trainer = Trainer(validate_every=0.5)
    records = told(trainer)
    trainer.fit(Counting(), make_loader(4), make_loader(1))
    assert [r for r in records if r[1] == "train/i"] == [
        (step, "train/i", step - 1.0) for step in (1, 2, 3, 4)
    ]
    assert [r for r in records if r[1] == "train/i_epoch"] == [(4, "train/i_epoch", 1.5)]
    assert [r for r in records if r[1] == "train/samples"] == [(4, "train/samples", 8.0)]


def test_log_takes_a_name_and_a_value_too(make_line, make_loader, told):
    trainer = Trainer()
    records = told(trainer)
    task = logging_task(make_line, lambda run: run.log("value", 3))
    trainer.fit(task, make_loader(1))
    assert (1, "train/value", 3.0) in records


def test_a_finished_run_and_its_model_go_with_their_last_name(make_line, make_loader):
    import gc
    import weakref

    task = make_line()
    trainer = Trainer(plugins=["-manifest"])
    gc.disable()
    try:
        run = trainer.fit(task, make_loader(1))
        ghost = weakref.ref(run)
        del run
        assert ghost() is None
    finally:
        gc.enable()
