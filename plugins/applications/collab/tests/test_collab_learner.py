"""Ratings and rankings: learned, measured over all items, recommended, exported."""

import csv
import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from trainbus import UsageError
from trainbus_collab import CollabLearner, interactions, solving
from trainbus_collab.targets import ranks
from trainbus_learner import load

QUIET = ["-progress", "-journal", "-manifest"]


def learner_of(data, arch=None, **options):
    return CollabLearner(data, arch, seed=0, plugins=QUIET, **options)


@pytest.fixture
def rankings(made):
    table = {name: made.table[name] for name in ("user", "item", "time")}
    return interactions(table, "user", "item", time="time", split="last")


@pytest.fixture
def ratings(made):
    return interactions(
        made.table, "user", "item", rating="rating", time="time", split=("random", 0.1)
    )


@pytest.mark.parametrize("arch", ["biases", "factors", "mlp"])
def test_ratings_are_learned_no_worse_than_biases_and_exported(ratings, arch):
    learner = learner_of(ratings, arch)
    learner.fit_one_cycle(3)
    found = learner.baselines()
    assert [row.name for row in found] == ["mean", "item mean", "biases", "this learner"]
    assert found[-1].metrics["rmse"] < 1.01 * found["biases"].metrics["rmse"]
    assert found["biases"].metrics["rmse"] < found["item mean"].metrics["rmse"]
    assert 0.85 < found[-1].metrics["rmse"] < 1.2  # the noise alone has .9
    learner.export("out")
    rows = {"user": ["u1", "u2", "zoe"], "item": ["no such", *learner.source.recipe.items[:2]]}
    ours, theirs = learner.predictions(rows), load("out").predictions(rows)
    assert np.array_equal(ours["rating"], theirs["rating"])
    assert ours["cold"] == ["item", "", "user"]


@pytest.mark.parametrize("arch", ["ease", "factors", "sasrec"])
def test_rankings_lie_between_what_is_popular_and_the_best_possible(rankings, made, arch):
    small = {"sasrec": {"width": 16, "layers": 1, "most": 20}}
    learner = learner_of(rankings, arch, network=small.get(arch))
    learner.fit_one_cycle(1)
    found = learner.validate()
    popular = learner.baselines(names=["popular"])[0].metrics["ndcg@10"]
    histories, wanted, _ = rankings.targets()
    names = np.unique(rankings.events["valid"].user_names)
    items = learner.source.recipe.items
    best = []
    for user, history, item in zip(names, histories, wanted, strict=True):
        chances = torch.from_numpy(
            made.chances[made.users.index(user)][[made.items.index(each) for each in items]]
        )
        rank = ranks(chances[None], item[:1], history[None])
        best.append(float(torch.where(rank < 10, 1 / (rank + 2).log2(), 0.0)))
    assert popular < found["ndcg@10"] < 1.1 * np.mean(best)
    assert "300 users, all" in repr(found) and "none sampled" in repr(found)
    learner.export("out")
    ours, theirs = learner.recommend("u3"), load("out").recommend("u3")
    assert ours == theirs and len(ours["item"]) == 10


def test_a_batch_of_training_leaves_out_what_is_to_be_found(rankings):
    learner = learner_of(rankings)
    history, wanted, _ = learner.data.train.first()
    assert not (history == wanted[:, None]).any()


def test_ease_is_the_inverse_of_its_paper():
    x = torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    starts = torch.tensor([0, 2, 4, 7, 9])
    seen = torch.tensor([1, 2, 1, 3, 1, 2, 3, 2, 3])
    pairs = solving.counted(starts, seen, 3)
    assert torch.equal(pairs, x.T @ x)
    inverse = torch.linalg.inv(pairs.double() + 2 * torch.eye(3).double())
    expected = -inverse / inverse.diagonal()
    found = solving.ease(pairs, 2.0)
    assert torch.allclose(found[0, 1], expected[0, 1].float()) and found[1, 1] == 0


def test_als_solves_its_normal_equations():
    starts, seen = torch.tensor([0, 2, 3]), torch.tensor([1, 2, 2])
    items = solving.implicit_als(starts, seen, 3, width=4, sweeps=400)
    assert items.shape == (3, 4) and items[2].abs().max() < 1e-6
    scores = items[:2].double() @ items[:2].double().T
    assert torch.isfinite(scores).all()


def test_seen_items_are_left_out_and_filters_hold(rankings):
    learner = learner_of(rankings)
    recipe = learner.source.recipe
    seen = {recipe.items[int(code) - 1] for code in recipe.history(recipe.user_code("u3"))}
    found = learner.recommend("u3", top=200)
    assert not seen & set(found["item"]) and len(found["item"]) == len(recipe.items) - len(seen)
    assert seen <= set(learner.recommend("u3", top=200, seen=True)["item"])
    some = found["item"][3:6]
    assert set(learner.recommend("u3", only=some)["item"]) == set(some)
    assert not set(learner.recommend("u3", without=some)["item"]) & set(some)
    odd = learner.recommend("u3", only=lambda item: item.startswith("drama"))["item"]
    assert odd and all(each.startswith("drama") for each in odd)
    with pytest.raises(UsageError, match="leave no item"):
        learner.recommend("u3", only=[])


def test_many_users_are_asked_in_blocks_as_one_by_one(rankings, monkeypatch):
    learner = learner_of(rankings)
    users = [f"u{n}" for n in range(20)]
    whole = learner.recommend(users, top=3)
    monkeypatch.setattr("trainbus_collab.predictor._AT_ONCE", 500)
    blocks = learner.recommend(users, top=3)
    assert whole["item"] == blocks["item"] and whole["user"] == blocks["user"]


def test_a_history_takes_the_place_of_training(rankings, caplog):
    learner = learner_of(rankings)
    recipe = learner.source.recipe
    user = recipe.user_code("u3")
    history = [recipe.items[int(code) - 1] for code in recipe.history(user)]
    known, new = learner.recommend("u3"), learner.recommend(history=history)
    assert known["item"] == new["item"] and not any(new["cold"])
    learner.recommend(history=["no such film", *history])
    assert "'no such film': not in training" in caplog.text


def test_a_new_user_is_given_what_is_popular(rankings, caplog):
    found = learner_of(rankings).recommend("zoe", top=5)
    assert "user 'zoe' is new: popular items, or give history=[...]" in caplog.text
    assert found["cold"] == [True] * 5
    train = rankings.events["train"]
    counts = np.bincount(train.items)
    most = [train.item_names[code - 1] for code in np.argsort(-counts)[:5]]
    assert counts[1:].max() and found["item"][0] in most


def test_ids_are_the_same_as_numbers_and_as_texts():
    table = {"user": [1, 1, 1, 2, 2, 2] * 2, "film": list(range(12)), "t": list(range(12))}
    learner = learner_of(interactions(table, "user", "film", time="t", split="last"))
    assert learner.recommend(1)["item"] == learner.recommend("1")["item"]


def test_more_items_than_there_are_is_said(rankings, caplog):
    learner_of(rankings).recommend("u3", top=5000)
    assert "5,000 items are asked for, 120 exist" in caplog.text


def test_who_has_seen_everything_is_said(caplog):
    table = {"user": list("aaaabbbcc"), "film": list("wxyzwxywx"), "t": list(range(9))}
    data = interactions(table, "user", "film", time="t", split=("time", 0.12))
    learner = learner_of(data)
    assert learner.recommend("a")["item"] == []
    assert "user 'a' has seen everything that may be recommended: seen=True" in caplog.text


def test_what_made_a_recommendation_is_told(rankings):
    learner = learner_of(rankings)
    item = learner.recommend("u3", top=1)["item"][0]
    reasons = learner.explain("u3", item)
    assert len(reasons) == 5 and reasons[0][1] >= reasons[-1][1]
    similar = learner.similar(reasons[0][0], top=3)
    assert len(similar) == 3 and reasons[0][0] not in [each for each, _ in similar]
    with pytest.raises(UsageError, match="item 'drama' is new"):
        learner.similar("drama")


def test_a_matrix_that_would_not_fit_is_refused():
    with pytest.raises(UsageError, match="200,000 x 200,000 items needs 320 GB: arch='factors'"):
        solving.check_size(200_000)


def test_networks_that_there_are_not_are_refused(rankings):
    with pytest.raises(UsageError, match="did you mean 'ease'"):
        learner_of(rankings, "ese")
    with pytest.raises(UsageError, match="give what interactions"):
        CollabLearner([1])
    with pytest.raises(UsageError, match="network="):
        learner_of(rankings, "factors", network={"wide": 1})


def test_an_export_predicts_files_in_a_fresh_process(ratings):
    learner = learner_of(ratings)
    learner.fit_one_cycle(1)
    learner.export("model")
    rows = {"user": ["u1", "u2"], "item": learner.source.recipe.items[:2]}
    with Path("ask.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(rows)
        table.writerows(zip(*rows.values(), strict=True))
    subprocess.run(
        [sys.executable, "-m", "trainbus", "-p", "learner", "predict", "model", "ask.csv",
         "--out", "said.csv"], check=True,
    )  # fmt: skip
    with Path("said.csv").open() as file:
        said = [np.float32(row["rating"]) for row in csv.DictReader(file)]
    assert said == learner.predictions(rows)["rating"].tolist()


def test_ratings_by_time_of_movietweetings_are_no_worse_than_biases(movietweetings):
    with gzip.open(movietweetings, "rt") as file:
        rows = [line.rstrip("\n").split("::") for line in file]
    table = {"user": [r[0] for r in rows], "film": [r[1] for r in rows],
             "stars": [float(r[2]) for r in rows], "when": [int(r[3]) for r in rows]}  # fmt: skip
    data = interactions(table, "user", "film", rating="stars", time="when")
    assert data.cold() == pytest.approx((0.28, 0.088), abs=0.002)
    learner = learner_of(data)
    learner.fit_one_cycle(3)
    found = learner.baselines(names=["biases"])
    assert found["biases"].metrics["rmse"] == pytest.approx(1.651, abs=0.001)
    assert found[-1].metrics["rmse"] <= 1.651
