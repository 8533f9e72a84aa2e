"""In a notebook: outputs of a cell that are replaced in place."""

import sys
from types import ModuleType

import pytest
from rich.console import Console

from trainbus import Trainer
from trainbus_progress import Progress


@pytest.fixture
def cell(monkeypatch):
    """The outputs of a cell, each with all its states, in the place of IPython's display."""
    outputs = []

    class Output:
        def __init__(self, data):
            self.states = [data]
            outputs.append(self)

        def update(self, data, raw):
            self.states.append(data)

    display = ModuleType("IPython.display")
    display.display = lambda data, raw, display_id: Output(data)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return outputs


def test_lines_and_bars_are_two_outputs(cell, line, batches):
    progress = Progress(refresh=1e9)
    progress.console = Console(force_jupyter=True)
    Trainer(epochs=2, plugins=[progress]).fit(line, batches, batches)
    lines, bars = cell
    final = lines.states[-1]["text/plain"].splitlines()
    assert final[0].startswith("task ")
    assert final[-1].startswith("training completed")
    assert any(
        "epoch 2/2" in state["text/plain"]
        and "3/4" in state["text/plain"]
        and '<progress value="3" max="4">' in state["text/html"]
        for state in bars.states
    )
    assert bars.states[-1] == {"text/plain": "", "text/html": ""}, "the bars are gone"


def test_names_are_no_markup(cell, make_line, batches):
    class Odd(make_line):
        def training_step(self, batch, run):
            run.log({"train/<b>": 1.0})
            return super().training_step(batch, run)

    progress = Progress()
    progress.console = Console(force_jupyter=True)
    Trainer(plugins=[progress]).fit(Odd(), batches)
    assert "train/&lt;b&gt;" in cell[0].states[-1]["text/html"]


CELL = """
import torch
from trainbus import Task, Trainer
task = Task.supervised(torch.nn.Linear(1, 1), torch.nn.functional.mse_loss)
data = [(torch.ones(2, 1), torch.ones(2, 1))] * 4
trainer = Trainer(epochs=2, plugins=["progress", "-manifest"])
trainer.fit(task, data, data);
"""


def test_a_real_kernel():
    """Where Jupyter is installed."""
    pytest.importorskip("ipykernel")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cell = nbformat.v4.new_code_cell(CELL)
    nbclient.NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3").execute()
    lines, bars = cell.outputs
    assert "training completed" in lines["data"]["text/plain"]
    assert bars["data"]["text/plain"] == ""
