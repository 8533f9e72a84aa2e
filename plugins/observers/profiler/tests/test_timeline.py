"""Where the time goes: parts that take a known time are told with it, and add up to the whole."""

import json
import time

import pytest
import torch

from trainbus import Trainer, hookimpl
from trainbus.batches import innermost
from trainbus.testing import MemoryLog
from trainbus_profiler import Profiler


@pytest.fixture
def profiler():
    """The timeline alone: no trace, no memory, no count of operations."""
    return Profiler(trace=0, memory=False, flops=False, show=False)


def per_batch(profiler, part):
    """Milliseconds of a part in a usual batch."""
    usual = profiler.profile.of("steps")
    return usual.parts[part] / usual.batches * 1e3


def test_each_part_has_its_time(profiler, takes, make_line, make_batches):
    task = make_line(forward=0.003, backward=0.004, step=0.005)
    Trainer(plugins=[profiler]).fit(task, make_batches(seconds=0.006))
    assert takes(per_batch(profiler, "data"), 6)
    assert takes(per_batch(profiler, "forward"), 3)
    assert takes(per_batch(profiler, "backward"), 4)
    assert takes(per_batch(profiler, "optimizer"), 5)
    assert per_batch(profiler, "loop") < 1


def test_the_parts_add_up_to_the_wall_time(profiler, make_line, make_batches, make_sleeper):
    clock = []
    trainer = Trainer(epochs=2, validate_every=0.5, plugins=[profiler, make_sleeper(0.002)])
    trainer.on("fit_start", trylast=True)(lambda: clock.append(time.perf_counter()))
    trainer.on("fit_end", tryfirst=True)(lambda: clock.append(time.perf_counter()))
    trainer.fit(make_line(forward=0.002), make_batches(seconds=0.002), make_batches(3))
    parts = profiler.profile.parts()
    assert sum(parts.values()) == pytest.approx(clock[1] - clock[0], rel=0.05)
    steps = profiler.profile.of("steps")
    assert sum(steps.parts.values()) == pytest.approx(steps.seconds, rel=0.01)


def test_a_slow_listener_is_told_with_its_plugin_and_hook(
    profiler, takes, make_line, make_batches, make_sleeper
):
    Trainer(plugins=[profiler, make_sleeper(0.004)]).fit(make_line(), make_batches())
    steps = profiler.profile.of("steps")
    assert next(iter(steps.listeners)) == ("sleeper", "on_train_batch_end")
    assert takes(per_batch(profiler, "listeners"), 4)
    assert "sleeper, on_train_batch_end" in profiler.text


def test_a_wrapper_of_an_action_is_a_listener_and_not_the_part(profiler, make_line, make_batches):
    class Around:
        @hookimpl(wrapper=True)
        def training_step(self):
            time.sleep(0.004)
            return (yield)

    Trainer(plugins=[profiler, Around()]).fit(make_line(), make_batches())
    assert ("around", "training_step") in profiler.profile.of("steps").listeners
    assert per_batch(profiler, "forward") < 2
    assert per_batch(profiler, "listeners") >= 4


def test_an_action_that_a_plugin_replaces_is_the_part_and_no_listener(
    profiler, make_line, make_batches
):
    class Own:
        @hookimpl
        def optimizer_step(self, run):
            time.sleep(0.004)
            run.optimizer.step()
            return True

    Trainer(plugins=[profiler, Own()]).fit(make_line(), make_batches())
    assert ("own", "optimizer_step") not in profiler.profile.of("steps").listeners
    assert per_batch(profiler, "optimizer") >= 4


def test_validation_is_a_section_of_its_own_also_inside_an_epoch(profiler, make_line, make_batches):
    trainer = Trainer(validate_every=0.25, plugins=[profiler])
    trainer.fit(make_line(), make_batches(), make_batches(2, seconds=0.01))
    assert profiler.profile.timeline.sections["validation"].seconds >= 4 * 2 * 0.01
    assert per_batch(profiler, "data") < 2


def test_the_first_batch_is_told_apart(profiler, make_line, make_batches):
    class Compiling:
        @hookimpl(wrapper=True, once=True)
        def on_train_batch_start(self):
            time.sleep(0.1)
            yield

    Trainer(plugins=[profiler, Compiling()]).fit(make_line(), make_batches())
    assert profiler.profile.timeline.sections["first"].seconds >= 0.1
    assert profiler.profile.of("steps").seconds < 0.1


def test_a_task_that_steps_by_itself(profiler, takes, sleep, make_line, make_batches, make_sleeper):
    class Manual(make_line):
        def training_step(self, batch, run):
            run.backward(super().training_step(batch, run))
            run.optimizer_step()

    class Inside:
        @hookimpl
        def on_after_loss(self):
            sleep(0.002)

    task = Manual(forward=0.003, backward=0.004, step=0.005)
    Trainer(plugins=[profiler, Inside()]).fit(task, make_batches())
    assert takes(per_batch(profiler, "forward"), 3)
    assert takes(per_batch(profiler, "backward"), 4)
    assert takes(per_batch(profiler, "optimizer"), 5)
    assert takes(per_batch(profiler, "listeners"), 2)


def test_a_loop_by_hand(profiler, takes, make_line, make_batches):
    task = make_line(forward=0.003, step=0.002)
    trainer = Trainer(plugins=[profiler])
    with trainer.open(task) as run:
        for batch in run.batches(make_batches(seconds=0.004), epochs=1):
            run.step(task.training_step(batch, run))
    assert takes(per_batch(profiler, "data"), 4)
    assert takes(per_batch(profiler, "forward"), 3)
    assert takes(per_batch(profiler, "optimizer"), 2)


def test_accumulated_batches_share_the_step(profiler, takes, make_line, make_batches):
    trainer = Trainer(accumulate=2, plugins=[profiler])
    trainer.fit(make_line(step=0.004), make_batches(21))
    assert profiler.profile.of("steps").batches == 20
    # 11 steps in the 20 batches after the first one, which makes none.
    assert takes(per_batch(profiler, "optimizer") * 20 / 11, 4)


def test_the_directory_has_the_table_and_the_numbers(profiler, make_line, make_batches):
    run = Trainer(plugins=[profiler]).fit(make_line(), make_batches(seconds=0.002))
    assert (run.dir / "profile.txt").read_text() == profiler.text + "\n"
    numbers = json.loads((run.dir / "profile.json").read_text())
    assert sum(numbers["parts"].values()) == pytest.approx(numbers["wall_seconds"], rel=0.01)
    assert numbers["bottleneck"] in profiler.text
    assert numbers["batches"] == 19


def test_shares_and_speed_are_metrics_once_an_epoch(profiler, make_line, make_batches):
    memory_log = MemoryLog()
    trainer = Trainer(epochs=3, plugins=[profiler, memory_log])
    trainer.fit(make_line(), make_batches(10, seconds=0.004))
    shares = memory_log.values("profile/data")
    assert len(shares) == 3
    assert all(0.5 < share < 1 for share in shares)
    assert len(memory_log.values("profile/samples_per_second")) == 3


def test_the_table_is_printed_below_a_progress_display(make_line, make_batches, capsys):
    pytest.importorskip("trainbus_progress")
    Trainer(plugins=[Profiler(trace=0), "progress"]).fit(make_line(), make_batches())
    printed = capsys.readouterr().out
    assert printed.index("training completed") < printed.index("waiting for data")


def test_a_run_that_fails_has_its_profile_and_leaves_nothing(profiler, make_line, make_batches):
    trainer = Trainer(plugins=[profiler])

    @trainer.on("train_batch_end")
    def fail(run):
        if run.batch_index == 10:
            raise LookupError

    with pytest.raises(LookupError):
        trainer.fit(make_line(), make_batches(seconds=0.002))
    assert profiler.profile.of("steps").batches >= 9
    assert "waits for data" in profiler.text
    assert trainer.bus.timings() == []


def test_while_it_is_not_on_nothing_is_measured(make_line, make_batches):
    trainer = Trainer()
    readings = []
    trainer.on("train_batch_end")(lambda run: readings.append(run.bus.timings()))
    trainer.fit(make_line(), make_batches(2))
    assert readings == [[], []]
    assert not any("profiler" in names for names in trainer.bus.order().values())


def test_the_loader_is_found_inside_by_who_looks_at_it(profiler, make_line):
    seen = []
    trainer = Trainer(plugins=[profiler])
    trainer.on("train_batch_end")(
        lambda run: seen.append(
            (innermost(run.loader, one_for_one=True) is loader, len(run.loader))
        )
    )
    loader = torch.utils.data.DataLoader(torch.randn(8, 4), batch_size=2)
    run = trainer.fit(make_line(), loader)
    assert seen == [(True, 4)] * 4
    assert run.loader is loader, "it is given back"
