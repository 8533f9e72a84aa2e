"""From tables to users and items: splits, duplicates, cold ones, bad inputs."""

import numpy as np
import pytest

from trainbus_collab import CollabLearner, interactions
from trainbus_data import DataError

ROWS = {
    "user": [1, 1, 1, 2, 2, 3], "film": ["a", "b", "c", "a", "c", "b"],
    "stars": [4.0, 5.0, 1.0, 2.0, 3.0, 5.0], "when": [1, 5, 3, 2, 6, 4],
}  # fmt: skip


def test_validation_is_what_came_last():
    data = interactions(ROWS, "user", "film", rating="stars", time="when", split=("time", 0.34))
    valid = data.events["valid"]
    assert list(zip(valid.user_names, valid.item_names, strict=True)) == [("1", "b"), ("2", "c")]
    assert data.how == "the last 34% in time"


def test_the_last_of_each_user_with_two_or_more_validates():
    data = interactions(ROWS, "user", "film", time="when", split="last")
    valid = data.events["valid"]
    assert set(zip(valid.user_names, valid.item_names, strict=True)) == {("1", "b"), ("2", "c")}


def test_rankings_without_times_hide_one_of_each_user():
    data = interactions({n: ROWS[n] for n in ("user", "film")}, "user", "film")
    assert sorted(data.events["valid"].user_names.tolist()) == ["1", "2"]


def test_ids_of_any_size_and_kind_cost_nothing():
    table = {
        **ROWS,
        "user": [10**12 + n for n in ROWS["user"]],
        "film": [f"00{n}" for n in range(6)],
    }
    data = interactions(table, "user", "film", rating="stars", split=("random", 0.2))
    assert data.events["train"].users.max() <= 3
    assert "0" not in data.events["train"].item_names and "000" in [
        *data.events["train"].item_names, *data.events["valid"].item_names
    ]  # fmt: skip


def test_new_users_and_items_have_the_code_0_and_are_counted():
    table = {"user": list("aabbab") + ["new"], "film": list("xyxyzz") + ["new"], "t": range(7)}
    data = interactions(
        {**table, "t": list(table["t"])}, "user", "film", time="t", split=("time", 0.15)
    )
    assert data.events["valid"].users.tolist() == [0] and data.cold() == (1.0, 1.0)
    assert "100.0% of validation has a new user" in data.summary()


@pytest.mark.parametrize(("how", "value"), [("last", 2.0), ("first", 4.0), ("mean", 3.0)])
def test_pairs_that_occur_twice_are_said_and_made_one(how, value):
    table = {"u": ["a", "a", "b", "a", "b"], "i": ["x", "x", "y", "y", "x"],
             "r": [4.0, 2.0, 1.0, 1.0, 1.0], "t": [1, 2, 3, 4, 5]}  # fmt: skip
    data = interactions(table, "u", "i", rating="r", time="t", duplicates=how, split=("time", 0.2))
    assert any("1 pairs occur more than once (user 'a', item 'x': 4, 2)" in n for n in data.notes)
    train = data.events["train"]
    assert value in train.ratings.tolist() and len(train.users) == 3


def test_rows_without_a_value_are_left_out_and_said():
    table = {**ROWS, "stars": [4.0, float("nan"), 1.0, 2.0, 3.0, 5.0]}
    data = interactions(table, "user", "film", rating="stars", time="when")
    assert any("rows 1 lack a value: 1 are left out" in note for note in data.notes)


def test_a_random_split_though_there_are_times_is_said():
    data = interactions(ROWS, "user", "film", rating="stars", time="when", split="random")
    assert any("random though there are times" in note for note in data.notes)


def test_swapped_columns_are_asked_about():
    table = {"film": ROWS["user"], "user": ROWS["film"]}
    data = interactions(table, "film", "user")
    assert any("swapped?" in note for note in data.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "first"}, "split='first': one of time, last, random"),
        ({"split": 1.5}, "split=1.5"),
        ({"split": "time"}, "needs time="),
        ({"rating": "star"}, "no column 'star'.*did you mean 'stars'"),
        ({"rating": "film"}, "the rating 'film' holds texts"),
        ({"duplicates": "max"}, "duplicates='max'"),
        ({"valid": ROWS, "split": 0.1}, "leave split= out"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(DataError, match=words):
        interactions(ROWS, "user", "film", **options)


def test_an_empty_table_is_refused():
    with pytest.raises(DataError, match="has no row"):
        interactions({"user": [None], "film": ["a"]}, "user", "film")


def test_ratings_that_are_all_the_same_are_implicit():
    data = interactions({**ROWS, "stars": [1.0] * 6}, "user", "film", rating="stars", time="when")
    assert data.usual_goal == "ranking"
    with pytest.raises(
        DataError, match="all ratings are 1: this is implicit feedback: goal='ranking'"
    ):
        CollabLearner(data, goal="ratings")


def test_goals_that_there_are_not_are_refused():
    data = interactions({n: ROWS[n] for n in ("user", "film")}, "user", "film")
    with pytest.raises(DataError, match="goal='ratings' needs rating="):
        CollabLearner(data, goal="ratings")
    with pytest.raises(DataError, match="goal='rank': 'ratings' or 'ranking'"):
        CollabLearner(data, goal="rank")


def test_what_is_drawn_depends_on_the_seed_alone():
    table = {n: ROWS[n] for n in ("user", "film")}
    one, two = (interactions(table, "user", "film", seed=3) for _ in range(2))
    assert np.array_equal(one.events["valid"].items, two.events["valid"].items)
