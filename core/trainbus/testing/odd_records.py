"""Records that are in order, and that a service may choke on all the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import torch

from trainbus.engine.run import Run
from trainbus.engine.trainer import Trainer
from trainbus.records.artifacts import png

NAMES = (
    "odd/ключ-鍵",
    "odd/with spaces",
    "odd/a.b-c:d#e?f%g",
    "odd/deep/er/name",
    "odd/" + "long" * 200,
)
PARAMS: dict[str, Any] = {
    "nested": {"optimizer": {"name": "sgd", "betas": [0.9, 0.999]}, "empty": {}},
    "none": None,
    "nan": math.nan,
    "large": 10**30,
    "path": Path("data") / "train",
    "text": "x" * 10_000,
    "ключ": "значение",
    "": "a name without a letter",
    "type": torch.float32,
    **{f"many_{number}": number for number in range(300)},
}


class _Figure:
    """What a figure of matplotlib is, without matplotlib."""

    def savefig(self, file: BinaryIO, format: str) -> None:
        file.write(png(torch.zeros(4, 4, 3, dtype=torch.uint8)))


def log_odd_things(trainer: Trainer) -> None:
    """Have the runs of a trainer log them, each kind at least once."""

    @trainer.on("fit_start")
    def begin(run: Run) -> None:
        run.log_params(PARAMS)
        run.log_params({"none": 1, "later": True})
        run.log_tags({"team": "vision", "ключ": "з" * 500, "empty": ""})
        file = run.dir / "päth with spaces.txt"
        file.write_text("text")
        empty = run.dir / "empty.bin"
        empty.touch()
        model = run.dir / "model"
        (model / "inner").mkdir(parents=True)
        (model / "inner" / "weights.bin").write_bytes(bytes(100))
        run.log_artifact("file", file)
        run.log_artifact("empty", empty)
        run.log_artifact("model", model, "model")
        run.log_artifact("a/name: with *all*/sorts", "# Título\n\n| a |\n| - |\n", "text")
        run.log_artifact("table", [{"a": 1, "b": "é"}, {"a": None, "b": math.inf}], "table")
        run.log_artifact("no rows", [], "table")
        run.log_artifact("image", torch.rand(3, 8, 8), "image")
        run.log_artifact("grey", torch.zeros(1, 1, 1, dtype=torch.uint8), "image")
        run.log_artifact("figure", _Figure(), "figure")

    @trainer.on("train_batch_end")
    def log(run: Run) -> None:
        run.log({"odd/nan": math.nan, "odd/inf": math.inf, "odd/minus_inf": -math.inf})
        run.log({"odd/huge": 1e300, "odd/tiny": 5e-324, "odd/int": 2**62, "odd/true": True})
        run.log(dict.fromkeys(NAMES, 1.0))
        run.log_artifact("image", torch.rand(3, 8, 8), "image")  # a series of one name
