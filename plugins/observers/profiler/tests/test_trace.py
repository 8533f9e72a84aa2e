"""The trace: a file that Perfetto opens, with the hooks and torch's operators as ranges."""

import gzip
import json
import logging

import pytest
import torch

from trainbus import Trainer
from trainbus_profiler import Profiler


@pytest.fixture
def traced(make_line, make_batches):
    """`traced(count=20, **options)`: the profiler of a fit of so many batches, and the run."""

    def fit(count=20, **options):
        profiler = Profiler(flops=False, show=False, **options)
        trainer = Trainer(plugins=[profiler, "clip"])
        return profiler, trainer.fit(make_line(), make_batches(count))

    return fit


def events(run):
    """The complete events (those with a duration) of the trace."""
    with gzip.open(run.dir / "profile" / "trace.json.gz", "rt") as file:
        trace = json.load(file)
    return [event for event in trace["traceEvents"] if event.get("ph") == "X"]


def test_hooks_and_operators_are_ranges(traced):
    profiler, run = traced(trace=3)
    names = [event["name"] for event in events(run)]
    for hook in ("training_step", "backward", "optimizer_step", "on_before_optimizer_step"):
        assert names.count(hook) == 3, hook
    assert "aten::addmm" in names
    assert "waiting for data" in names
    assert profiler.profile.trace == str(run.dir / "profile" / "trace.json.gz")


def test_every_range_has_what_perfetto_needs_and_lies_inside_the_step(traced):
    _, run = traced(trace=2)
    found = events(run)
    for event in found:
        assert {"name", "ts", "dur", "pid", "tid"} <= set(event)
        assert event["dur"] >= 0
    steps = [event for event in found if event["name"].startswith("ProfilerStep#")]
    assert len(steps) == 2
    first, last = steps[0]["ts"], steps[-1]["ts"] + steps[-1]["dur"]
    inside = [event for event in found if event["name"] == "training_step"]
    assert all(first <= each["ts"] and each["ts"] + each["dur"] <= last for each in inside)


def test_an_operator_lies_inside_the_range_of_its_hook(traced):
    _, run = traced(trace=1)
    found = events(run)
    (step,) = (event for event in found if event["name"] == "training_step")
    (product,) = (event for event in found if event["name"] == "aten::addmm")
    assert step["ts"] <= product["ts"] < step["ts"] + step["dur"]


def test_the_traced_steps_are_told_apart(traced):
    profiler, _ = traced(trace=3)
    assert profiler.profile.of("observed").batches == 4  # one of them to warm up
    assert profiler.profile.of("steps").batches == 15


def test_a_pass_that_ends_before_leaves_a_shorter_trace(traced):
    _, run = traced(count=8, trace=5)
    assert sum(event["name"] == "training_step" for event in events(run)) == 3


def test_without_steps_to_trace_there_is_no_file(traced):
    profiler, run = traced(trace=0)
    assert not (run.dir / "profile").exists()
    assert profiler.profile.trace == ""


def test_the_operators_that_allocate_most_are_told(traced):
    profiler, _ = traced(trace=3)
    rows = profiler.profile.allocations.splitlines()[1:]
    sizes = [float(row.split()[0]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert any("aten::" in row for row in rows)


def test_an_exception_inside_the_trace_leaves_no_profiler_and_no_range(make_line, make_batches):
    trainer = Trainer(plugins=[Profiler(show=False)])

    @trainer.on("after_loss")
    def fail(run):
        if run.batch_index == 5:
            assert torch.autograd._profiler_enabled()
            raise LookupError

    with pytest.raises(LookupError):
        trainer.fit(make_line(), make_batches())
    assert not torch.autograd._profiler_enabled()
    assert "profiler_ranges" not in trainer.bus.plugins


def test_beside_another_profiler_there_is_no_trace_but_a_warning(traced, caplog):
    with torch.profiler.profile(), caplog.at_level(logging.WARNING):
        _, run = traced(trace=3)
    assert "another profiler of torch is at work" in caplog.text
    assert not (run.dir / "profile").exists()
    assert run.errors == []
