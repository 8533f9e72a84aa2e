"""Files with rows: read in blocks, predicted in their order, written whole."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from trainbus import UsageError
from trainbus_learner import command, table_files


class Table(dict):
    """Columns."""

    def rows(self):
        """Each row."""
        for values in zip(*self.values(), strict=True):
            yield dict(zip(self, values, strict=True))


class Doubling:
    """Predicts twice the x of a row."""

    takes_tables = True

    def predictions(self, rows):
        try:
            return Table({"twice": [2 * float(row["x"]) for row in rows]})
        except ValueError as error:
            raise UsageError(str(error)) from None


@pytest.fixture
def doubling(monkeypatch):
    """An export that doubles."""
    monkeypatch.setattr(command, "load", lambda path, device: Doubling())
    monkeypatch.setattr(table_files, "BLOCK", 7)


def written(path, rows):
    path = Path(path)
    if path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"x": [float(x) for x in rows]}), path)
    elif ".jsonl" in path.name:
        path.write_text("".join(json.dumps({"x": x}) + "\n" for x in rows))
    else:
        sign = ";" if path.suffix == ".tsv" else ","
        text = f"x{sign}y\n" + "".join(f"{x}{sign}b\n" for x in rows)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def asked(*items, as_json=False, out="predictions"):
    return list(command.lines("export", items, as_json, None, 64, "cpu", out))


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_rows_of_each_kind_of_file_come_in_their_order(name, doubling):
    lines = asked(written(name, range(20)))
    assert lines == ["twice,error", *(f"{2.0 * x}," for x in range(20))]


def test_files_come_one_after_the_other_as_json(doubling):
    lines = asked(written("a.csv", [1]), written("b.csv", [2]), as_json=True)
    assert [json.loads(line) for line in lines] == [{"twice": 2.0}, {"twice": 4.0}]


@pytest.mark.parametrize("out", ["out.csv", "out.jsonl", "out.parquet"])
def test_predictions_are_written_with_bad_rows_at_their_place(out, doubling, capsys):
    values = [*range(12), "none", *range(13, 20)]
    assert asked(written("a.csv", values), out=out) == [f"20 rows predicted: {out}"]
    if out.endswith("parquet"):
        from pyarrow import parquet

        rows = parquet.read_table(out).to_pylist()
    elif out.endswith("jsonl"):
        rows = [json.loads(line) for line in Path(out).read_text().splitlines()]
    else:
        rows = list(csv.DictReader(Path(out).read_text().splitlines()))
    assert len(rows) == 20
    assert "none" in rows[12]["error"]
    assert float(rows[13]["twice"]) == 26
    said = capsys.readouterr().err
    assert "1 of 20 rows could not be predicted" in said and "row 13: " in said


def test_broken_lines_are_said_by_their_number_and_not_lost(doubling, capsys):
    Path("a.csv").write_text("x,y\n1,b\n2\n3,b,c\n4,b\n")
    assert asked("a.csv") == [
        "twice,error", "2.0,", ",it has fewer cells than there are columns",
        ",it has more cells than there are columns", "8.0,",
    ]  # fmt: skip
    assert "2 of 4 rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "names of the columns"),
        ("a.jsonl", b"{1}\n", "line 1: no JSON"),
        ("a.jsonl", b"3\n", "no JSON object"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read as Parquet"),
        ("a.png", b"", "is no table"),
    ],
)
def test_what_is_no_table_is_said(name, content, said, doubling):
    Path(name).write_bytes(content)
    with pytest.raises(UsageError, match=said):
        asked(name)


def test_a_file_that_is_not_there_and_an_ending_that_is_none_are_said(doubling):
    with pytest.raises(UsageError, match="cannot be read"):
        asked("missing.csv")
    with pytest.raises(UsageError, match=r"\.csv, \.jsonl or \.parquet"):
        asked(written("a.csv", [1]), out="out.xlsx")
    assert not Path("out.xlsx").exists()
