"""What a person reads about a table, or rows, in which something is wrong."""

import logging

import numpy as np
import pytest

from trainbus_data import DataError
from trainbus_tabular import table

N = 200


def base(**more):
    draw = np.random.default_rng(0)
    x = draw.normal(size=N)
    return {
        "x": x.tolist(),
        "word": [("tea", "coffee", "milk")[n] for n in draw.integers(0, 3, N)],
        **more,
        "y": ["up" if each > 0 else "down" for each in x + draw.normal(size=N)],
    }


def said(caplog, source, target="y", **options):
    caplog.clear()
    caplog.set_level(logging.WARNING)
    table(source, target, **options)
    return caplog.text


def test_a_target_that_is_no_column():
    with pytest.raises(DataError, match=r"no column 'lable' in the table; columns are x, .*'label'\?"):
        table({"x": [1, 2], "label": ["a", "b"]}, "lable")


def test_a_file_without_names(tmp_path):
    (tmp_path / "t.csv").write_text("1.5,2,a\n2.5,3,b\n3.5,4,a\n")
    with pytest.raises(DataError, match="the first line looks like values: put a line with names"):
        table(tmp_path / "t.csv", "label")


def test_a_target_with_one_value_or_none():
    with pytest.raises(DataError, match="the target 'y' has one value, 'up'"):
        table({**base(), "y": ["up"] * N}, "y")
    with pytest.raises(DataError, match="no row of the table has a target"):
        table({**base(), "y": [None] * N}, "y")


def test_a_class_of_one_row(caplog):
    source = base()
    source["y"][3] = "sideways"
    assert "the class 'sideways' of 'y' has one row in training" in said(caplog, source)


def test_rows_without_a_target_are_left_out(caplog):
    source = base()
    source["y"][3] = source["y"][88] = None
    assert "2 rows of the table have no target (rows 3, 88): they are left out" in said(caplog, source)


def test_infinite_and_huge_numbers(caplog):
    source = base()
    source["x"][3] = float("inf")
    source["x"][5] = 1e300
    text = said(caplog, source, split=0.01)
    assert "the column 'x' has inf in 1 rows of training (3): taken as missing" in text
    assert "the column 'x' has 1e+300 in row 5" in text


def test_id_text_and_leak_are_left_out_and_said(caplog):
    source = base(
        customerID=[f"c{n}" for n in range(N)],
        review=[f"it was {n} times as good as ever" for n in range(N)],
        number=list(range(7, 7 + N)),
    )
    source["told"] = [2.0 if each == "up" else 1.0 for each in source["y"]]
    text = said(caplog, source)
    assert "'customerID': 160 different values in 160 rows" in text
    assert "'review': 160 different texts of 8 words" in text
    assert "'told' is left out as a leak: alone it tells the class of 100.0% of" in text
    assert "roles={'told': 'number'}" in text
    data = table(source, "y", roles={"customerID": "category", "told": "number"})
    assert {"customerID"} <= set(data.layout.categories)
    assert "told" in data.layout.numbers


def test_parts_of_a_sum_are_a_leak(caplog):
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 50, N), draw.integers(0, 50, N)
    source = {"a": a, "b": b, "x": draw.normal(size=N), "total": a + b}
    text = said(caplog, source, "total")
    assert "'a' is left out as a leak: the target is 'a' + 'b'" in text


def test_same_rows_in_both_parts(caplog):
    source = {name: column[:100] * 2 for name, column in base().items()}
    assert "rows of validation are also in training (row " in said(caplog, source)


def test_groups_in_both_parts(caplog):
    source = base(patient_id=[f"p{n % 20}" for n in range(N)])
    assert "split=splits.by_group('patient_id') keeps them apart" in said(caplog, source)


def test_a_random_split_of_rows_in_the_order_of_time(caplog):
    source = base(day=[f"2020-{1 + n // 20:02}-{1 + n % 20:02}" for n in range(N)])
    text = said(caplog, source)
    assert "validation is random though 'day' orders the rows in time; time='day' splits" in text
    assert "random though" not in said(caplog, source, time="day")


def test_times_with_and_without_zone():
    days = [f"2020-01-{1 + n % 28:02}T10:00:00" + ("Z" if n != 5 else "") for n in range(N)]
    with pytest.raises(DataError, match=r"'day' has times with and without zone \(row 5"):
        table(base(day=days), "y", split=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "when"}, "no column 'when'"),
        ({"time": "word"}, "time='word': the column holds texts"),
        ({"time": "y"}, "time='y' is the target"),
        ({"weight": "word"}, "weight='word': '(tea|coffee|milk)' in row 0"),
        ({"split": 2}, "split=2: the fraction of validation"),
        ({"split": "part"}, "no column 'part'"),
        ({"roles": {"wrod": "number"}}, "there is no column 'wrod'; did you mean 'word'"),
        ({"roles": {"word": "categroy"}}, "one of number, category, .*; did you mean 'category'"),
        ({"roles": {"word": "number"}}, "the column holds texts, '.*' for example"),
        ({"roles": {"y": "klass"}}, "'klass' for the target: one of class"),
        ({"roles": {"y": "number"}}, "the target 'y' holds texts, and is no number"),
        ({"valid": {"x": [1.0], "y": ["up"]}}, "it lacks 'word'"),
        ({"valid": {"x": [1.0], "word": ["tea"], "y": ["upp"]}},
         r"the target of valid has 'upp' \(row 0\), .*; did you mean 'up'"),
        ({"roles": {"x": "skip", "word": "skip"}}, "no column is left to learn from"),
    ],
)  # fmt: skip
def test_an_argument_that_cannot_be(options, message):
    with pytest.raises(DataError, match=message):
        table(base(), "y", **options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"x": [], "y": []}, "has no rows"),
        ({"x": [1], "y": ["a"]}, "the training part has 1 row"),
        ({"y": ["a", "b"] * 20}, "has no column but the target"),
        ({f"c{n}": [1.0, 2.0] for n in range(50_001)} | {"y": [1, 2]}, "50,002 columns: embeddings"),
    ],
)
def test_too_few_rows_and_too_many_columns(source, message):
    with pytest.raises(DataError, match=message):
        table(source, "y")


def test_two_rows_and_ten_thousand_columns_are_data():
    data = table({"x": [1.0, 2.0], "z": [3.0, 1.0], "y": ["a", "b"]}, "y", split=lambda r, l: ([0, 1], []))
    assert data.one_batch()[0].shape[0] == 2
    wide = {f"c{n}": [1.0, 2.5, 3.0, n] for n in range(10_000)} | {"y": ["a", "b", "a", "b"]}
    assert len(table(wide, "y").layout.numbers) > 9_000


def test_a_constant_column_with_a_gap_and_only_numbers():
    source = base(gap=[None] + [5.0] * (N - 1), other=[2.0] * N)
    del source["word"]
    data = table(source, "y", split=0.1)
    assert data.encode(source)[0].isfinite().all()


# --- rows to predict -----------------------------------------------------------------------------


@pytest.fixture
def data():
    return table(base(zip=[f"0{2000 + n % 9}" for n in range(N)], n=list(range(5, 105)) * 2), "y")


ROW = {"x": 0.5, "word": "tea", "zip": "02001", "n": 7}


def test_a_missing_column(data):
    with pytest.raises(DataError, match=r"the row lacks 'word', which 25% of the inputs .* or None"):
        data.encode({k: v for k, v in ROW.items() if k != "word"})
    assert data.odd({**ROW, "word": None}) == [["word: it is missing, which it never was in training"]]


def test_an_extra_column_is_said_once(data, caplog):
    data.encode({**ROW, "foo": 1, "bar": 2, "y": "up"})
    data.encode({**ROW, "foo": 1, "bar": 2})
    assert caplog.text.count("ignored 'foo', 'bar' (not used in training)") == 1


def test_a_new_category_and_a_value_out_of_range(data):
    row = {**ROW, "word": "Atlantis", "x": 400}
    found = data.odd([ROW, row])
    assert found[0] == []
    assert "word: 'Atlantis' is new (3 known), and taken as unknown" in found[1]
    assert any(each.startswith("x: 400 is out of the range of training, -") for each in found[1])
    assert data.encode(row)[1][0, 0] == 0
    with pytest.raises(DataError, match=r"row 0: .*'Atlantis' is new"):
        data.encode(row, strict=True)


def test_numbers_that_arrive_as_text(data, caplog):
    rows = {name: [value] * 3 for name, value in ROW.items()} | {"n": ["7", "many", " "]}
    numbers, _ = data.encode(rows)
    assert numbers[0].equal(data.encode(ROW)[0][0])
    assert "'n' was a number in training; 1 of 3 values are not: 'many' (row 1)" in caplog.text
    assert data.odd({**ROW, "n": "many"})[0][0].startswith("n: 'many' is no number")


def test_a_category_that_arrives_as_a_number(data):
    with pytest.raises(DataError, match=r"'zip' was text in training \('02000' .* would lose the leading"):
        data.encode({**ROW, "zip": 2001.0})
    assert data.odd({**ROW, "word": 5}) == [["word: '5' is new (3 known), and taken as unknown"]]


def test_a_column_of_another_kind(data):
    with pytest.raises(DataError, match="'x' held numbers in training, and now dates"):
        import datetime

        data.encode({**ROW, "x": datetime.datetime(2020, 1, 1)})
