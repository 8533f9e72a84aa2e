"""Recompilations with their reason, graph breaks, and what is wrong."""

import json
import logging

import pytest
import torch
from torch import nn

from trainbus import PluginError, Trainer, UsageError, hookimpl
from trainbus.testing import MemoryLog
from trainbus_compile import Compile


@pytest.fixture
def messages(caplog):
    caplog.set_level(logging.INFO, "trainbus")

    def of(level):
        return [r.getMessage() for r in caplog.records if r.levelno == level]

    return of


def fit(task, batches, *plugins, backend="eager", **options):
    compiled = Compile(backend=backend, **options)
    return Trainer(plugins=[compiled, *plugins]).fit(task, batches)


def test_a_smaller_last_batch_is_a_recompilation_with_its_reason(make_net, make_batches, messages):
    log = MemoryLog()
    run = fit(make_net(), make_batches(4, 4, 3), log)
    reason = "tensor 'inputs[0]' size mismatch at index 0. expected 4, actual 3"
    assert f"compile: net was compiled again: {reason}" in messages(logging.INFO)
    assert log.values("compile/recompilations") == [1]
    assert log.values("compile/seconds")[0] > 0
    assert f"net again 1x, last because of: {reason}" in run.header["compile"]
    assert messages(logging.WARNING) == []


def test_the_reasons_are_in_the_runs_manifest(make_net, make_batches):
    run = fit(make_net(), make_batches(4, 4, 3))
    record = json.loads((run.dir / "run.json").read_text())
    assert "size mismatch" in record["header"]["compile"]


def test_many_sizes_are_warned_of_once_with_the_mend(make_net, make_batches, messages):
    fit(make_net(), make_batches(2, 3, 4, 5, 6, 7), dynamic=False, warn_after=2)
    (message,) = messages(logging.WARNING)
    assert "plugin 'compile': net was compiled again 3 times, last because of: " in message
    assert "size mismatch at index 0" in message
    assert "drop_last=True" in message
    assert "dynamic=true" in message


def test_dynamic_shapes_need_no_recompilation(make_net, make_batches):
    log = MemoryLog()
    fit(make_net(), make_batches(2, 3, 4, 5), log, dynamic=True)
    assert log.values("compile/recompilations") == []


def test_a_number_that_changes_is_warned_of(make_net, batches, messages):
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.calls = 0

        def forward(self, inputs):
            self.calls += 1
            return self.linear(inputs) * self.calls

    fit(make_net(Counts()), batches, warn_after=1)
    (message,) = messages(logging.WARNING)
    assert "calls == " in message
    assert "make it a tensor" in message


def test_training_and_evaluation_are_no_cause_for_a_warning(make_net, make_batches, messages):
    sizes = make_batches(4, 4, 3)
    Trainer(epochs=2, plugins=[Compile(backend="eager")]).fit(make_net(), sizes, sizes)
    assert messages(logging.WARNING) == []


def test_graph_breaks_are_counted_with_their_reason(make_net, batches):
    class Prints(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, inputs):
            hidden = self.linear(inputs)
            torch._dynamo.graph_break()
            return hidden.relu()

    log = MemoryLog()
    run = fit(make_net(Prints()), batches, log)
    assert log.values("compile/graph_breaks")[0] >= 1
    assert "x: Call to `torch._dynamo.graph_break()`" in run.header["compile"]


def test_what_happened_before_the_run_is_not_counted(make_net, batches):
    other = torch.compile(nn.Linear(4, 3), backend="eager")
    for inputs in (torch.ones(2, 4), torch.ones(3, 4)):
        other(inputs)
    assert "again" not in fit(make_net(), batches).header["compile"]


class Broken(nn.Module):
    """Cannot be one graph."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, inputs):
        torch._dynamo.graph_break()
        return self.linear(inputs)


def test_a_failure_of_the_compiler_names_the_plugin_and_the_mend(make_net, batches):
    with pytest.raises(torch._dynamo.exc.Unsupported) as caught:
        fit(make_net(Broken()), batches, fullgraph=True)
    (note,) = [note for note in caught.value.__notes__ if "torch.compile" in note]
    assert "plugin 'compile' (trainbus-compile)" in note
    assert "'-compile'" in note
    assert "backend='eager'" in note


def test_an_unknown_backend_names_those_there_are(make_net, batches):
    with pytest.raises(PluginError, match="no backend 'inductr'; did you mean 'inductor'") as error:
        fit(make_net(), batches, backend="inductr")
    assert "cudagraphs, inductor" in str(error.value)


def test_an_unknown_mode_names_those_there_are(make_net, batches):
    with pytest.raises(PluginError, match="no mode 'max-autotun'; did you mean 'max-auto") as error:
        fit(make_net(), batches, backend=None, mode="max-autotun")
    assert "default" in str(error.value)
    assert "reduce-overhead" in str(error.value)


def test_an_unknown_option_of_inductor_is_named(make_net, batches):
    with pytest.raises(PluginError, match="no option 'max_autotun'; did you mean 'max_autotune'"):
        fit(make_net(), batches, backend=None, options={"max_autotun": True})


def test_options_that_exclude_each_other_are_refused():
    with pytest.raises(PluginError, match="mode and options exclude each other"):
        Compile(mode="default", options={"max_autotune": True})


def test_a_number_below_zero_is_refused():
    with pytest.raises(PluginError, match="warn_after=-1"):
        Compile(warn_after=-1)


def test_an_empty_list_of_regions_is_refused():
    with pytest.raises(PluginError, match=r"regions=\[\]"):
        Compile(regions=[])


def test_another_plugin_that_compiles_is_an_error_that_names_both(make_net, batches):
    class Vendor:
        @hookimpl
        def on_run_start(self, run):
            run.claim("compile", "vendor")

    with pytest.raises(UsageError, match="two plugins claim compile: 'compile' and 'vendor'"):
        fit(make_net(), batches, Vendor())
