"""`table`: parts, roles, what is encoded, and what is said of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from trainbus_data import DataError, splits
from trainbus_tabular import TableRecipe, table


def rows(count=200, seed=0):
    """A class that follows from two columns, with the usual oddities."""
    draw = np.random.default_rng(seed)
    size, colour = draw.normal(size=count), draw.integers(0, 3, count)
    noisy = size + (colour == 1) + 0.3 * draw.normal(size=count)
    return {
        "id": [f"A{n:05}" for n in range(count)],
        "size": [None if n % 10 == 0 else float(each) for n, each in enumerate(size)],
        "colour": [("red", "green", "blue")[each] for each in colour],
        "day": [f"2020-{1 + n * 12 // count:02}-{1 + n % 28:02}" for n in draw.permutation(count)],
        "flag": [bool(n % 2) for n in draw.integers(0, 2, count)],
        "same": ["x"] * count,
        "note": [None] * count,
        "answer": ["yes" if each > 0.5 else "no" for each in noisy],
        "price": (noisy * 3 + 10).tolist(),
    }


def without(*names, count=200):
    return {name: column for name, column in rows(count).items() if name not in names}


def made(target="answer", source=None, **options):
    if source is None:
        source = without("price" if target == "answer" else "answer")
    return table(source, target, **options)


def test_each_column_has_a_role_with_a_reason():
    data = made()
    assert {name: role.role for name, role in data.plan.roles.items()} == {
        "id": "id", "size": "number", "colour": "category", "day": "date", "flag": "boolean",
        "same": "constant", "note": "constant",
    }  # fmt: skip
    said = data.summary()
    for part in (
        "rows      train 160, valid 40: drawn at random, with the share of each class",
        "target    answer: class, 2 of them: 'no', 'yes'",
        "left out: 160 different values in 160 rows",
        "left out: it is empty in training", "left out: it has one value, 'x'",
        "category  3 different words", "numbers, 144 different; some rows have none",
    ):  # fmt: skip
        assert part in said, said


def test_a_batch_is_numbers_categories_and_target():
    data = made(batch_size=32)
    layout = data.layout
    numbers, codes, target = data.one_batch()
    assert layout.numbers[:2] == ("size", "day elapsed")
    assert layout.numbers[-1] == "size is missing"
    assert (layout.categories, layout.cardinalities) == (("colour", "flag"), (4, 3))
    assert (layout.target, layout.outputs, layout.vocab) == ("class", 2, ("no", "yes"))
    assert numbers.shape == (32, len(layout.numbers))
    assert (numbers.dtype, codes.dtype, target.dtype) == (torch.float32, torch.int64, torch.int64)
    assert torch.isfinite(numbers).all()
    assert codes.min() >= 1


def test_weights_are_a_fourth_part():
    source = {**without("price"), "w": [1.0, 2.0] * 100}
    batch = table(source, "answer", weight="w").one_batch()
    assert set(batch[3].tolist()) == {1.0, 2.0}
    with pytest.raises(
        DataError, match=r"weight='w': -1 in row 0; a weight is a number, 0 or more"
    ):
        table({**source, "w": [-1.0] * 200}, "answer", weight="w")


@pytest.mark.parametrize(
    ("target", "roles", "kind", "dtype"),
    [
        ("price", {}, "number", torch.float32),
        ("colour", {}, "class", torch.int64),
        ("flag", {}, "class", torch.int64),
        (["price", "size"], {}, "numbers", torch.float32),
        (["a", "b"], {}, "labels", torch.float32),
        ("stars", {}, "class", torch.int64),
        ("stars", {"stars": "ordinal"}, "ordinal", torch.int64),
        ("stars", {"stars": "count"}, "count", torch.float32),
        ("stars", {"stars": "number"}, "number", torch.float32),
    ],
)
def test_the_target_is_what_its_column_says(target, roles, kind, dtype):
    source = rows()
    source |= {"a": [0, 1] * 100, "b": [1, 1, 0, 0] * 50, "stars": [1, 2, 3, 4, 5] * 40}
    data = table(source, target, roles=roles)
    assert data.layout.target == kind
    assert data.one_batch()[2].dtype == dtype


def test_numbers_are_learned_scaled_and_read_in_their_units():
    data = made("price")
    wanted = torch.cat([batch[2] for batch in data.train])
    assert abs(float(wanted.mean())) < 1e-5
    assert float(wanted.std()) == pytest.approx(1, abs=0.01)
    again = data.target.in_units(data.train_items.parts[2])
    assert float(again.mean()) == pytest.approx(10 + 1, abs=1)


def test_a_long_tail_is_learned_by_its_logarithm_which_is_said():
    source = {**without("answer"), "price": np.exp(np.random.default_rng(0).normal(8, 1, 200))}
    data = table(source, "price")
    assert "of price the logarithm is learned" in data.summary()
    back = data.target.in_units(data.train_items.parts[2])
    assert float(back.max()) == pytest.approx(source["price"].max(), rel=0.9)


def test_a_split_by_time_takes_the_last_days_and_keeps_a_day_together():
    days = [f"2020-01-{1 + n // 10:02}" for n in range(200)]
    source = {**without("price", "day"), "day": days}
    data = table(source, "answer", time="day")
    assert data.plan.split == "by time: 'day' from 2020-01-17T00:00:00.000000 on"
    assert (len(data.train_items), len(data.valid_items)) == (160, 40)


@pytest.mark.parametrize(
    ("split", "sizes"),
    [
        (0.5, (100, 100, None)), (splits.random(0.1, 0.2), (140, 20, 40)),
        (splits.by_group("colour", 0.4), None), ("part", (100, 50, 50)),
        (splits.everything(), (200, None, None)),
    ],
)  # fmt: skip
def test_rows_are_split_as_is_said(split, sizes):
    source = {**without("price"), "part": (["train"] * 2 + ["valid", "test"]) * 50}
    data = table(source, "answer", split=split)
    found = tuple(
        None if each is None else len(each)
        for each in (data.train_items, data.valid_items, data.test_items)
    )
    if sizes is None:
        assert data.layout.cardinalities[0] < 4  # a colour is not in training
    else:
        assert found == sizes


def test_the_second_source_is_the_validation_part_and_nothing_is_learned_from_it():
    train, valid = rows(200), rows(60, seed=1)
    valid["size"] = [1000.0] * 60
    data = table(train, "answer", valid=valid)
    alone = table(train, "answer", split=splits.everything())
    assert (len(data.train_items), len(data.valid_items)) == (200, 60)
    ours, theirs = data.recipe.tensors(), alone.recipe.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert data.recipe.state() == alone.recipe.state()


def test_fitting_sees_the_training_part_alone():
    """Other rows of validation, the same steps to the bit."""
    source = {**without("price"), "part": ["train"] * 150 + ["valid"] * 50}
    other = {name: list(column) for name, column in source.items()}
    for row in range(150, 200):
        other["size"][row], other["colour"][row] = 1e6, "purple"
    first, second = (table(each, "answer", split="part").recipe for each in (source, other))
    assert first.state() == second.state()
    assert all(torch.equal(a, second.tensors()[name]) for name, a in first.tensors().items())


def test_one_row_is_encoded_as_among_many():
    data, source = made(), without("price", "answer")
    whole = data.encode(source)
    for n in range(0, 200, 23):
        row = {name: column[n] for name, column in source.items()}
        alone = data.encode(row)
        assert torch.equal(alone[0][0], whole[0][n])
        assert torch.equal(alone[1][0], whole[1][n])


def test_rows_are_read_back():
    data, source = made(), without("price", "answer")
    back = data.recipe.decode(*data.encode(source))
    assert back["colour"] == source["colour"]
    assert len(back["day"]) == 200
    assert [value is None for value in back["size"]] == [value is None for value in source["size"]]


ELSEWHERE = """
import json, sys
for name in ("pandas", "polars", "pyarrow", "narwhals", "sklearn"):
    sys.modules[name] = None
from safetensors.torch import load_file, save_file
from trainbus_tabular import TableRecipe
recipe = TableRecipe.from_state(json.load(open("state.json")), load_file("state.safetensors"))
numbers, codes = recipe.encode(json.load(open("rows.json")))
save_file({"numbers": numbers, "codes": codes}, "encoded.safetensors")
"""


def test_a_recipe_is_kept_and_encodes_the_same_bits_without_libraries_of_frames():
    data, source = made(), without("price", "answer")
    Path("state.json").write_text(json.dumps(data.recipe.state()))
    save_file(data.recipe.tensors(), "state.safetensors")
    Path("rows.json").write_text(json.dumps(source))
    subprocess.run([sys.executable, "-c", ELSEWHERE], check=True)
    encoded = load_file("encoded.safetensors")
    numbers, codes = data.encode(source)
    assert torch.equal(encoded["numbers"], numbers)
    assert torch.equal(encoded["codes"], codes)


def test_a_state_that_is_none_is_refused():
    with pytest.raises(DataError, match="this is no recipe of a table: KeyError"):
        TableRecipe.from_state({"columns": []}, {})


def test_data_are_trained_on_without_a_validation_part():
    data = made().all_for_training()
    assert (len(data.train_items), data.valid) == (200, None)
    assert len(made().with_batch_size(7).one_batch()[0]) == 7


# --- categories as numbers, quantiles ------------------------------------------------------------


def zips(count=2000, seed=0):
    """A price that depends on a code of many, and on a number that also says how sure it is."""
    draw = np.random.default_rng(seed)
    code, size = draw.integers(0, 200, count), draw.normal(size=count)
    lift = draw.normal(size=200)
    price = 2 * size + lift[code] + draw.normal(size=count) * (0.2 + abs(size))
    return {"zip": [f"Z{each}" for each in code], "size": size.tolist(), "price": price.tolist()}


def test_the_mean_of_the_target_tells_no_row_its_own():
    """A code that each row has alone would tell the target: encoded, it tells nothing."""
    draw = np.random.default_rng(0)
    source = {
        "code": [f"c{n}" for n in range(400)],
        "size": draw.normal(size=400).tolist(),
        "price": draw.normal(size=400).tolist(),
    }
    data = table(source, "price", roles={"code": "target_mean"})
    numbers, _, target = data.train_items.parts
    place = data.layout.numbers.index("code mean")
    found = np.corrcoef(numbers[:, place], target[:, 0])[0, 1]
    assert abs(found) < 0.25, "out of the folds of others; with its own it would be near 1"


def test_means_of_the_target_are_those_of_training_for_new_rows():
    source = {
        "kind": ["a", "b"] * 200,
        "size": np.random.default_rng(0).normal(size=400).tolist(),
        "price": [1.0, 3.0] * 200,
    }
    data = table(source, "price", roles={"kind": "target_mean"})
    step = data.recipe.steps_by_column["kind"]
    assert step.means["a"][0] < step.overall[0] < step.means["b"][0]
    assert data.odd({"kind": "new", "size": 0.0}) == [
        ["kind: 'new' is new (2 known), and taken as unknown"]
    ]
    numbers, codes = data.encode({"kind": ["a", "new", None], "size": [0.0] * 3})
    assert codes.shape[1] == 0
    assert numbers.isfinite().all()


def test_classes_have_a_mean_for_each_but_the_first():
    source = {
        "kind": ["a", "b", "c"] * 100,
        "size": np.random.default_rng(0).normal(size=300).tolist(),
        "answer": [("x", "y", "z")[n % 3] if n % 7 else "x" for n in range(300)],
    }
    data = table(source, "answer", roles={"kind": "target_mean"})
    assert data.layout.numbers == ("kind mean y", "kind mean z", "size")


def test_encodings_and_robust_scaling_are_kept():
    data = table(
        zips(), "price", roles={"zip": "target_mean", "size": "number"}, scaling="robust"
    )  # fmt: skip
    state = json.loads(json.dumps(data.recipe.state()))
    again = TableRecipe.from_state(state, data.recipe.tensors())
    asked = {"zip": ["Z3", "new", None], "size": [0.5, None, 1e9]}
    for one, other in zip(data.encode(asked), again.encode(asked), strict=True):
        assert torch.equal(one, other)


def test_a_role_of_a_category_is_shown_with_the_others():
    data = table(zips(), "price", roles={"zip": "frequency"})
    assert "frequency as given" in data.summary()
    assert "zip frequency" in data.layout.numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantiles": (0, 1)}, "between 0 and 1"),
        ({"quantiles": "low"}, "between 0 and 1"),
        ({"quantiles": ()}, "between 0 and 1"),
        ({"quantiles": (0.5, 0.5)}, "each once"),
        ({"quantiles": (0.5,), "roles": {"price": "number"}}, "not number"),
        ({"scaling": "none"}, "one of quantile, robust"),
    ],
)
def test_quantiles_and_scalings_that_cannot_be_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        table(zips(100), "price", **options)


def test_quantiles_are_of_one_number():
    source = zips(100)
    with pytest.raises(DataError, match="not class"):
        table(source | {"price": ["a", "b"] * 50}, "price", quantiles=(0.5,),
              roles={"price": "class"})  # fmt: skip
    with pytest.raises(DataError, match="one number"):
        table(source, ["price", "size"], roles={"price": "quantiles", "size": "quantiles"})
