"""Modes that replay graphs: what they are told, and what they cannot do. No GPU is needed."""

from types import SimpleNamespace

import pytest
import torch

from trainbus import Bus, Task, Trainer, UsageError
from trainbus_compile import Compile, GraphSteps

GPU = torch.device("cuda", 0)


def a_run(device=GPU, accumulate=1):
    return SimpleNamespace(device=device, accumulate=accumulate, bus=Bus())


@pytest.mark.parametrize(
    "plugin",
    [Compile(mode="reduce-overhead"), Compile(options={"triton.cudagraphs": True})],
)
def test_windows_of_batches_are_refused(plugin):
    with pytest.raises(UsageError, match="those of 4 batches cannot be gathered"):
        plugin._begin_graphs(a_run(accumulate=4))


@pytest.mark.parametrize(
    ("plugin", "device", "told"),
    [
        (Compile(mode="reduce-overhead"), GPU, True),
        (Compile(mode="max-autotune"), GPU, True),
        (Compile(), GPU, False),
        (Compile(mode="reduce-overhead"), torch.device("cpu"), False),
    ],
)
def test_only_graphs_are_told_where_steps_begin(plugin, device, told):
    run = a_run(device)
    plugin._begin_graphs(run)
    assert ("compile_graph_steps" in run.bus.plugins) is told


def test_each_batch_begins_a_step_and_predictions_may_be_kept(monkeypatch):
    steps = []
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    kept = torch.ones(1)

    class Same(torch.nn.Module):
        def forward(self, x):
            return {"out": kept}

    data = [torch.ones(2, 3)] * 3
    found = list(Trainer(plugins=[GraphSteps()]).predict(Task.supervised(Same()), data))
    kept.zero_()
    assert [each["out"].item() for each in found] == [1.0] * 3
    assert len(steps) == 3
