"""A learner of what series are: files, arrays, rockets, unequal lengths, bad inputs."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus_data import DataError
from trainbus_learner import load
from trainbus_series import MiniRocket, SeriesLearner, series_arrays, series_files
from trainbus_series.ridge_head import solve
from trainbus_series.rocket import dilations, kernels

QUIET = ["-progress", "-journal", "-manifest"]
UCR = Path(os.environ.get("TRAINBUS_DATA", "nowhere")) / "ucr"


def made(count=60, steps=40, seed=0):
    """Slow and fast waves with a beginning by chance."""
    draw = np.random.default_rng(seed)
    labels = ["slow", "fast"] * (count // 2)
    turns = np.array([1.0 if label == "slow" else 2.0 for label in labels])
    phase = draw.uniform(0, 6, count)
    x = np.sin(turns[:, None] * np.arange(steps) / 4 + phase[:, None])
    return (x + 0.3 * draw.normal(size=x.shape)).astype(np.float32), labels


def learner_of(data, arch="rocket", **options):
    return SeriesLearner(data, arch, seed=0, plugins=QUIET, **options)


def test_a_rocket_is_solved_and_exported_bit_by_bit():
    data = series_arrays(*made(), valid=made(seed=1))
    learner = learner_of(data, network={"features": 840})
    learner.fit()
    assert learner.validate()["accuracy"] > 0.95
    assert learner.validate()["loss"] < 0.3
    learner.export("out")
    x, _ = made(seed=2)
    ours, theirs = learner.predictions(x), load("out").predictions(x)
    assert all(
        torch.equal(a.probabilities, b.probabilities) for a, b in zip(ours, theirs, strict=True)
    )
    assert learner.predict(x[0]).label == "slow"


def test_a_rocket_is_exported_as_one_program():
    learner = learner_of(series_arrays(*made(), valid=made(seed=1)), network={"features": 168})
    learner.fit()
    learner.export("out", format="torch.export")
    x, _ = made(seed=2)
    ours, theirs = learner.predictions(x), load("out").predictions(x)
    assert [a.label for a in ours] == [b.label for b in theirs]


def test_inception_learns():
    learner = learner_of(
        series_arrays(*made(), valid=made(seed=1)), "inception", network={"filters": 8, "depth": 3}
    )
    learner.fit_one_cycle(15)
    assert learner.validate()["accuracy"] > 0.9


def test_what_is_masked_changes_nothing():
    from trainbus_series.classify import SeriesModel

    model = SeriesModel(2, 30, 3, "inception", filters=4, depth=3).eval()
    series = torch.randn(2, 2, 30)
    other = series.clone()
    other[:, :, 20:] = 9.0
    lengths = torch.tensor([20, 20])
    assert torch.allclose(model(series, lengths), model(other, lengths), atol=1e-6)


def test_numbers_of_series_are_learned():
    draw = np.random.default_rng(0)
    size = draw.uniform(1, 3, 80)
    x = np.sin(np.arange(40) / 3 + draw.uniform(0, 6, 80)[:, None]) * size[:, None]
    learner = learner_of(series_arrays(x[:60], size[:60], valid=(x[60:], size[60:])))
    assert learner.source.target.kind == "number"
    learner.fit()
    assert learner.validate()["loss"] < 0.5


def test_kernels_and_dilations_are_those_of_the_paper():
    each = kernels()
    assert each.shape == (84, 9) and bool((each.sum(1) == 0).all())
    assert dilations(24, 10_000) == ([1, 2], [79, 40])
    sizes, shares = dilations(150, 10_000)
    assert sizes[:4] == [1, 2, 3, 4] and sum(shares) == 119


def test_features_are_those_of_aeon():
    reference = pytest.importorskip("aeon.transformations.collection.convolution_based")
    x, _ = made(steps=60)
    theirs = reference.MiniRocket(n_kernels=840, random_state=0)
    given = theirs.fit_transform(x[:, None])
    ours = MiniRocket(1, 60, 840)
    ours.take(torch.from_numpy(x))
    ours.biases.copy_(torch.from_numpy(theirs.parameters[4]))
    assert np.abs(ours(torch.from_numpy(x)[:, None]).numpy() - given).max() < 2 / 60


def test_each_feature_is_a_share_of_a_convolution_above_a_threshold():
    x = torch.from_numpy(made(count=4, steps=30)[0])[:, None]
    rocket = MiniRocket(1, 30, 84)
    rocket.take(x)
    convolved = torch.nn.functional.conv1d(x, rocket.kernels, padding=4)
    whole = (convolved > rocket.biases[:84, None]).float().mean(2)
    inside = (convolved[:, :, 4:-4] > rocket.biases[:84, None]).float().mean(2)
    found = rocket(x)
    assert torch.equal(found[:, 0:84:2], whole[:, 0::2])
    assert torch.equal(found[:, 1:84:2], inside[:, 1::2])


def test_a_ridge_leaves_out_one_as_solving_without_it_does():
    rows, wanted = torch.randn(12, 30).double(), torch.randn(12, 1).double()
    found = solve(rows, wanted)
    kept = torch.arange(12) != 3
    centre, level = rows[kept].mean(0), wanted[kept].mean(0)
    values = rows[kept] - centre
    square = values @ values.T + found.penalty * torch.eye(11).double()
    weights = values.T @ torch.linalg.solve(square, wanted[kept] - level)
    alone = (rows[3] - centre) @ weights + level
    assert torch.allclose(found.left_out[3], alone, atol=1e-6)


def test_unequal_lengths_are_masked_or_stretched():
    x, y = made()
    unequal = [each[: 20 + place % 21] for place, each in enumerate(x)]
    for how in ("mask", "stretch"):
        data = series_arrays(unequal, y, unequal=how)
        assert any("lengths 20 to 40" in note for note in data.notes)
        learner = learner_of(data, network={"features": 840})
        learner.fit()
        assert learner.validate()["accuracy"] > 0.8
    assert learner.predict(x[0][:15]).label in ("slow", "fast")


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[1.0, 2.0], [[1.0], [2.0]]], ["a", "b"], "series 0 of train has 1 dimensions, others 2|2 dimensions, others 1"),
        ([[1.0, 2.0]], ["a", "b"], "1 series, and there are 2 labels"),
        ([["a", "b"]], ["a"], "are no numbers"),
        ([[]], ["a"], "has the shape"),
        ([[1.0, float("inf")]], ["a"], "infinite"),
        ([[1.0, 2.0], [2.0, 3.0]], ["a", None], "series 1 of x has no label"),
        ([], [], "x has no series"),
    ],
)  # fmt: skip
def test_what_are_no_labelled_series_is_refused(x, y, words):
    with pytest.raises(DataError, match=words):
        series_arrays(x, y, valid=([[1.0, 2.0]], ["a"]))


def test_a_class_of_validation_alone_is_refused():
    x, y = made()
    with pytest.raises(DataError, match="series 3 of valid: .*'medium'"):
        series_arrays(x, y, valid=(x[:4], ["slow", "fast", "slow", "medium"]))


def test_other_dimensions_are_refused_when_asked():
    learner = learner_of(series_arrays(*made()), network={"features": 84})
    learner.fit()
    with pytest.raises(UsageError, match="series 0 has 2 dimensions, others 1"):
        learner.predictions([np.zeros((2, 40))])


def write(path, lines, head="@classLabel true a b"):
    Path(path).write_text("\n".join(["# made", "@problemName made", head, "@data", *lines]))


def test_files_are_read_with_dimensions_and_unknown_values():
    write("a.ts", ["1,2,3:4,5,6:a", "1,?,3:4,5,6:b", "2,2,3:4,5,7:a", "1,1,3:4,5,6:b"] * 3)
    data = series_files("a.ts")
    assert data.recipe.dimensions == 2 and data.vocab == ["a", "b"]
    assert any("unknown values" in note for note in data.notes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1,2,x:a", "line 5: '1,2,x' are no numbers"),
        ("1,2,3:c", "line 5: the label 'c' is none of a, b"),
        ("1,2,3:1,2:a", "line 5: dimensions of 2, 3 steps"),
    ],
)
def test_bad_lines_are_named(line, words):
    write("a.ts", [line])
    with pytest.raises(DataError, match=words):
        series_files("a.ts")


def test_an_export_predicts_a_file_in_a_fresh_process():
    x, y = made()
    write("a.ts", [",".join(map(repr, each.tolist())) + ":" + label[0]
                   for each, label in zip(x, y, strict=True)], "@classLabel true s f")  # fmt: skip
    learner = learner_of(series_files("a.ts"), network={"features": 84})
    learner.fit()
    learner.export("model")
    done = subprocess.run(
        [sys.executable, "-m", "trainbus", "-p", "learner", "predict", "model", "a.ts"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("series,label,probability") and len(lines) == 61
    assert [line.split(",")[1] for line in lines[1:]] == [
        p.label for p in learner.predictions("a.ts")
    ]


@pytest.mark.parametrize(
    ("name", "least"),
    [("ItalyPowerDemand", 0.96), ("ArrowHead", 0.85), ("BasicMotions", 1.0), ("JapaneseVowels", 0.97)],
)  # fmt: skip
def test_archives_are_told_as_well_as_published(name, least):
    folder = UCR / name
    if not folder.is_dir():
        pytest.skip("TRAINBUS_DATA has no ucr")
    learner = learner_of(series_files(folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts"))
    learner.fit()
    assert learner.validate()["accuracy"] >= least
