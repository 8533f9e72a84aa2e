"""A table is the same, to the bit, from whatever it is read."""

import gzip
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest

from trainbus_data import DataError
from trainbus_data.tables import fast_delimited, reader
from trainbus_data.tables.columns import Reading, same
from trainbus_data.tables.reader import read_table
from trainbus_data.tables.values import column_of

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("narwhals")

ROWS = 60
COLUMNS = {
    "word": [["tea", "coffee", None, "Äpfel", "x y"][n % 5] for n in range(ROWS)],
    "whole": [n * 7 % 13 for n in range(ROWS)],
    "lacking": [None if n % 4 == 0 else n for n in range(ROWS)],
    "fraction": [0.1 * n + 1e-9 if n % 3 else None for n in range(ROWS)],
    "yes": [n % 2 == 0 for n in range(ROWS)],
    "day": [datetime(2020, 1, 1 + n % 28, n % 24) for n in range(ROWS)],
    "code": [f"0{n % 9}" for n in range(ROWS)],
    "empty": [None] * ROWS,
    "huge": [2**60 + n for n in range(ROWS)],
}


def records():
    return [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]


def as_csv(path, opened=open):
    frame = polars.DataFrame(COLUMNS).with_columns(
        polars.col("day").dt.strftime("%Y-%m-%d %H:%M:%S")
    )
    with opened(path, "wb") as file:
        file.write(frame.write_csv().encode())
    return path


def as_parquet(path):
    polars.DataFrame(COLUMNS).write_parquet(path)
    return path


SOURCES = {
    "dict": lambda: COLUMNS,
    "dict of arrays": lambda: {n: np.array(v, dtype=object) for n, v in COLUMNS.items()},
    "list of dicts": records,
    "pandas": lambda: pandas.DataFrame(COLUMNS),
    "pandas of objects": lambda: pandas.DataFrame(COLUMNS, dtype=object),
    "pandas categories": lambda: pandas.DataFrame(COLUMNS).astype(
        {"word": "category", "code": "category"}
    ),
    "pandas nullable": lambda: pandas.DataFrame(COLUMNS).convert_dtypes(),
    "dict of series": lambda: dict(pandas.DataFrame(COLUMNS).items()),
    "polars": lambda: polars.DataFrame(COLUMNS),
    "polars lazy": lambda: polars.LazyFrame(COLUMNS),
    "polars categories": lambda: polars.DataFrame(COLUMNS).with_columns(
        polars.col("word", "code").cast(polars.Categorical)
    ),
    "Arrow": lambda: pyarrow.table(COLUMNS),
    "Arrow dictionaries": lambda: polars.DataFrame(COLUMNS).with_columns(
        polars.col("word", "code").cast(polars.Categorical)
    ).to_arrow(),
    "Arrow in chunks": lambda: pyarrow.concat_tables(
        [pyarrow.table(COLUMNS).slice(0, 20), pyarrow.table(COLUMNS).slice(20)]
    ),
    "CSV": lambda: as_csv("t.csv"),
    "packed CSV": lambda: as_csv("t.csv.gz", gzip.open),
    "Parquet": lambda: as_parquet("t.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_gives_the_same_bits(source):
    found, expected = read_table(SOURCES[source]()), read_table(COLUMNS)
    assert list(found) == list(expected)
    assert [name for name in expected if not same(found[name], expected[name])] == []


def test_what_the_columns_are():
    table = read_table(COLUMNS)
    kinds = [column.kind for column in table.values()]
    assert kinds == [
        "text",
        "number",
        "number",
        "number",
        "boolean",
        "date",
        "text",
        "number",
        "text",
    ]
    assert table.row(1) == {
        "word": "coffee", "whole": 7, "lacking": 1, "fraction": 0.1 + 1e-9, "yes": False,
        "day": "2020-01-02T01:00:00.000000", "code": "01", "empty": None, "huge": str(2**60 + 1),
    }  # fmt: skip


@pytest.mark.parametrize("library", ["polars", "pyarrow", "pandas"])
def test_parquet_is_the_same_by_each_library(library, monkeypatch):
    path = as_parquet("t.parquet")
    monkeypatch.setattr(reader, "_READERS", (library,))
    found = read_table(path)
    assert all(same(found[name], column) for name, column in read_table(COLUMNS).items())


def test_a_large_file_is_the_same_by_polars_and_by_the_standard_library(monkeypatch):
    lines = [f"{n},{n / 7!r},{'abc'[n % 3]} , ,{n % 5 or ''}\n" for n in range(60_000)]
    Path("t.csv").write_text("n,x,word,nothing,some\n" + "".join(lines) + "\n\n")
    assert fast_delimited.fast_codes(Path("t.csv"), "utf-8", ",", 5, 1) is not None
    fast = read_table("t.csv")
    monkeypatch.setattr(fast_delimited, "_LARGE", 1 << 40)
    slow = read_table("t.csv")
    assert all(same(fast[name], slow[name]) for name in slow)


def test_dicts_and_files_need_no_library_of_frames():
    as_csv("t.csv")
    code = (
        "import sys\n"
        "for name in ('pandas', 'polars', 'pyarrow', 'narwhals'): sys.modules[name] = None\n"
        "from trainbus_data.tables.reader import read_table\n"
        "print(*(read_table(each).rows for each in ('t.csv', [{'a': 1}], {'a': [1, 2]})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["60", "1", "2"]


def test_nothing_is_imported_that_was_not_given():
    code = (
        "import sys, polars\nfrom trainbus_data.tables.reader import read_table\n"
        "read_table(polars.DataFrame({'a': ['x', 'y']})); read_table({'a': [1]})\n"
        "print([n for n in ('pandas', 'pyarrow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "kind", "values", "said"),
    [
        (["1,234.5", "12", "1,000,000"], "number", [1234.5, 12, 1e6], "thousands ','"),
        (["1.234,5", "12", "0,5"], "number", [1234.5, 12, 0.5], "decimal ','; thousands '.'"),
        (["1,5", "2,25"], "number", [1.5, 2.25], "decimal ','"),
        (["1 234", "12"], "number", [1234, 12], "thousands ' '"),
        (["12%", "7.5 %"], "number", [0.12, 0.075], "percent"),
        (["$1,200.5", "$3"], "number", [1200.5, 3], "thousands ','; money in $"),
        (["3", "?", "4"], "number", [3, np.nan, 4], "'?' is missing"),
        (["3", "NA", "-"], "number", [3, np.nan, np.nan], "'NA', '-' is missing"),
        (["true", "False", ""], "boolean", [1, 0, np.nan], ""),
        ([*map(str, range(30)), "sold"], "number", [*range(30), np.nan], "'sold' is missing"),
        (["1e3", "-2.5"], "number", [1000, -2.5], ""),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written(words, kind, values, said):
    column = column_of(words)
    assert (column.kind, column.wording.said()) == (kind, said)
    assert np.array_equal(column.values, values, equal_nan=True)


@pytest.mark.parametrize(
    "words",
    [["007", "12"], ["+49", "12"], ["1_000", "2"], ["NA", "DE"], ["1.2.3", "2"], [str(2**60), "1"]],
)
def test_names_stay_words(words):
    assert column_of(words).kind == "text"
    assert column_of(words).words == tuple(words)


@pytest.mark.parametrize(
    ("words", "first", "said"),
    [
        (["2016-01-13", "2016-02-01 10:30"], "2016-01-13T00:00", ""),
        (["13.01.2016", "01.02.2016"], "2016-01-13T00:00", "dates as d.m.y"),
        (["01/02/2016", "03/04/2016"], "2016-01-02T00:00", "dates as m/d/y (could be d/m/y, too)"),
        (["13/01/2016 10:30", "01/02/2016"], "2016-01-13T10:30", "dates as d/m/y"),
        (["2016-01-13T12:00:00Z", "2016-01-13T12:00:00+02:00"], "2016-01-13T12:00", ""),
    ],
)
def test_dates_are_read_in_their_order(words, first, said):
    column = column_of(words)
    assert column.kind == "date"
    assert column.shown(0)[:16] == first
    assert column.wording.said() == said


def test_zones_that_are_mixed_are_a_problem():
    column = column_of(["2016-01-13T12:00:00Z", "2016-01-14T12:00:00"])
    assert "with and without zone (row 1: '2016-01-14T12:00:00')" in column.problem


def test_dates_of_python_are_dates():
    assert column_of([date(2020, 1, 2), None]).shown(0) == "2020-01-02T00:00:00.000000"


def test_texts_are_read_as_in_training():
    prices = column_of(["1.234,5", "2,0"])
    again = column_of(["3,5", "cheap", ""], "price", prices.reading)
    assert again.values[0] == 3.5
    assert again.strange == {1: "cheap"}
    assert Reading.from_state(prices.reading.state()) == prices.reading
    assert column_of(["12"], "zip", column_of(["02134"]).reading).words == ("12",)


@pytest.mark.parametrize("value", ["tea", " tea ", "?", "", "12", 3, 2.5, 2**60, None, True])
def test_one_row_is_read_as_many_are(value):
    for like in (None, Reading("text"), Reading("number")):
        alone, among = column_of([value], "x", like), column_of([value, value], "x", like)
        assert same(alone, among.take([0]))


def read(text, name="t.csv", encoding="utf-8"):
    Path(name).write_bytes(text.encode(encoding))
    return read_table(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n4,5\n", r"t.csv: row 1 has 1 cells, but the head 2: '3'"),
        ("a,b\n1,2\n3,4,5\n", r"row 1 has 3 cells, but the head 2: '3,4,5'"),
        ("a,b,a\n1,2,3\n", r"two columns are called 'a'\.?$"),
        ("3,5,3\n1,2,3\n", r"two columns are called '3'; the first line looks like values"),
        ("size,mass\ncm,kg\n1,2\n3,4\n5,6\n7,8\n1,1\n2,2\n9,9\n0,3\n11,3\n12,14\n13,15\n",
         r"second line looks like a second head \(cm, kg\)"),
        ("", "t.csv is empty"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_table(text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_an_open_quote_is_named():
    with pytest.raises(DataError, match=r"row 0 has 1 cells|a quote that is not closed"):
        read('a,b\n"1,2\n3,4\n' + "5,6\n" * 50_000)


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_another_delimiter_is_found_and_said(sign, caplog):
    table = read(f"a{sign}b\n1,5{sign}x\n2,5{sign}y\n")
    assert table["a"].values.tolist() == [1.5, 2.5]
    assert f"separated by {sign!r}" in caplog.text


def test_another_encoding_is_said_with_an_example(caplog):
    table = read("name,n\nCafé,1\nThé,2\n", encoding="cp1252")
    assert table["name"].words == ("Café", "Thé")
    assert "not UTF-8 at byte 10 (0xe9): read as Windows-1252" in caplog.text
    assert read("name,n\nCafé,1\n", encoding="utf-16")["name"].words == ("Café",)
    assert read("name,n\nCafé,1\n", encoding="utf-8-sig")["name"].words == ("Café",)


def test_an_index_of_pandas_is_left_out(caplog):
    for name in ("", "Unnamed: 0"):
        assert list(read(f"{name},x\n0,5\n1,6\n2,7\n")) == ["x"]
    assert "left out as an index" in caplog.text
    assert list(read("index,x\n0,5\n1,6\n")) == ["index", "x"]  # its role says what it is


def test_blanks_comments_and_quotes():
    table = read('|a comment\na, b\n1, "x, y"\n2, z \n\n3, z\n')
    assert table["b"].words == ("x, y", "z")
    assert table.rows == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pandas.DataFrame({("a", "x"): [1], ("a", "y"): [2]}), "columns of .*MultiIndex"),
        (lambda: pandas.DataFrame({"a": [1], "b": [2], "c": [3]}).set_index(["a", "b"]),
         r"rows of .* index of 2 levels \(MultiIndex\); reset_index\(\)"),
        (lambda: pandas.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are called 'a'"),
        (lambda: polars.DataFrame({"a": [[1, 2]], "b": [1]}), r"nested columns: 'a' \(List"),
        (lambda: {"a": [1, 2], "b": [1]}, "different lengths"),
        (lambda: {"a": np.zeros((2, 2)), "b": [1, 2]}, r"'a' has the shape \(2, 2\)"),
        (lambda: [{"a": 1}, 3], "row 1 is a int; a list of rows is one of dicts"),
        (lambda: {"a": [1, {"x": 1}]}, "'a' has a dict in row 1"),
        (lambda: {"a": [1, 2], "b": 3}, "column 'b' is the single value 3"),
        (lambda: 17, "a table of the type int"),
        (lambda: "nothing.csv", "there is no table nothing.csv"),
    ],
)  # fmt: skip
def test_a_source_that_is_no_table(make, message):
    with pytest.raises(DataError, match=message):
        read_table(make())


def test_a_parquet_file_with_nested_columns_is_refused():
    polars.DataFrame({"a": [{"x": 1}], "b": [1]}).write_parquet("t.parquet")
    with pytest.raises(DataError, match=r"t.parquet has nested columns: 'a' \(Struct"):
        read_table("t.parquet")


def test_a_missing_column_is_named_with_the_nearest():
    with pytest.raises(
        DataError, match=r"no column 'lable' in t.csv; columns are label; did you mean 'label'"
    ):
        read("label\n1\n2\n")["lable"]


def test_whether_a_table_has_a_column_is_no_error():
    table = read_table({"a": [1]})
    assert "a" in table and "b" not in table
