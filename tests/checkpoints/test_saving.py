"""When states are written: in the background, on a failure, on a signal, and on a bad disk."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from trainbus import CheckpointError, Trainer, hookimpl
from trainbus.builtin import EMA, Checkpoint, EarlyStopping, Schedule
from trainbus.checkpoints import archive


def states(run):
    return sorted(p.name for p in (run.dir / "checkpoints").iterdir())


def alike(one, other):
    """Whether nested values are the same, bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other


# --- in the background ---------------------------------------------------------------------------


def test_what_is_written_in_the_background_is_what_is_written_in_front(make_line, make_loader):
    found = []
    for background in (False, True):
        torch.manual_seed(1)
        keep = Checkpoint(
            monitor="valid/loss", every_steps=2, keep_last=9, keep_best=9, background=background
        )
        trainer = Trainer(epochs=2, seed=3, plugins=[keep])
        run = trainer.fit(make_line(), make_loader(shuffle=True), make_loader())
        found.append({n: archive.read(run.dir / "checkpoints" / n) for n in states(run)})
    front, back = found
    assert front.keys() == back.keys()
    for name in front:
        assert alike(front[name], back[name])


def test_training_goes_on_while_a_checkpoint_is_written(line, loader, monkeypatch):
    go, seen = threading.Event(), []
    write = archive.write

    def slow(*arguments):
        go.wait(20)
        write(*arguments)

    monkeypatch.setattr(archive, "write", slow)
    trainer = Trainer(plugins=[Checkpoint(every_steps=2, background=True)])

    @trainer.on("train_batch_end")
    def look(run):
        seen.append((run.global_step, (run.dir / "checkpoints" / "step-00000002").exists()))
        if run.global_step == 3:
            go.set()

    trainer.fit(line, loader)
    assert (3, False) in seen


def test_each_state_is_told_when_it_is_there(line, loader):
    trainer = Trainer(plugins=[Checkpoint(every_steps=1, keep_last=9, background=True)])
    told = []
    trainer.on("checkpoint_saved")(lambda path: told.append((path.name, archive.check(path))))
    trainer.fit(line, loader)
    # The last one is written again when the epoch is over.
    assert [name for name, _ in told] == [f"step-{n:08d}" for n in (1, 2, 3, 4, 5, 5)]


def test_tied_weights_are_written_once_from_the_copy(make_line, loader):
    class Tied(make_line):
        def __init__(self):
            super().__init__()
            self.again = self.linear

    run = Trainer(plugins=[Checkpoint(background=True)]).fit(Tied(), loader)
    model = archive.read(run.dir / "checkpoints" / "step-00000005")["model"]
    assert model["again.weight"].data_ptr() == model["linear.weight"].data_ptr()


def test_the_memory_of_the_copy_is_used_again(line, loader):
    keep = Checkpoint(every_steps=1, background=True)
    places = []

    class Look:
        @hookimpl
        def on_checkpoint_saved(self):
            places.append([copy.data_ptr() for copy in keep._background._copies])

    Trainer(plugins=[keep, Look()]).fit(line, loader)
    assert places[1] == places[2]


# --- when the run fails --------------------------------------------------------------------------


class Failing:
    def __init__(self, hook_step):
        self.step = hook_step

    @hookimpl
    def on_after_loss(self, run):
        if run.global_step == self.step:
            raise OSError("on purpose")


def test_a_failure_saves_what_is_newer_than_the_last_state(make_line, loader, caplog):
    keep = Checkpoint()
    task = make_line()
    trainer = Trainer(epochs=2, plugins=[keep, Failing(7)])
    with pytest.raises(OSError, match="on purpose"):
        trainer.fit(task, loader, loader)
    again = Trainer(epochs=2, plugins=[Checkpoint()])
    loaded = []
    again.on("checkpoint_loaded")(lambda run, path: loaded.append((path.name, run.global_step)))
    run = again.fit(make_line(), loader, loader, resume="auto")
    assert loaded == [("exception-00000007", 7)]
    assert "was written when an exception ended the run" in caplog.text
    assert "other batches than before" not in caplog.text
    assert states(run) == ["step-00000010"], "it goes when a newer one is durable"
    assert run.global_step == 10


def test_a_failure_right_after_a_state_saves_nothing(line, loader):
    trainer = Trainer(plugins=[Checkpoint(every_steps=1, keep_last=9), Failing(3)])
    runs = []
    trainer.on("fit_start")(lambda run: runs.append(run))
    with pytest.raises(OSError):
        trainer.fit(line, loader)
    assert states(runs[0]) == ["step-00000001", "step-00000002", "step-00000003"]


def test_a_failure_outside_of_a_fit_saves_nothing(make_line, loader):
    class Broken(make_line):
        def validation_step(self, batch, run):
            raise OSError("on purpose")

    trainer = Trainer(plugins=[Checkpoint()])
    run = trainer.fit(make_line(), loader)
    with pytest.raises(OSError):
        trainer.validate(Broken(), loader)
    assert list(run.dir.parent.iterdir()) == [run.dir]


@pytest.mark.parametrize(("value", "says"), [("step", "half-updated"), ("nan", "not finite")])
def test_broken_weights_are_not_saved(make_line, loader, caplog, value, says):
    class Breaking:
        @hookimpl
        def optimizer_step(self, run):
            if run.global_step == 2 and value == "step":
                raise OSError("in the middle")

        @hookimpl
        def on_train_batch_end(self, run):
            if run.global_step == 2 and value == "nan":
                torch.nn.init.constant_(run.task.linear.weight, float("nan"))
                raise OSError("afterwards")

    trainer = Trainer(plugins=[Checkpoint(), Breaking()])
    runs = []
    trainer.on("fit_start")(lambda run: runs.append(run))
    with pytest.raises(OSError):
        trainer.fit(make_line(), loader)
    assert not (runs[0].dir / "checkpoints").exists()
    assert says in caplog.text


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_saves_after_the_step_and_the_run_goes_on(line, loader):
    before = signal.getsignal(signal.SIGUSR1)
    trainer = Trainer(plugins=[Checkpoint(keep_last=9)])

    @trainer.on("train_batch_start")
    def ask(run):
        if run.batch_index == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    run = trainer.fit(line, loader)
    assert states(run) == ["step-00000003", "step-00000005"]
    assert run.status == "completed"
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_in_a_window_waits_for_its_end(line, loader):
    trainer = Trainer(plugins=[Checkpoint(keep_last=9)], accumulate=2)

    @trainer.on("train_batch_start")
    def ask(run):
        if run.batch_index == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    assert states(trainer.fit(line, loader))[0] == "step-00000002"


# --- a bad disk ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A disk of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path):
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(512))


def filled(disk):
    """Plugins that fill the disk after the second step, and leave so much as is free."""

    class Fill:
        @hookimpl(tryfirst=True)
        def on_train_batch_end(self, run):
            if run.global_step == 2:
                while not any(disk.glob("*/checkpoints/step-00000001")):  # in the background
                    time.sleep(0.01)
                fill(disk / "filling")

        @hookimpl(tryfirst=True)
        def on_train_epoch_end(self, run):
            (disk / "filling").unlink(missing_ok=True)

    return Fill()


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_ends_the_run_and_keeps_the_state_of_before(line, loader, disk, background):
    keep = Checkpoint(every_steps=1, background=background)
    trainer = Trainer(plugins=["-manifest", "-journal", keep, filled(disk)], run_dir=disk)
    with pytest.raises(CheckpointError, match=r"cannot write the checkpoint .*step-0000000[23]"):
        trainer.fit(line, loader)
    (directory,) = disk.glob("*/checkpoints")
    assert [path.name for path in directory.iterdir()] == ["step-00000001"]
    archive.check(directory / "step-00000001")


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_lets_the_run_go_on_where_that_was_asked_for(
    line, loader, disk, caplog, background
):
    keep = Checkpoint(every_steps=1, on_error="warn", background=background)
    run = Trainer(plugins=["-manifest", "-journal", keep, filled(disk)], run_dir=disk).fit(
        line, loader
    )
    assert run.status == "completed"
    assert states(run) == ["step-00000005"], "the disk had room again at the end"
    assert "the run goes on (the newest state is step-00000001)" in caplog.text
    assert any("step-00000003" in error for error in run.errors)


def test_a_best_that_could_not_be_written_is_not_the_best(line, loader, disk):
    class Fill:
        @hookimpl(tryfirst=True)
        def on_validation_end(self, run):
            if run.epoch == 1:
                fill(disk / "filling")

    keep = Checkpoint(monitor="valid/loss", on_error="warn")
    trainer = Trainer(epochs=2, plugins=["-manifest", "-journal", keep, Fill()], run_dir=disk)
    run = trainer.fit(line, loader, loader)
    assert keep.best_path(run).name == "best-00000005"
    archive.check(run.dir / "checkpoints" / "best")


def test_a_read_only_disk_is_told(line, loader, disk):
    keep = Checkpoint(every_steps=2)
    trainer = Trainer(plugins=["-manifest", keep], run_dir=disk)

    @trainer.on("train_batch_end", every=3, tryfirst=True)
    def protect(run):
        place = str(run.dir / "checkpoints")
        subprocess.run(["mount", "--bind", place, place], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)

    with pytest.raises(CheckpointError, match=r"step-00000004: .*Read-only file system"):
        trainer.fit(line, loader)
    (directory,) = disk.glob("*/checkpoints")
    subprocess.run(["umount", str(directory)], check=True)
    assert [path.name for path in directory.iterdir()] == ["step-00000002"]
    archive.check(directory / "step-00000002")


def test_what_a_killed_process_left_is_removed(line, loader):
    keep = Checkpoint(every_steps=1)
    trainer = Trainer(plugins=[keep])

    @trainer.on("fit_start")
    def leave(run):
        for name in (".step-00000001.77.part", ".step-00000001.old"):
            (run.dir / "checkpoints" / name).mkdir(parents=True)

    assert states(trainer.fit(line, loader)) == ["step-00000005"]


def test_a_checkpoint_that_was_being_replaced_is_found(line, loader):
    run = Trainer(plugins=[Checkpoint()]).fit(line, loader)
    directory = run.dir / "checkpoints"
    (directory / "step-00000005").rename(directory / ".step-00000005.old")
    assert archive.newest_valid(directory) == directory / ".step-00000005.old"


# --- directories that are in use -----------------------------------------------------------------


def test_a_directory_in_use_is_left_to_the_run_that_has_it(make_line, loader, caplog):
    inner = []
    trainer = Trainer(plugins=[Checkpoint(every_steps=1)])

    @trainer.on("train_batch_end")
    def another(run):
        if run.global_step == 4:
            other = Trainer(plugins=[Checkpoint()])
            inner.append(other.fit(make_line(), loader, resume="auto"))

    run = trainer.fit(make_line(), loader)
    assert inner[0].dir != run.dir
    assert inner[0].global_step == 5, "it began anew"
    assert "another process is at work in" in caplog.text


HOLDING = """
import sys
from pathlib import Path
from trainbus.storage.lock import DirectoryLock
held = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_directory_of_another_process_is_free_when_that_is_killed(make_line, loader, caplog):
    first = Trainer(plugins=[Checkpoint()]).fit(make_line(), loader)
    command = [sys.executable, "-c", HOLDING, str(first.dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        second = Trainer(plugins=[Checkpoint()]).fit(make_line(), loader, resume="auto")
        third = Trainer(epochs=2, plugins=[Checkpoint()]).fit(
            make_line(), loader, resume=first.dir / "checkpoints" / "step-00000005"
        )
        process.kill()
    assert second.dir != first.dir
    assert "this run begins again in a directory of its own" in caplog.text
    assert third.dir not in (first.dir, second.dir)
    assert third.global_step == 10, "it went on from there all the same"
    again = Trainer(epochs=2, plugins=[Checkpoint()])
    path = first.dir / "checkpoints" / "step-00000005"
    assert again.fit(make_line(), loader, resume=path).dir.samefile(first.dir)


def test_a_directory_is_free_again_after_a_failure(make_line, loader):
    trainer = Trainer(plugins=[Checkpoint(every_steps=1), Failing(3)])
    with pytest.raises(OSError):
        trainer.fit(make_line(), loader)
    run = Trainer(plugins=[Checkpoint()]).fit(make_line(), loader, resume="auto")
    assert len(list(run.dir.parent.iterdir())) == 1


# --- a validation that the checkpoint's batch was to bring ---------------------------------------


@pytest.mark.parametrize("stop_at", [2, 4])
def test_a_validation_due_after_the_checkpoints_batch_is_made(make_line, make_loader, stop_at):
    class Killed(BaseException):
        pass

    def metrics(killed):
        torch.manual_seed(0)
        values = []
        trainer = Trainer(epochs=2, validate_every=0.5, seed=1, plugins=[Checkpoint(every_steps=1)])

        @trainer.on("validation_end")
        def note(run):
            values.append((run.global_step, run.metrics["valid/loss"]))

        @trainer.on("train_batch_end", trylast=True, after=["checkpoint"])
        def kill(run):
            if killed and run.global_step == stop_at:
                raise Killed

        loader = make_loader(batches=4, shuffle=True)
        task = make_line(dropout=0.5)
        with contextlib.suppress(Killed):
            trainer.fit(task, loader, make_loader(), resume="auto" if not killed else None)
        return values

    broken = [*metrics(killed=True), *metrics(killed=False)]
    Path("runs").rename("runs-of-before")
    assert broken == metrics(killed=False)


def test_a_best_inside_an_epoch_resumes_with_the_means_of_the_epoch(make_line, make_loader):
    def fit(resume=None, interrupt=False):
        torch.manual_seed(0)
        trainer = Trainer(validate_every=0.5, seed=1, plugins=[Checkpoint(monitor="valid/loss")])

        @trainer.on("checkpoint_saved")
        def stop(run):
            if interrupt:
                raise KeyboardInterrupt

        return trainer.fit(make_line(), make_loader(batches=4), make_loader(), resume=resume)

    with pytest.raises(KeyboardInterrupt):
        fit(interrupt=True)
    assert [path.name for path in Path("runs").glob("*/checkpoints/best-*")] == ["best-00000002"]
    resumed = fit(resume="auto")
    Path("runs").rename("runs-of-before")
    assert resumed.metrics == fit().metrics


def test_a_best_at_the_end_of_an_epoch_resumes_with_that_end(make_line, make_loader):
    """A schedule by epochs takes its step at that end."""

    def fit(resume=None, interrupt=False):
        torch.manual_seed(0)
        schedule = Schedule(
            lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1), per="epoch"
        )
        stopping = EarlyStopping(monitor="valid/loss", patience=9)
        keep = Checkpoint(monitor="valid/loss")
        trainer = Trainer(epochs=3, seed=1, plugins=[schedule, stopping, keep])
        rates = []
        trainer.on("epoch_end")(lambda run: rates.append((run.epoch, run.global_step)))

        @trainer.on("checkpoint_saved")
        def stop(run, path):
            if interrupt and path.name == "best-00000008":
                raise KeyboardInterrupt

        task = make_line()
        run = trainer.fit(task, make_loader(batches=4), make_loader(), resume=resume)
        return run.optimizer.param_groups[0]["lr"], task.linear.weight.tolist(), rates

    with pytest.raises(KeyboardInterrupt):
        fit(interrupt=True)
    rate, weights, ends = fit(resume="auto")
    Path("runs").rename("runs-of-before")
    whole_rate, whole_weights, whole_ends = fit()
    assert (rate, weights) == (whole_rate, whole_weights)
    assert ends == whole_ends[1:]


def test_ema_is_the_best_that_load_weights_gives(line, make_line, loader):
    from trainbus import load_weights

    ema, keep = EMA(decay=0.5), Checkpoint(monitor="valid/loss")
    trainer = Trainer(epochs=2, plugins=[ema, keep])
    run = trainer.fit(line, loader, loader)
    best = run.dir / "checkpoints" / "best"
    fresh = make_line()
    load_weights(fresh, best)
    assert Trainer().validate(fresh, loader)["valid/loss"] == pytest.approx(keep.best[0][0])
    raw = archive.read(best)["model"]["linear.weight"]
    assert not torch.equal(raw, fresh.linear.weight)
