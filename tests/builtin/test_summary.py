"""The table of the model's layers."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainbus import Task, Trainer, hookimpl
from trainbus.builtin.summary import Summary
from trainbus.errors import PluginError


def rows(text):
    """The cells of each row by the layer's name."""
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {row[0]: row[1:] for row in cells if row}


def has_hooks(task):
    return any(module._forward_hooks for module in task.modules())


def net():
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), nn.ReLU(), nn.Linear(8, 1)
    )


def fit(model, loader, **options):
    summary = Summary(**options)
    run = Trainer(plugins=[summary]).fit(Task.supervised(model, functional.mse_loss), loader)
    return summary.text, run


def test_layers_have_shapes_parameters_and_sizes(make_loader):
    model = net()
    model[2].weight.requires_grad_(False)
    text, _ = fit(model, make_loader(3, size=2), depth=3)
    assert rows(text) == {
        "(all)": ["Supervised", "-", "57", "8", "0.00"],
        "model": ["Sequential", "(2, 1)", "57", "8", "0.00"],
        "model.0": ["Sequential", "(2, 8)", "56", "0", "0.00"],
        "model.0.0": ["Linear", "(2, 8)", "40", "0", "0.00"],
        "model.0.1": ["BatchNorm1d", "(2, 8)", "16", "0", "0.00"],
        "model.1": ["ReLU", "(2, 8)", "0", "0", "0.00"],
        "model.2": ["Linear", "(2, 1)", "1", "8", "0.00"],
    }
    assert text.endswith("65 parameters: 57 trainable, 8 frozen; 0.00 MB with buffers")


def test_sizes_count_buffers(make_loader):
    model = nn.Linear(4, 1)
    model.register_buffer("table", torch.zeros(1000, 1000))
    text, run = fit(model, make_loader(1))
    assert rows(text)["model"][-1] == "4.00"
    assert run.header["model"] == "Linear, 5 parameters, 4.00 MB"


def test_depth_limits_the_rows(make_loader):
    text, _ = fit(net(), make_loader(1), depth=1)
    assert list(rows(text)) == ["(all)", "model"]


def test_no_extra_forward_pass_is_made(make_loader):
    calls = []

    class Counts(nn.Linear):
        def forward(self, x):
            calls.append(x)
            return super().forward(x)

    fit(Counts(4, 1), make_loader(3))
    assert len(calls) == 3


def test_what_is_shared_counts_once(make_loader):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight
            self.again = self.a
            self.head = nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.again(self.b(self.a(x))))

    text, _ = fit(Tied(), make_loader(1))
    table = rows(text)
    assert "model.again" not in table
    assert [table[f"model.{name}"][2] for name in ("a", "b", "head")] == ["20", "4", "5"]
    assert table["model"][2] == "29"


def test_outputs_that_are_no_tensors_show_what_is_in_them(make_loader):
    class Parts(nn.Module):
        def forward(self, x):
            return {"pair": (x, x[0]), "name": "x"}

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts, self.head = Parts(), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.parts(x)["pair"][0])

    text, _ = fit(Whole(), make_loader(1, size=2))
    assert rows(text)["model.parts"][1] == "{pair: [(2, 4), (4,)], name: str}"


def test_the_table_goes_to_logging_and_to_the_loggers(line, loader, caplog, capsys):
    artifacts = []

    class Logger:
        @hookimpl
        def on_artifact(self, artifact):
            artifacts.append(artifact)

    summary = Summary()
    with caplog.at_level(logging.INFO, "trainbus"):
        Trainer(plugins=[summary, Logger()]).fit(line, loader)
    assert [(each.name, each.kind, each.value) for each in artifacts] == [
        ("summary", "text", summary.text)
    ]
    assert summary.text in caplog.text
    assert "| linear" in summary.text
    assert capsys.readouterr().out == ""


def test_show_prints_it(line, loader, capsys):
    summary = Summary(show=True)
    Trainer(plugins=[summary]).fit(line, loader)
    assert capsys.readouterr().out == summary.text + "\n"


def test_the_hooks_are_gone_after_the_first_batch(line, loader):
    seen = []
    trainer = Trainer(plugins=[Summary()])
    trainer.on("train_batch_start")(lambda run: seen.append(has_hooks(run.task)))
    trainer.fit(line, loader)
    assert seen == [True] + [False] * 4


def test_the_hooks_are_gone_after_a_failure_in_the_first_batch(make_line, loader):
    class Fails(make_line):
        def training_step(self, batch, run):
            self(batch[0])
            raise ValueError("broken")

    task = Fails()
    with pytest.raises(ValueError, match="broken"):
        Trainer(plugins=[Summary()]).fit(task, loader)
    assert not has_hooks(task)


def test_each_fit_has_a_table_of_its_own(make_loader):
    summary = Summary()
    trainer = Trainer(plugins=[summary])
    for size in (2, 3):
        trainer.fit(Task.supervised(nn.Linear(4, 1), functional.mse_loss), make_loader(size=size))
        assert rows(summary.text)["model"][1] == f"({size}, 1)"


def test_a_negative_depth_is_refused():
    with pytest.raises(PluginError, match="depth=-1"):
        Summary(depth=-1)
