"""Cells of tables: numbers, names, and nothing."""

from pathlib import Path

import pytest

from trainbus_data import Categories, Category, Data, DataError, Number
from trainbus_data.columns import usual_target
from trainbus_data.sources import read_rows


def rows_of(text, name="t.csv"):
    Path(name).write_text(text)
    return read_rows(name)


def test_cells_stand_as_they_are_written():
    """NA is a word, a number with zeros in front a name, and an empty cell is empty."""
    rows = rows_of("id,country,note,size\n007,NA,,1\n012,None,x,\n100,nan,y,3\n")
    assert [row["id"] for row in rows] == ["007", "012", "100"]
    assert [row["country"] for row in rows] == ["NA", "None", "nan"]
    assert [row["note"] for row in rows] == ["", "x", "y"]
    assert [row["size"] for row in rows] == [1, None, 3]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2"], [1, -2]), (["1.5", "2"], [1.5, 2.0]), (["1e3", "2"], [1000.0, 2.0]),
        (["0", "0.5"], [0.0, 0.5]), (["01", "2"], ["01", "2"]), (["1_000", "2"], ["1_000", "2"]),
        (["inf", "1"], ["inf", "1"]), (["True", "False"], ["True", "False"]), (["+1"], ["+1"]),
    ],
)  # fmt: skip
def test_a_column_is_numbers_where_all_are(cells, expected):
    assert [row["b"] for row in rows_of("a,b\n" + "".join(f"x,{c}\n" for c in cells))] == expected


def test_an_empty_cell_is_no_label_among_several_and_missing_where_one_is_needed():
    """The same cell, two blocks."""
    table = {"n": [1.0] * 10, "kind": ["a b", "", "a", "b", "a"] * 2}
    several = Data.from_table(table, blocks=(Number(), Categories(delimiter=" ")))
    assert several.vocab == ["a", "b"]
    with pytest.raises(DataError, match="the label is missing"):
        Data.from_table(table, blocks=(Number(), Category(["a b", "a", "b"])))


def test_the_index_that_pandas_writes_is_left_out_and_said(caplog):
    """A first column without a name that counts rows."""
    text = ",size,kind\n" + "".join(f"{i},{i}.5,{'ab'[i % 2]}\n" for i in range(20))
    Path("t.csv").write_text(text)
    data = Data.from_table("t.csv", blocks=(Number(), Category()))
    assert data.vocab == ["a", "b"]
    assert "left out as an index" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n1;2\n", "separated by ',' and not by ';'"), ("a,a\n1,2\n", "called 'a'"),
        ("a,b\n1,2,3\n", "row 0 has 3 cells, but the head 2"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_table(text, message):
    with pytest.raises(DataError, match=message):
        rows_of(text)


def test_a_byte_order_mark_and_quotes():
    """As spreadsheets write them."""
    Path("t.csv").write_text('\ufeff"a","b"\n"x, y","2"\n', "utf-8")
    assert read_rows("t.csv") == [{"a": "x, y", "b": 2}]


def column(values):
    return usual_target([{"y": value} for value in values], "y")


def test_what_a_column_holds_is_chosen_by_rule(caplog):
    """Words and few whole numbers are classes, fractions numbers, which is said."""
    assert isinstance(column(["a", "b"]), Category)
    assert isinstance(column([1, 2, 3, None]), Category)
    assert isinstance(column([1.0, 2.0]), Category)
    assert isinstance(column(range(100)), Category)
    assert not caplog.text
    assert isinstance(column([1.5, 2.0, float("nan")]), Number)
    assert "'y' holds numbers with fractions, and is learned as a number" in caplog.text
    with pytest.raises(DataError, match=r"34 whole numbers, from 1 to 100: a class each, or a num"):
        column(range(1, 101, 3))


def test_an_identifier_is_no_file(tmp_path):
    """id, file, kind: the first column would be taken for the files."""
    from trainbus_vision import image_table

    (tmp_path / "t.csv").write_text("id,file,kind\n17,a.png,x\n18,b.png,y\n")
    with pytest.raises(DataError, match=r"'id' holds 17, which is no file's name; .* id, file,"):
        image_table(tmp_path / "t.csv")
