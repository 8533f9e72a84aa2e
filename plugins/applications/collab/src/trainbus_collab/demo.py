"""`trainbus demo collab`: interactions that are drawn, so the best is known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
GENRES = (
    "drama", "comedy", "crime", "war", "music", "history", "family", "horror", "sport", "western",
    "romance", "mystery", "animation", "nature", "travel", "science", "cooking", "noir", "myth",
    "space",
)  # fmt: skip


class Generated(NamedTuple):
    """What was drawn.

    Attributes:
        table: columns user, item, rating and time.
        genre_of: of each item, by name.
        chances: users x items, how probable each is: the order that nobody can better.
        users, items: names, in the order of `chances`.
    """

    table: dict[str, list[Any]]
    genre_of: dict[str, str]
    chances: Array
    users: list[str]
    items: list[str]


def generated(users: int = 800, items: int = 400, genres: int = 10, seed: int = 0) -> Generated:
    """Users with tastes over genres, who find items by popularity and taste.

    Popularity falls as in Zipf's law, tastes are drawn from a Dirichlet distribution (.3), and how
    active users are from a lognormal one; a rating is 3.6, what user and item add, how much the
    genre is liked, and noise of .9.
    """
    draw = np.random.default_rng(seed)
    genre = draw.integers(genres, size=items)
    popularity = 1.0 / np.arange(1, items + 1)
    taste = draw.dirichlet([0.3] * genres, users)
    chances = popularity * np.exp(4.0 * taste[:, genre])
    chances /= chances.sum(1, keepdims=True)
    active = np.clip(draw.lognormal(3, 0.7, users), 5, items // 3).astype(int)
    user_bias, item_bias = draw.normal(0, 0.4, users), draw.normal(0, 0.5, items)
    genre_names = [GENRES[each % len(GENRES)] for each in genre]
    names = [f"{word} {place}" for place, word in enumerate(genre_names)]
    table: dict[str, list[Any]] = {"user": [], "item": [], "rating": [], "time": []}
    for user in range(users):
        own = draw.choice(items, active[user], replace=False, p=chances[user])
        liked = 3.6 + user_bias[user] + item_bias[own] + 2 * (taste[user, genre[own]] - 0.3)
        rated = np.clip(np.round(liked + draw.normal(0, 0.9, len(own))), 1, 5)
        begin = draw.uniform(0, 1e6)
        table["user"] += [f"u{user}"] * len(own)
        table["item"] += [names[each] for each in own]
        table["rating"] += rated.tolist()
        table["time"] += (begin + np.sort(draw.uniform(0, 1e6, len(own)))).astype(int).tolist()
    genre_of = dict(zip(names, genre_names, strict=True))
    return Generated(table, genre_of, chances, [f"u{n}" for n in range(users)], names)


def train(run_dir: str, seed: int, epochs: int = 5) -> None:
    """Learn who likes what from interactions that are drawn, and recommend.

    Args:
        run_dir: where the runs go.
        seed: of the draw and of the networks.
        epochs: passes over the interactions.
    """
    from trainbus.storage.files import shown
    from trainbus_collab import CollabLearner, interactions
    from trainbus_learner import load

    made = generated(seed=seed)
    data = interactions(made.table, user="user", item="item", time="time", split="last")
    learner = CollabLearner(data, "factors", seed=seed, run_dir=run_dir)
    learner.fit_one_cycle(epochs)
    table = learner.baselines()
    print(table)
    print(learner.validate())
    popular, own = table["popular"].metrics["ndcg@10"], table[-1].metrics["ndcg@10"]
    print(f"nDCG@10 {own:.3f}, of what is popular {popular:.3f}")
    assert popular < own < 1, "what was learned has to be better than what is popular"
    run = learner.run
    assert run is not None and run.dir is not None
    exported = learner.export(run.dir / "model")
    print(f"recommended by {shown(exported)}, loaded again:")
    predictor: Any = load(exported)
    print(predictor.recommend("u7", top=5))
    print(predictor.recommend(history=made.items[:3], top=5))
    rated = interactions(made.table, user="user", item="item", rating="rating", time="time")
    ratings = CollabLearner(rated, seed=seed, run_dir=run_dir)
    ratings.fit_one_cycle(epochs)
    print(ratings.baselines())
