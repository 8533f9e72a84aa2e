"""A training that is killed at any moment: what was flushed is there, and is sent later."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainbus import JournalFile

#: Logs a number that tells its step, twice a step; what was flushed is told on standard output.
TRAIN = """
import time, torch
from trainbus import JournalFile, Trainer
from trainbus.builtin import Checkpoint, Journal
from trainbus.testing import Line, make_line_loader

class Steps(Line):
    def training_step(self, batch, run):
        time.sleep(0.001)
        run.log(step=run.global_step + 1, half=(run.global_step + 1) / 2)
        return super().training_step(batch, run)

trainer = Trainer(
    epochs=40, seed=0, plugins=["./lines.py", Checkpoint(every_steps=30), Journal(seconds=0.1)]
)

@trainer.on("train_batch_start", every=1)
def tell(run):
    # What another connection reads is on the disk.
    if run.global_step % 20 == 19:
        with JournalFile.open(run.dir / "journal.db") as journal:
            print(journal.last, flush=True)

torch.set_num_threads(1)
trainer.fit(Steps(), list(make_line_loader(50, 1)), resume="auto")
"""

#: A logger that appends a line for each metric, and makes it safe when it is asked to.
LINES = """
import json, os
from trainbus import hookimpl

@hookimpl
def on_log_start(run):
    global file
    file = (run.dir / "lines.jsonl").open("a")

@hookimpl
def on_metrics(run, step, metrics):
    file.write(json.dumps([run.record, step, metrics]) + "\\n")

@hookimpl
def on_log_flush(run):
    file.flush()

@hookimpl
def on_log_end(run, status):
    file.close()
"""


@pytest.fixture
def start(tmp_path):
    """Start the training in a process of its own."""
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "lines.py").write_text(LINES)

    def begin():
        return subprocess.Popen(
            [sys.executable, "train.py"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return begin


def lines(directory):
    text = (directory / "lines.jsonl").read_text()
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_flushed_before_a_kill_is_there_and_is_sent_later(start, seed):
    """Killed five times, resumed each time, then run to its end."""
    draw = random.Random(seed)
    for _ in range(5):
        process = start()
        flushed = int(process.stdout.readline() or 0)  # it trains
        time.sleep(draw.random())
        process.send_signal(signal.SIGKILL)
        flushed = max([flushed, *map(int, process.communicate()[0].split())])
        (directory,) = Path("runs").iterdir()
        with JournalFile.open(directory / "journal.db") as journal:
            assert journal.last >= flushed
            steps = list(journal.series("train/step").steps)
            assert list(journal.series("train/step").values) == steps
            assert steps == list(range(1, len(steps) + 1)), "a step is missing"
    process = start()
    process.communicate(timeout=60)
    assert process.returncode == 0
    with JournalFile.open(directory / "journal.db") as journal:
        for name in ("train/step", "train/half"):
            assert list(journal.series(name).steps) == list(range(1, 2001))
        assert journal.logger("lines").position == journal.last
        records = {record.number: record for record in journal.after(0, 10**6)}
    sent = {}
    for number, step, metrics in lines(directory):
        assert records[number].step == step and records[number].body == metrics
        sent[number] = metrics
    expected = {number for number, record in records.items() if record.kind == "metrics"}
    assert set(sent) == expected, "each at least once"
