"""What is asked besides of observers, of loggers and of plugins that provide a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
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

        run = lab.fit(trainer)
        lab.ended("completed")
        with JournalFile.open(run.dir / FILE_NAME) as journal:
            position, _, ended = journal.logger(lab.name)
            last = journal.last
        if not ended or position != last:
            self.subject.fail(f"has {position} of {last} records; ended is {ended}")

    def test_begins_and_ends_many_times(self, lab: Bench, tmp_path: Path) -> None:
        """One object serves run after run, and the end of one may come twice."""
        lab.trainer()
        bus = Bus()
        bus.register(lab.plugin, lab.name)
        hooks = bus.loggers[lab.name]
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
