"""CollabLearner: a learner of ratings, or of which items come next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from trainbus import UsageError
from trainbus_collab import baselines, solving
from trainbus_collab.measuring import Measured, ranked
from trainbus_collab.models import RANKING_ARCHS, RATING_ARCHS, RankingModel, RatingModel
from trainbus_collab.predictor import BATCH, CollabPredictor, Recommendations
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.baselines import Comparison
from trainbus_learner.evaluation import forward

_RATES = {"biases": 1e-3, "factors": 5e-3, "mlp": 2e-3, "ease": 2e-2, "als": 2e-3, "sasrec": 1e-3}


class CollabLearner(ArchLearner):
    """Learns what users give items, or which items they take next.

    What can be solved is solved when it is made: biases of ratings, the matrix of EASE, the vectors
    of iALS. Training adds to it.

    Args:
        data: what `interactions(...)` made.
        goal: "ratings" or "ranking"; by default "ratings" where there are some that differ. Who is
            good at ratings is seldom good at rankings.
        arch: of ratings "factors", "biases" or "mlp"; of rankings "ease", "als", "factors" or
            "sasrec", by default "ease" of up to 15,000 items, else "factors".
        network: options of the network: {"width": 64, "dropout": 0.2}, ...; of "ease" also
            "penalty", by default found in training.
        batch_size: rows in a batch of training.
        lr: the learning rate; by default one for each network.
        options: of `Learner`: optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module | None = None,
        *,
        goal: str | None = None,
        network: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(data, "for_goal"):
            raise UsageError(
                f"CollabLearner(data={type(data).__name__}): give what interactions(...) makes: "
                "interactions('ratings.csv', user='user', item='film')"
            )
        self._goal = goal or data.usual_goal
        loaders = data.for_goal(self._goal, batch_size)
        items = len(data.events["train"].item_names)
        if arch is None:
            usual = "ease" if items <= solving.MOST else "factors"
            arch = "factors" if self._goal == "ratings" else usual
        name = arch if isinstance(arch, str) else type(arch).__name__
        described: dict[str, Any] | None = None
        said: dict[str, str] = {}
        if isinstance(arch, nn.Module):
            model: nn.Module = arch
        else:
            model, said = _made(data, self._goal, arch, dict(network or {}), options.get("seed"))
            described = {
                "builder": "trainbus_collab.models:rebuild",
                "options": dict(model.description),  # type: ignore[arg-type]
            }
        known = {**RATING_ARCHS} if self._goal == "ratings" else {**RANKING_ARCHS}
        about = {"network": known.get(name, f"{name} (given)"), "goal": self._goal, **said}
        super().__init__(
            loaders, model, arch=name, about=about, usual=_RATES.get(name), lr=lr,
            model_description=described, **options,
        )  # fmt: skip

    @property
    def goal(self) -> str:
        """ "ratings" or "ranking"."""
        return self._goal

    @property
    def whole(self) -> Any:
        """The interactions, of which the data of a learner are loaders."""
        return self.data.whole

    def validate(self, loader: Any = "valid") -> dict[str, float]:
        """Errors of validation: {"loss", "rmse", "mae"} of ratings; of rankings, over all items
        that a user has not seen: {"recall@5", "recall@10", "ndcg@10", "mrr", "map@10", "novelty",
        "coverage"}. How it was measured is printed with them.
        """
        if self._goal == "ratings" or loader != "valid":
            found = super().validate(loader)
            users, items = self.whole.cold()
            protocol = (
                f"{self.whole.how}; {users:.1%} have a new user, {items:.1%} a new item, of which "
                "the mean is known"
            )
            return Measured(found, protocol) if self._goal == "ratings" else found
        return ranked(self.whole, partial(forward, self))

    def predictor(self) -> CollabPredictor:
        """What `recommend` and `predict` ask; it goes on with the present weights."""
        return CollabPredictor(partial(forward, self), self.source.recipe)

    def recommend(self, users: Any = None, top: int = 10, **options: Any) -> Recommendations:
        """The best items of users that they have not seen: see `CollabPredictor.recommend`."""
        return self.predictor().recommend(users, top, **options)

    def similar(self, item: Any, top: int = 10) -> list[tuple[str, float]]:
        """What is given to whoever has seen this item alone: see `CollabPredictor.similar`."""
        return self.predictor().similar(item, top)

    def explain(self, user: Any, item: Any, top: int = 5) -> list[tuple[str, float]]:
        """Which of the user's items made it: see `CollabPredictor.explain`."""
        return self.predictor().explain(user, item, top)

    def predict(self, item: Any) -> Any:
        """The rating of (user, item), or the best items of a user."""
        return self.predictor().predict(item)

    def predictions(self, items: Any, batch_size: int = BATCH) -> Recommendations:  # type: ignore[override]
        """Ratings of rows, or the best items of their users."""
        return self.predictor().predictions(items, batch_size)

    def baselines(  # type: ignore[override]
        self, loader: Any = "valid", *, names: Sequence[str] | None = None
    ) -> Comparison:
        """The classical answers beside this one: same split, same measures, with times.

        Of ratings "mean", "item mean" and "biases"; of rankings "popular", "popular of late",
        "item knn" and "ease".
        """
        if loader != "valid":
            raise UsageError("baselines: there is a validation part, 'valid'")
        return baselines.compare(self, names)

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, with the network."""
        return {"network": self.choices["network"], **super()._header(schedule)}


def _made(
    data: Any, goal: str, arch: str, network: dict[str, Any], seed: Any
) -> tuple[Any, dict[str, str]]:
    """The network, with what is solved in it, and what is said of that."""
    train = data.events["train"]
    shapes = len(train.user_names), len(train.item_names)
    penalty = network.pop("penalty", None)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            if goal == "ratings":
                span = [float(train.ratings.min()), float(train.ratings.max())]
                model: Any = RatingModel(*shapes, span, arch, **network)
            else:
                if arch in ("factors", "sasrec") and shapes[1] > solving.MOST:
                    network.setdefault("beside", False)
                if arch == "ease":
                    solving.check_size(shapes[1])
                model = RankingModel(shapes[1], arch, **network)
        except TypeError as error:
            raise UsageError(f"network={network!r:.80} of {arch!r}: {error}") from None
    if goal == "ratings":
        model.take(*solving.biases(train.users, train.items, train.ratings, shapes))
        return model, {"begins as": "the mean and biases, solved"}
    counts = torch.bincount(data.seen - 1, minlength=shapes[1]).float()
    model.popular.copy_((counts + 0.5).log() - (counts + 0.5).log().mean())
    said = {}
    if len(model.matrix):
        pairs = solving.counted(data.starts, data.seen, shapes[1])
        if penalty is None:
            penalty = solving.ease_penalty(data.starts, data.seen, shapes[1], pairs)
        model.matrix.copy_(solving.ease(pairs, penalty))
        said["begins as"] = f"EASE, penalty {penalty:g}"
    if arch == "als":
        vectors = solving.implicit_als(
            data.starts, data.seen, shapes[1], model.item.embedding_dim, seed=int(seed or 0)
        )
        with torch.no_grad():
            model.item.weight[1:] = vectors
        said["begins as"] = "vectors of iALS, solved"
    return model, said
