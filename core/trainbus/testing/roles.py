"""What is asked besides of observers, of loggers and of plugins that provide a device."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from trainbus.bus import Bus
from trainbus.engine.run import Run
from trainbus.records.delivery import RunInfo
from trainbus.records.journal import FILE_NAME, JournalFile
from trainbus.testing.bench import Bench, Subject

Numbers = Sequence[tuple[int, float]]


class ObserverChecks:
    """What is asked of a plugin that says `observer = True`."""

    subject: ClassVar[Subject]

    def test_changes_nothing(self, lab: Bench) -> None:
        """Weights and metrics are those of a run without it."""
        without = Bench(self.subject, absent=True)
        metrics = without.fit(without.trainer()).metrics
        mine = lab.fit(lab.trainer()).metrics
        lab.ended("completed")
        if not same(without.weights, lab.weights):
            self.subject.fail("is an observer, and the weights are others with it")
        if not same(metrics, {name: mine.get(name) for name in metrics}):
            self.subject.fail("is an observer, and the metrics are others with it")


class LoggerChecks:
    """What is asked of a plugin that is handed records."""

    subject: ClassVar[Subject]

    def test_takes_every_record(self, lab: Bench) -> None:
        """All that was logged is delivered, and the run is ended."""
        trainer = lab.trainer()

        @trainer.on("fit_start")
        def tell(run: Run) -> None:
            run.log_params({"seed": 1, "optimizer": {"name": "sgd", "nesterov": False}})
            run.log_tags({"team": "vision"})
            run.log_artifact("note", "it *works*", "text")
            run.log_artifact("table", [{"a": 1, "b": "x"}], "table")

        logged: dict[str, list[tuple[int, float]]] = {}

        @trainer.on("metrics")
        def keep(step: int, metrics: Mapping[str, float]) -> None:
            for name, value in metrics.items():
                logged.setdefault(name, []).append((step, value))

        run = lab.fit(trainer)
        lab.ended("completed")
        with JournalFile.open(run.dir / FILE_NAME) as journal:
            position, _, ended = journal.logger(lab.name)
            last = journal.last
        if not ended or position != last:
            self.subject.fail(f"has {position} of {last} records; ended is {ended}")
        if self.subject.read is not None:
            self._compare(logged, self.subject.read(run.dir))

    def _compare(
        self, logged: Mapping[str, Numbers], found: Mapping[str, Numbers], when: str = "the run"
    ) -> None:
        """Check that a service has all numbers, each once."""
        for name, numbers in logged.items():
            has = sorted((int(step), float(value)) for step, value in found.get(name, ()))
            if not same(has, sorted((step, float(value)) for step, value in numbers)):
                self.subject.fail(
                    f"drops or changes numbers: of {name} it has {has} after {when}, logged were "
                    f"{list(numbers)}"
                )

    def test_flushes_what_it_was_given(self, lab: Bench, tmp_path: Path) -> None:
        """What came before `on_log_flush` is safe when that returns."""
        lab.trainer()
        hooks = _hooks(lab)
        run = RunInfo("TinyTask", "flushed", tmp_path / "flushed", time(), {})
        run.dir.mkdir()
        _call(hooks, "on_log_start", run)
        before = _written(run.dir, Path.cwd())
        numbers = [(step, step / 7) for step in range(1, 201)]
        for run.record, (step, value) in enumerate(numbers, 1):
            _call(hooks, "on_metrics", run, step, {"train/loss": value}, time())
        _call(hooks, "on_log_flush", run)
        flushed = _written(run.dir, Path.cwd())
        if self.subject.read is not None:
            self._compare({"train/loss": numbers}, self.subject.read(run.dir), "on_log_flush")
        _call(hooks, "on_log_end", run, "completed")
        late = _written(run.dir, Path.cwd()) - flushed
        if flushed == before and late > 4 * len(numbers):
            self.subject.fail(
                f"writes nothing in on_log_flush, and {late} bytes at the end: what a run logged "
                "is lost when it is killed"
            )

    def test_goes_on_in_the_same_remote_run(self, lab: Bench, tmp_path: Path) -> None:
        """A run that is resumed is the same run for its service."""
        seen: list[tuple[dict[str, Any], dict[str, str]]] = []
        directory = tmp_path / "resumed"
        directory.mkdir()
        for status in ("interrupted", "completed"):
            lab.trainer()
            hooks = _hooks(lab)
            state = json.loads(json.dumps(seen[-1][0])) if seen else {}
            run = RunInfo("TinyTask", directory.name, directory, time(), {}, state)
            _call(hooks, "on_log_start", run)
            seen.append((json.loads(json.dumps(run.state)), dict(run.header)))
            _call(hooks, "on_metrics", run, len(seen), {"train/loss": 1.0}, time())
            _call(hooks, "on_log_flush", run)
            _call(hooks, "on_log_end", run, status)
        for what, first, again in zip(("run.state", "run.header"), *seen, strict=True):
            if other := [k for k in first if _finds(k, first[k]) and first[k] != again.get(k)]:
                self.subject.fail(
                    f"begins another remote run when a run is resumed: {what}[{other[0]!r}] was "
                    f"{first[other[0]]!r:.200}, and is {again.get(other[0])!r:.200}; resume the "
                    "one that run.state finds again"
                )

    def test_begins_and_ends_many_times(self, lab: Bench, tmp_path: Path) -> None:
        """One object serves run after run, and the end of one may come twice."""
        lab.trainer()
        hooks = _hooks(lab)
        for number in range(2):
            directory = tmp_path / f"run-{number}"
            directory.mkdir()
            run = RunInfo("TinyTask", directory.name, directory, time(), {})
            _call(hooks, "on_log_start", run)
            _call(hooks, "on_metrics", run, 1, {"train/loss": 1.0}, time())
            _call(hooks, "on_log_flush", run)
            _call(hooks, "on_log_end", run, "completed")
            _call(hooks, "on_log_end", run, "completed")


class AcceleratorChecks:
    """What is asked of a plugin that provides a device."""

    subject: ClassVar[Subject]

    def test_provides_an_accelerator(self, lab: Bench) -> None:
        """It has a name, places modules and nested batches, and keeps random states."""
        lab.trainer()  # skips where the device is absent
        offered = lab.plugin.provide_accelerator()
        if offered is None:
            pytest.skip("it provides no accelerator here")
        if not offered.name or not isinstance(offered.name, str):
            self.subject.fail(f"provides an accelerator whose name is {offered.name!r}")
        offered.select(None)
        module = offered.place_module(torch.nn.Linear(2, 2))
        batch = offered.place_batch({"x": (torch.ones(2, 2), ["text"])})
        places = {module.weight.device.type, batch["x"][0].device.type}
        if places != {offered.device.type}:
            self.subject.fail(f"says {offered.device}, and places on {', '.join(places)}")
        if batch["x"][1] != ["text"]:
            self.subject.fail("changes what is no tensor in a batch")
        state = offered.random_state()
        drawn = [torch.rand(2, device=offered.device).tolist()]
        offered.set_random_state(state)
        drawn.append(torch.rand(2, device=offered.device).tolist())
        if drawn[0] != drawn[1]:
            self.subject.fail("does not put back the random state of its device")
        offered.synchronize()
        offered.free_memory()


def _hooks(lab: Bench) -> dict[str, Callable[..., Any]]:
    """The record hooks of the newest object of a logger, as functions that raise."""
    bus = Bus()
    bus.register(lab.plugin, lab.name)
    return bus.loggers[lab.name]


def _finds(key: str, value: Any) -> bool:
    """Whether a value is what a remote run is found by, and no file or time of one start."""
    names = re.split(r"[^a-z]+", key.lower())
    return "://" in str(value) or not {"id", "key", "uuid", "run", "remote"}.isdisjoint(names)


def _written(*folders: Path) -> int:
    """The bytes of all files below some folders."""
    return sum(
        each.stat().st_size for folder in folders for each in folder.rglob("*") if each.is_file()
    )


def _call(hooks: Mapping[str, Callable[..., Any]], name: str, *arguments: Any) -> None:
    if hook := hooks.get(name):
        hook(*arguments)


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, to the last bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return bool(one == other)
