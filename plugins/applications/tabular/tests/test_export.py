"""From a table to an export, and to a command that predicts a file with it."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from trainbus.cli import main
from trainbus_learner import ExportError, load
from trainbus_tabular import TabularLearner, table

QUIET = ["-progress", "-journal", "-manifest"]


def rows(count=240):
    """Rows with a number, a word and a date, of which some values are missing."""
    random.seed(0)
    made = []
    for place in range(count):
        size, kind = round(random.gauss(50, 20), 2), random.choice(["a", "b", "c"])
        made.append({
            "size": None if place % 17 == 0 else size, "kind": kind,
            "day": f"2024-{1 + place % 12:02}-{1 + place % 28:02}",
            "cost": round(3 * size + 40 * (kind == "a") + random.gauss(0, 5), 2),
            "dear": "yes" if size > 50 else "no",
        })  # fmt: skip
    return made


def without(name):
    return [{k: v for k, v in row.items() if k != name} for row in rows()]


@pytest.fixture(params=["cost", "dear"])
def learner(request):
    """A learner of a number and one of a class, calibrated and exported to `out`."""
    data = table(without("dear" if request.param == "cost" else "cost"), request.param)
    made = TabularLearner(data, seed=0, plugins=QUIET)
    made.fit_one_cycle(2)
    made.calibrate(0.8)
    made.export("out")
    return made


def test_a_loaded_export_predicts_the_same_bits(learner):
    loaded = load("out")
    asked = rows(30)
    ours, theirs = learner.predictions(asked), loaded.predictions(asked)
    assert list(ours) == list(theirs)
    assert all(list(ours[name]) == list(theirs[name]) for name in ours)
    one, other = learner.predict(asked[3]), loaded.predict(asked[3])
    assert (one.label, one.interval, one.labels) == (other.label, other.interval, other.labels)


def test_an_export_is_loaded_without_libraries_of_frames(learner):
    asked = rows(3)
    Path("asked.json").write_text(json.dumps(asked))
    code = (
        "import sys, json\n"
        "for name in ('pandas', 'polars', 'narwhals', 'pyarrow', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from trainbus_learner import load\n"
        "made = load('out').predictions(json.load(open('asked.json')))\n"
        "print(json.dumps([str(each) for row in made.rows() for each in row.values()]))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    wanted = [str(each) for row in learner.predictions(asked).rows() for each in row.values()]
    assert json.loads(said) == wanted


def test_the_command_predicts_a_file(learner, capsys):
    asked = rows(5)
    with Path("new.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asked[0]))
        writer.writeheader()
        writer.writerows(asked)
    main(["-p", "learner", "predict", "out", "new.csv"])
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    wanted = list(learner.predictions(asked).rows())
    assert len(lines) == 5
    name = learner.data.target.names[0]
    for line, row in zip(lines, wanted, strict=True):
        assert line[name] == str(row[name]) or float(line[name]) == pytest.approx(float(row[name]))


def test_a_recipe_that_was_tampered_with_is_refused(learner):
    path = Path("out/description.json")
    about = json.loads(path.read_text())
    about["recipe"]["state"]["columns"] = [{"name": "size"}]
    path.write_text(json.dumps(about))
    with pytest.raises(ExportError, match="how its items are read is not known"):
        load("out")
    about["recipe"]["reader"] = "tabel"
    path.write_text(json.dumps(about))
    with pytest.raises(ExportError, match="no installed distribution offers"):
        load("out")


def test_the_numeric_path_is_a_program(learner):
    learner.export("program", format="torch.export")
    ours, theirs = learner.predictions(rows(9)), load("program").predictions(rows(9))
    for name in ours:
        if not isinstance(ours[name], list):
            assert list(theirs[name]) == pytest.approx(list(ours[name]), rel=1e-4, abs=1e-5)
