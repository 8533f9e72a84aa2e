"""What a plugin's author is given to test with."""

from trainbus import Trainer
from trainbus.testing import MemoryLog, Recorder, TinyTask, make_loader
from trainbus.testing.fixtures import *  # noqa: F403


def test_the_recorder_notes_events_in_order(tiny_trainer, tiny_task, tiny_loader, recorder):
    run = tiny_trainer(recorder, epochs=1).fit(tiny_task, tiny_loader, tiny_loader)
    assert recorder.events[:4] == [
        "on_run_start", "on_fit_start", "on_epoch_start", "on_train_epoch_start"
    ]  # fmt: skip
    assert recorder.events[-1] == "on_run_end"
    assert recorder.events.count("on_train_batch_end") == run.global_step == 5
    assert recorder.at[-1] == ("on_run_end", 5)


def test_the_memory_log_has_every_kind_of_record(tiny_trainer, tiny_task, tiny_loader, memory_log):
    trainer = tiny_trainer(memory_log, epochs=2)

    @trainer.on("fit_start")
    def tell(run):
        run.log_tags({"team": "vision"})
        run.log_artifact("note", "it works", "text")

    trainer.fit(tiny_task, tiny_loader, tiny_loader)
    assert len(memory_log.values("train/loss")) == 10
    assert len(memory_log.values("valid/accuracy")) == 2
    assert memory_log.params == {"hidden": 8, "lr": 0.05}
    assert memory_log.tags == {"team": "vision"}
    assert [(each.name, each.value) for each in memory_log.artifacts] == [("note", "it works")]
    assert memory_log.status == "completed"


def test_the_memory_log_forgets_the_run_before(tiny_trainer, tiny_task, tiny_loader, memory_log):
    trainer = tiny_trainer(memory_log, epochs=1)
    trainer.fit(tiny_task, tiny_loader)
    trainer.test(tiny_task, tiny_loader)
    assert memory_log.values("train/loss") == []
    assert len(memory_log.values("test/loss")) == 1


def test_the_trainer_writes_to_the_directory_of_the_test(
    tiny_trainer, tiny_task, tiny_loader, tmp_path
):
    run = tiny_trainer().fit(tiny_task, tiny_loader)
    assert run.dir.parent == tmp_path / "runs"
    assert tiny_trainer(epochs=3, run_dir="elsewhere").epochs == 3


def test_the_tiny_task_learns():
    trainer = Trainer(epochs=40, seed=0, plugins=["-manifest"])
    run = trainer.fit(TinyTask(), make_loader(20), make_loader(20))
    assert run.metrics["valid/accuracy"] > 0.8


def test_without_fixtures_the_same_is_at_hand():
    recorder, log = Recorder(), MemoryLog()
    Trainer(plugins=[recorder, log]).fit(TinyTask(), make_loader(batches=2, size=3))
    assert recorder.events.count("on_train_batch_end") == len(log.values("train/loss")) == 2


def test_pytest_is_asked_for_where_it_is_missing_and_nowhere_else(python):
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import trainbus, trainbus.engine.trainer, trainbus.cli\n"
        "try: import trainbus.testing\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    assert python("-c", code).stdout == "trainbus.testing needs pytest: pip install pytest\n"
