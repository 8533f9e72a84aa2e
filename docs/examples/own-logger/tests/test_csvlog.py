import csv

from trainbus import Trainer
from trainbus.testing import TinyTask, conformance, make_loader

TestConformance = conformance("csvlog")


def test_each_value_is_a_row_once_also_after_a_resume(tmp_path):
    def fit(epochs):
        plugins = ["csvlog", "checkpoint"]
        trainer = Trainer(epochs=epochs, seed=0, plugins=plugins, run_dir=tmp_path)
        return trainer.fit(TinyTask(), make_loader(batches=3), resume="auto")

    fit(1)
    run = fit(2)
    with (run.dir / "metrics.csv").open(newline="") as file:
        steps = [int(row[0]) for row in csv.reader(file) if row[1] == "train/loss"]
    assert steps == [1, 2, 3, 4, 5, 6]
