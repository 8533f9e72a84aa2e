"""From rows to texts that a learner takes, and what is said of odd ones."""

import logging

import numpy as np
import pytest

from trainbus_data import DataError
from trainbus_text import text_table


def texts(*pairs):
    return [{"text": text, "about": about} for text, about in pairs]


def some(rows):
    return [{"text": row["text"], "about": row["about"]} for row in rows]


def test_a_file_and_its_rows_are_the_same_data(rows, tmp_path):
    lines = ["text,about", *(f"{row['text']},{row['about']}" for row in rows)]
    (tmp_path / "all.csv").write_text("\n".join(lines))
    one, other = (
        text_table(tmp_path / "all.csv", "text", "about"),
        text_table(rows, "text", "about"),
    )
    assert one.parts == other.parts and one.name == "all"


def test_classes_keep_their_share_in_both_parts(rows):
    data = text_table(rows, "text", "about")
    assert data.class_counts("train") == {"app": 80, "bank": 80}
    assert data.class_counts("valid") == {"app": 20, "bank": 20}


@pytest.mark.parametrize(
    ("target", "options", "kind"),
    [
        ("about", {}, "category"), ("size", {}, "category"), ("size", {"kind": "number"}, "number"),
        ("many", {"delimiter": " "}, "categories"), (["one", "two"], {}, "categories"),
        (["size", "half"], {}, "number"),
    ],
)  # fmt: skip
def test_the_target_is_known_by_its_column(rows, target, options, kind):
    given = [
        {**row, "many": "a b" if i % 3 else "a", "one": i % 2, "two": int(i % 3 > 0), "half": i / 2}
        for i, row in enumerate(rows)
    ]
    assert text_table(given, "text", target, **options).target.kind == kind


def test_two_columns_are_read_as_one_text(rows):
    pairs = [{**row, "second": "a b"} for row in rows]
    data = text_table(pairs, ["text", "second"], "about")
    assert data.parts["train"][0][0].endswith(" ␞ a b")


def test_batches_of_training_have_little_padding_and_every_text_once(rows):
    loader = text_table(rows, "text", "about", tokens="words", batch_size=8).train
    lengths = np.concatenate([batch[1].numpy() for batch in loader])
    assert len(lengths) == 160 and loader.padded_part() < 0.08


def test_an_epoch_goes_on_where_it_was_left(rows):
    for options in ({"batch_size": 16}, {"batch_tokens": 60}):
        loader = text_table(rows, "text", "about", tokens="words", **options).train
        loader.set_epoch(3)
        whole = [batch[0].tolist() for batch in loader]
        loader.start_at(2)
        assert [batch[0].tolist() for batch in loader] == whole[2:]
        assert len(whole) == len(loader)


def test_a_budget_of_tokens_is_kept(rows):
    loader = text_table(rows, "text", "about", tokens="words", batch_tokens=40).train
    assert all(batch[0].numel() <= 40 for batch in loader)
    assert sum(len(batch[0]) for batch in loader) == 160


def test_of_a_long_text_head_and_tail_are_kept():
    long = " ".join(map(str, range(100)))
    given = texts(*[(long, "a"), (long + " x", "b")] * 10)
    data = text_table(given, "text", "about", tokens="words:1000", max_length=8, head=2)
    tokens = data.recipe.encode_input(long)[0].tolist()
    all_of_them = data.recipe.tokens.encode_all([long])[0].tolist()
    assert tokens == all_of_them[:2] + all_of_them[-6:]
    assert "middle is cut out (head 2, tail 6)" in data.summary()


def test_summary_has_lengths_of_classes_and_what_is_unknown(rows):
    said = text_table(rows, "text", "about", tokens="words").summary()
    assert "bank" in said and "unknown   valid" in said and "padding" in said


# --- what is odd ---------------------------------------------------------------------------------


def test_rows_without_a_text_are_empty_and_said(caplog):
    with caplog.at_level(logging.WARNING, "trainbus"):
        text_table(texts(("a", "x"), (None, "x"), ("b", "y"), ("c", "y")) * 5, "text", "about")
    assert "have no text: they are read as empty" in caplog.text


def test_texts_without_a_token_are_said(caplog):
    given = texts(("a b", "x"), ("\u200b", "y")) * 10
    with caplog.at_level(logging.WARNING, "trainbus"):
        text_table(given, "text", "about", split=0.5).summary()
    assert "have no token that is known" in caplog.text and "\\u200b" in caplog.text


def test_rows_without_a_target_are_left_out_and_said(caplog, rows):
    with caplog.at_level(logging.WARNING, "trainbus"):
        data = text_table([*some(rows), {"text": "lost", "about": None}], "text", "about")
    assert "1 rows of the table have no target (rows 200): left out" in caplog.text
    assert sum(len(part[0]) for part in data.parts.values()) == 200


def test_texts_in_both_parts_are_said(caplog, rows):
    with caplog.at_level(logging.WARNING, "trainbus"):
        text_table(rows, "text", "about", valid=rows[:7])
    assert "7 texts of valid are in training" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "txt"}, "no column 'txt'.*did you mean 'text'|no column 'txt'"),
        ({"target": "abot"}, "no column 'abot'"),
        ({"text": "size"}, "holds numbers, 4 for example, and no texts"),
        ({"target": "text"}, "both text and target"),
        ({"split": 3}, "split=3"),
        ({"kind": "clas"}, "one of class, labels, number"),
        ({"tokens": "bpee"}, "no such tokens"),
        ({"max_length": 0}, "at least 1"),
        ({"target": "about", "kind": "number"}, "holds texts"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_be_right(rows, change, message):
    given = {"text": "text", "target": "about", **change}
    with pytest.raises(DataError, match=message):
        text_table(rows, given.pop("text"), given.pop("target"), **given)


def test_a_file_with_one_column_is_no_table_of_texts(tmp_path):
    (tmp_path / "one.csv").write_text("text\nhello\nworld\n")
    with pytest.raises(DataError, match="one column"):
        text_table(tmp_path / "one.csv", "text", "about")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(DataError):
        text_table(tmp_path / "none.csv", "text", "about")


def test_a_label_that_training_had_not_is_said_with_its_row(rows):
    other = texts(("my card", "bank"), ("my cat", "banc"))
    with pytest.raises(DataError, match=r"row 1 of valid.*'banc'.*bank"):
        text_table(rows, "text", "about", valid=other)


def test_labels_that_differ_in_blanks_are_one_and_those_in_capitals_are_said(caplog):
    given = texts(("a", "spam"), ("b", "spam "), ("c", "ham"), ("d", "Ham")) * 5
    assert text_table(given, "text", "about").target.vocab == ["Ham", "ham", "spam"]
    assert "differ in capitals alone" in caplog.text


def test_a_text_of_ten_million_signs_is_taken(tmp_path):
    long = "words" * 20_000
    data = text_table(texts((long, "a"), ("short", "b")) * 4, "text", "about", tokens="bytes")
    assert int(data.train.texts.parts[0].max()) == len(long)
