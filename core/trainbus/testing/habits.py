"""What is asked of every plugin about the time between runs, and about what is not its own."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor

from trainbus.engine.run import Run
from trainbus.engine.trainer import Trainer
from trainbus.testing import process
from trainbus.testing.bench import Bench, Subject
from trainbus.testing.roles import same

#: Called in each step.
_IN_A_STEP = (
    "place_batch", "on_train_batch_start", "training_step", "on_after_loss", "backward",
    "on_after_backward", "on_before_optimizer_step", "optimizer_step", "on_after_optimizer_step",
    "on_train_batch_end", "on_metrics",
)  # fmt: skip


class HabitChecks:
    """What is asked of every plugin, and seen only by somebody who looks for it."""

    subject: ClassVar[Subject]

    def test_begins_each_run_afresh(self, lab: Bench) -> None:
        """The second run of a trainer is the first one again: nothing is left of that."""
        trainer = lab.trainer(run_dir="afresh")
        kind = type(lab.plugin)
        before = _mutable(kind)
        results = []
        for _ in range(2):
            run = lab.fit(trainer)
            results.append((copy.deepcopy(lab.weights), run.global_step, lab.state))
        lab.ended("completed", "completed")
        (weights, steps, state), again = results[0], results[1]
        if steps != again[1] or not same(weights, again[0]):
            self.subject.fail(
                "trains other weights in the second run of a trainer than in the first; what it "
                "keeps belongs to a run: set it in on_run_start or on_fit_start"
            )
        if not same(state, again[2]):
            self.subject.fail(
                f"has another state after the second run of a trainer:\n{again[2]}\nafter the "
                f"first it had:\n{state}\nset it in on_run_start or on_fit_start"
            )
        for name, value in _mutable(kind).items():
            if name in before and not same(value, before[name]):
                self.subject.fail(
                    f"changes {kind.__name__}.{name}, which all objects of its class share, to "
                    f"{value!r:.200}; make it in __init__"
                )

    def test_lets_go_of_the_run(self, lab: Bench) -> None:
        """It keeps neither the run after its end, nor batch after batch."""
        kept, most = _kept(lab)
        kept_without, most_without = _kept(Bench(self.subject, absent=True))
        if kept and not kept_without:
            where = [name for name, each in _attributes(lab.plugin) if isinstance(each, Run)]
            place = f" (self.{where[0]})" if where else ""
            self.subject.fail(
                f"keeps the Run alive after its end{place}, and with it the model and the data; "
                "let go of it in on_run_end"
            )
        if most > most_without + 2:
            self.subject.fail(
                f"keeps {most} batches of an epoch alive at its end, or what was computed of them, "
                f"without it there are {most_without}; keep less of them, and that detached"
            )

    def test_changes_no_record(self, lab: Bench) -> None:
        """It hands on the mappings of numbers, parameters and tags as it gets them."""
        trainer = lab.trainer()
        changed: list[str] = []

        def watch(hook: str, values: Mapping[str, Any]) -> Iterator[None]:
            before = copy.deepcopy(dict(values))
            yield
            if not same(before, dict(values)):
                changed.append(f"{hook}: {before!r:.200} became {dict(values)!r:.200}")

        @trainer.on("metrics", wrapper=True, tryfirst=True)
        def numbers(metrics: Mapping[str, float]) -> Iterator[None]:
            yield from watch("on_metrics", metrics)

        @trainer.on("params", wrapper=True, tryfirst=True)
        def parameters(params: Mapping[str, Any]) -> Iterator[None]:
            yield from watch("on_params", params)

        @trainer.on("tags", wrapper=True, tryfirst=True)
        def labels(tags: Mapping[str, str]) -> Iterator[None]:
            yield from watch("on_tags", tags)

        @trainer.on("fit_start")
        def tell(run: Run) -> None:
            run.log_tags({"team": "vision"})
            run.log_params({"data": {"name": "digits", "sizes": [1, 2]}})

        lab.fit(trainer)
        lab.ended("completed")
        if changed:
            self.subject.fail(f"changes a record that others get, too, in {changed[0]}; copy it")

    def test_makes_no_step_of_its_own(self, lab: Bench) -> None:
        """No optimizer steps but where the loop makes a step."""
        trainer, made = lab.trainer(), [0]

        def count(*_arguments: Any) -> None:
            made[0] += 1

        @trainer.on("fit_start", trylast=True)
        def watch(run: Run) -> None:
            for optimizer in run.optimizers:
                optimizer.register_step_post_hook(count)

        run = lab.fit(trainer)
        lab.ended("completed")
        expected = run.global_step * len(run.optimizers)
        if made[0] > expected:
            self.subject.fail(
                f"makes optimizer steps of its own: {made[0]} were made in a run that counts "
                f"{expected}; leave the step to the loop, or replace the action optimizer_step"
            )

    def test_puts_back_what_it_changes(self, lab: Bench) -> None:
        """After a run the process is as before: settings, threads, files."""
        before = process.settings()
        try:
            # What the first one imports may change something, once.
            lab.fit(lab.trainer())
            lab.runs.clear()
            process.put_back(before)
            threads, files = set(threading.enumerate()), process.open_files()
            run = lab.fit(lab.trainer())
            del run
            lab.runs.clear()
            gc.collect()
            changed = process.changes(before)
        finally:
            process.put_back(before)
        if changed:
            self.subject.fail(f"left {changed[0]}. Put it back in on_run_end, which always fires")
        if left := process.new_threads(threads):
            self.subject.fail(
                f"left a thread running after the run: {', '.join(left)}; end it in on_run_end"
            )
        if left := sorted(process.open_files() - files):
            self.subject.fail(
                f"left a file open after the run: {left[0].partition(' ')[2]}; close it in "
                "on_run_end"
            )

    def test_draws_no_random_numbers_of_others(self, lab: Bench) -> None:
        """Where it computes nothing, the generators that all share are where they are without."""
        computes: list[str] = []
        with_it = _random_states(lab, computes)
        if lab.name in computes or hasattr(lab.plugin, "computes"):
            pytest.skip("it may change what is computed")
        without = _random_states(Bench(self.subject, absent=True), [])
        if self.subject.is_logger:  # the clients of services draw their ids from it
            without["random"] = with_it["random"]
        if different := [name for name, each in with_it.items() if not same(each, without[name])]:
            self.subject.fail(
                f"draws from the generator of {', '.join(different)}, which all share, so the "
                "training is another one with it; make a generator of your own"
            )

    def test_costs_little_time(self, lab: Bench) -> None:
        """Its own listeners take less than some milliseconds of a step."""
        trainer, spent, steps = lab.trainer(epochs=4), [0.0], [0]
        disable = trainer.bus.enable_timings()

        @trainer.on("train_epoch_end", trylast=True)
        def note(run: Run) -> None:
            spent.append(
                sum(
                    each.seconds
                    for each in trainer.bus.timings()
                    if each.plugin == lab.name and each.hook in _IN_A_STEP
                )
            )
            steps.append(steps[-1] + run.batch_index + 1)

        lab.fit(trainer)
        mine = [each for each in trainer.bus.timings() if each.plugin == lab.name]
        disable()
        lab.ended("completed")
        # The quickest of the epochs: a machine that is busy makes others slow.
        epochs = zip(spent[1:], spent, steps[1:], steps, strict=False)
        best = min(((s - t) / max(n - m, 1) for s, t, n, m in epochs), default=0.0) * 1000
        allowed = self.subject.milliseconds
        if best > allowed:
            dearest = max(mine, key=lambda each: each.seconds).hook
            self.subject.fail(
                f"takes {best:.1f} ms of each step, not {allowed:g} at most, most of it in "
                f"{dearest}; do it less often (every=50), or say so: conformance(..., "
                "milliseconds=...)"
            )

    def test_writes_into_the_runs_directory(self, lab: Bench, empty: Path) -> None:
        """What it writes is beside what else there is of the run. Loggers may write elsewhere."""
        run = lab.fit(lab.trainer("checkpoint", run_dir="runs"))
        lab.ended("completed")
        inside = run.dir.resolve() if run.has_dir else empty / "runs"
        files = [each for each in empty.rglob("*") if each.is_file()]
        if self.subject.is_logger:
            return
        if outside := sorted(str(p.relative_to(empty)) for p in files if inside not in p.parents):
            self.subject.fail(
                f"writes outside of the run's directory: {', '.join(outside)}; write to run.dir"
            )


# --- what the tests share ------------------------------------------------------------------------


def _mutable(kind: type) -> dict[str, Any]:
    """What all objects of a class share and may change by accident."""
    return {
        name: copy.deepcopy(value)
        for name, value in vars(kind).items()
        if isinstance(value, (list, dict, set))
    }


def _attributes(plugin: Any) -> list[tuple[str, Any]]:
    return list(getattr(plugin, "__dict__", {}).items())


def _kept(lab: Bench) -> tuple[bool, int]:
    """Whether a run is alive after its end, and how many batches at the end of an epoch."""
    trainer = lab.trainer(epochs=1)
    batches: list[list[weakref.ref[Tensor]]] = []
    alive: list[int] = []

    @trainer.on("train_batch_start", trylast=True)
    def note(run: Run) -> None:
        batches.append([weakref.ref(each) for each in _tensors(run.batch)])

    @trainer.on("after_loss", trylast=True)
    def note_loss(run: Run) -> None:
        batches[-1].extend(weakref.ref(each) for each in _tensors(run.loss_to_backward))

    @trainer.on("train_epoch_end", tryfirst=True)
    def count() -> None:
        gc.collect()
        alive.append(sum(any(each() is not None for each in batch) for batch in batches))

    # What is there already is not looked at, which takes its time.
    if is_first := not gc.get_freeze_count():
        gc.freeze()
    try:
        run = weakref.ref(lab.fit(trainer))
        lab.ended("completed")
        gc.collect()
        return run() is not None, max(alive, default=0)
    finally:
        if is_first:
            gc.unfreeze()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _random_states(lab: Bench, computing: list[str]) -> dict[str, Any]:
    """The states of all shared generators at the end of a fit, and who computes in it."""
    trainer: Trainer = lab.trainer()
    states: dict[str, Any] = {}

    @trainer.on("fit_end", trylast=True)
    def note() -> None:
        states.update(process.random_states())

    computing += trainer.bus.computing()
    lab.fit(trainer)
    lab.ended("completed")
    return states
