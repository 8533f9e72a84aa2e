"""Tables beside the classical answers: `python benchmarks/tabular.py --data DIR [NAME ...]`.

DIR has the folders adult, california-housing, bike-sharing and dry-bean with the files of UCI as
they are, packed by gzip. Each set is learned with the defaults, a few seeds, and once as an
ensemble; the baselines are fitted in the same run to the same rows. Then how fast rows are prepared
and predicted. Minutes for each set on one core.
"""

import argparse
import csv
import gzip
import tempfile
import time
from pathlib import Path
from statistics import fmean

from trainbus_tabular import TabularLearner, table

ADULT = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital", "occupation",
    "relationship", "race", "sex", "gain", "loss", "hours", "country", "label",
]  # fmt: skip
HOUSES = [
    "longitude", "latitude", "age", "rooms", "bedrooms", "population", "households", "income",
    "value",
]  # fmt: skip
QUIET = ["-progress", "-journal", "-manifest"]


def columns(path, names=None, skip=0, strip=""):
    """The cells of a packed CSV file as a dict of columns."""
    with gzip.open(path, "rt", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if len(row) > 1][skip:]
    names, rows = (names, rows) if names else (rows[0], rows[1:])
    made = {name: list(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}
    made[names[-1]] = [cell.rstrip(strip) for cell in made[names[-1]]]
    return made


def adult(folder):
    """The official test rows as validation, which nothing is chosen by."""
    test = columns(folder / "adult.test.gz", ADULT, strip=".")
    return table(columns(folder / "adult.data.gz", ADULT), "label", valid=test), 10


def houses(folder):
    """California: sums of a block as means of a household, prices in 100,000."""
    made = columns(folder / "cal_housing.data.gz", HOUSES)
    numbers = {name: [float(cell) for cell in cells] for name, cells in made.items()}
    for name in ("rooms", "bedrooms", "population"):
        pairs = zip(numbers[name], numbers["households"], strict=True)
        numbers[name] = [value / count for value, count in pairs]
    del numbers["households"]
    numbers["value"] = [value / 1e5 for value in numbers["value"]]
    return table(numbers, "value"), 20


def bikes(folder):
    """By time, without the columns whose sum is the target."""
    made = columns(folder / "hour.csv.gz")
    for name in ("casual", "registered", "instant"):
        del made[name]
    return table(made, "cnt", time="dteday"), 20


def beans(folder):
    """A fifth at random."""
    return table(columns(folder / "Dry_Bean_Dataset.csv.gz"), "Class"), 20


SETS = {
    "adult": adult, "california-housing": houses, "bike-sharing": bikes, "dry-bean": beans,
}  # fmt: skip


def measured(data, epochs, seeds, ensemble, options):
    """Baselines with one learner, the mean over the seeds, and the ensemble."""
    found, learner = [], None
    for seed in range(seeds):
        learner = TabularLearner(data, seed=seed, **options)
        learner.fit_one_cycle(epochs)
        found.append(learner.validate())
    print(learner.baselines())
    print(
        f"mean of {seeds}: ",
        {name: round(fmean(each[name] for each in found), 4) for name in found[0]},
    )
    if ensemble > 1:
        together = TabularLearner(data, seed=0, ensemble=ensemble, **options)
        together.fit_one_cycle(epochs)
        said = {name: round(value, 4) for name, value in together.validate().items()}
        print(f"ensemble of {ensemble}: {said}, {together.seconds:.0f} s")
    return learner


def speed(learner, source, target):
    """Rows in a second, of processor time: preparing, encoding, predicting; and one row alone."""
    count = len(source[target])
    row = {name: cells[0] for name, cells in source.items()}
    for name, call, times in (
        ("table", lambda: table(source, target), count),
        ("predictions", lambda: learner.predictions(source), count),
        ("predict", lambda: [learner.predict(row) for _ in range(100)], 100),
    ):
        call()
        began = time.process_time()
        call()
        spent = time.process_time() - began
        print(f"  {name}: {times / spent:,.0f} rows/s, {spent / times * 1e6:,.1f} us a row")


def main():
    """Measure the sets that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ensemble", type=int, default=8)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETS)}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        options = {"plugins": QUIET, "run_dir": runs}
        for name in given.names or SETS:
            data, epochs = SETS[name](given.data / name)
            print(f"--- {name}: {epochs} epochs, {data!r:.60}")
            learner = measured(data, epochs, given.seeds, given.ensemble, options)
            if name == "adult":
                speed(learner, columns(given.data / name / "adult.data.gz", ADULT), "label")


if __name__ == "__main__":
    main()
