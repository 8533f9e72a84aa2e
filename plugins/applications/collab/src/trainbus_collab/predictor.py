"""What a model of interactions answers: ratings, and the best items of users, from all of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus.errors import nearest
from trainbus_collab.data import CollabRecipe, padded
from trainbus_collab.targets import without_seen
from trainbus_data.tables.columns import Reading
from trainbus_data.tables.reader import read_table
from trainbus_learner import Predictor

logger = logging.getLogger("trainbus")
#: Scores that are in memory at once, in numbers.
_AT_ONCE = 20_000_000
BATCH = 4096


class Recommendations(dict[str, Any]):
    """A table: columns user, item, score and cold, the best of each user first.

    It is a dict of columns, which every frame takes. `cold` says that the user was new, and had no
    history.
    """

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row as a dictionary."""
        for values in zip(*self.values(), strict=True):
            yield dict(zip(self, values, strict=True))

    def __repr__(self) -> str:
        lines = [f"{u!s:<16.16} {i!s:<24.24} {s:10.4g} {'cold' if c else ''}"
                 for u, i, s, c in zip(*self.values(), strict=True)]  # fmt: skip
        more = [f"... {len(lines):,} rows"] if len(lines) > 20 else []
        return "\n".join(each.rstrip() for each in [*lines[:20], *more])


class CollabPredictor(Predictor):
    """Looks ids up, asks a model, and says what it gives.

    Args:
        forward: gives ratings of (users, items), or scores of histories, in evaluation mode.
        recipe: of the interactions.
        about: what an export says of itself.
    """

    #: What `trainbus predict` gives the rows of files.
    takes_tables = True

    recipe: CollabRecipe

    def __init__(
        self, forward: Callable[..., Any], recipe: CollabRecipe, about: dict[str, Any] | None = None
    ) -> None:
        super().__init__(forward, recipe.encode_input, recipe.target, recipe, about)
        self._ask = forward
        self._noted: set[str] = set()

    def __repr__(self) -> str:
        return f"CollabPredictor({self.recipe!r})"

    # --- ratings ---------------------------------------------------------------------------------

    def predict(self, item: Any) -> Any:
        """The rating of one pair, (user, item) or a row; or of rankings the best items of a user.

        Returns:
            A dictionary with the rating and what of it is cold; or `Recommendations`.
        """
        if self.recipe.goal == "ranking":
            name = self.recipe.columns[0]
            return self.recommend(item[name] if isinstance(item, Mapping) else item)
        if isinstance(item, (tuple, list)) and len(item) == 2:
            item = dict(zip(self.recipe.columns, item, strict=False))
        return next(self.predictions([item]).rows())

    def predictions(self, items: Any, batch_size: int = BATCH) -> Recommendations:  # type: ignore[override]
        """Ratings of rows with users and items; or of rankings the ten best items of each user.

        Args:
            items: a frame, a path, a dict of columns, a list of dicts.
            batch_size: pairs that the model is asked about together.
        """
        user, item = self.recipe.columns[:2]
        table = read_table(items, like={user: Reading("text"), item: Reading("text")})
        names = [str(each) for each in table[user].texts()]
        if self.recipe.goal == "ranking":
            return self.recommend(list(dict.fromkeys(names)))
        wanted = [str(each) for each in table[item].texts()]
        users = torch.tensor([self.recipe.user_code(each) for each in names])
        codes = torch.tensor([self.recipe.item_code(each) for each in wanted])
        made = [
            self._ask(users[n : n + batch_size], codes[n : n + batch_size]).reshape(-1).cpu()
            for n in range(0, len(users), batch_size)
        ]
        if not made:
            raise UsageError("predictions: there is no row")
        cold = [
            " and ".join(w for w, c in (("user", u), ("item", i)) if not c)
            for u, i in zip(users.tolist(), codes.tolist(), strict=True)
        ]
        return Recommendations(
            {user: names, item: wanted, self.recipe.columns[2]: torch.cat(made).numpy(),
             "cold": cold}
        )  # fmt: skip

    # --- recommending ----------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        top: int = 10,
        *,
        history: Sequence[Any] | None = None,
        seen: bool = False,
        only: Iterable[Any] | Callable[[str], bool] | None = None,
        without: Iterable[Any] = (),
    ) -> Recommendations:
        """The best items of users, of all that they have not seen.

        Args:
            users: a user, or a list of them.
            top: items of each.
            history: items of somebody who is not known, in the order of time: nothing is trained.
            seen: also those that were seen.
            only: items that may be recommended: a list, or a function of an item.
            without: items that may not.

        Raises:
            UsageError: nothing can be recommended; says why.
        """
        check_whole(1, UsageError, "recommend", top=top)
        recipe = self.recipe
        top = self._at_most(top)
        names, codes, histories = self._who(users, history)
        allowed = self._allowed(only, without)
        found: dict[str, list[Any]] = {"user": [], "item": [], "score": [], "cold": []}
        step = max(1, _AT_ONCE // max(1, len(recipe.items)))
        for begin in range(0, len(names), step):
            rows = slice(begin, begin + step)
            scores = self._scores(codes[rows], histories[rows])
            if not seen:
                # All that was seen, of which a network may see the last alone.
                scores = without_seen(scores, padded(histories[rows], len(recipe.items)))
            scores = torch.where(allowed, scores, float("-inf"))
            best, places = scores.topk(min(top, scores.shape[1]), dim=1)
            for row, (values, items) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
                self._take(found, names[begin + row], values, items, histories[begin + row])
        return Recommendations(found)

    def _take(
        self, found: dict[str, list[Any]], name: str, values: list[float], items: list[int],
        history: Tensor,
    ) -> None:  # fmt: skip
        kept = [(v, i) for v, i in zip(values, items, strict=True) if v != float("-inf")]
        if not kept:
            self._note(f"user {name!r} has seen everything that may be recommended: seen=True "
                       "includes it")  # fmt: skip
        found["user"] += [name] * len(kept)
        found["item"] += [self.recipe.items[i] for _, i in kept]
        found["score"] += [v for v, _ in kept]
        found["cold"] += [not len(history)] * len(kept)

    def _at_most(self, top: int) -> int:
        count = len(self.recipe.items)
        if top > count:
            self._note(f"{top:,} items are asked for, {count:,} exist")
        return min(top, count)

    def _who(
        self, users: Any, history: Sequence[Any] | None
    ) -> tuple[list[str], list[int], list[Tensor]]:
        recipe = self.recipe
        if history is not None:
            if isinstance(history, (str, bytes)):
                raise UsageError(f"recommend(history={history!r:.40}): give a list of items")
            if recipe.goal == "ratings":
                raise UsageError(
                    "recommend(history=...): ratings are learned of users that are known; "
                    "goal='ranking' takes histories"
                )
            codes = [recipe.item_code(each) for each in history]
            new = [each for each, code in zip(history, codes, strict=True) if not code]
            if new:
                self._note(f"{', '.join(map(repr, new[:3]))}: not in training, left out of the "
                           "history")  # fmt: skip
            known = torch.tensor([code for code in codes if code], dtype=torch.int64)
            return ["" if users is None else str(users)], [0], [known]
        if users is None:
            raise UsageError("recommend: give a user, a list of users, or history=[...]")
        if isinstance(users, (str, int, float)) or not hasattr(users, "__iter__"):
            users = [users]
        names = [str(each.item() if hasattr(each, "item") else each).strip() for each in users]
        codes = [recipe.user_code(each) for each in names]
        for name, code in zip(names, codes, strict=True):
            if not code:
                hint = ", or give history=[...]" if recipe.goal == "ranking" else ""
                self._note(f"user {name!r} is new: popular items{hint}")
                break
        return names, codes, [recipe.history(code) for code in codes]

    def _allowed(self, only: Any, without: Iterable[Any]) -> Tensor:
        recipe = self.recipe
        allowed = torch.ones(len(recipe.items), dtype=torch.bool)
        if callable(only):
            allowed = torch.tensor([bool(only(each)) for each in recipe.items])
        elif only is not None:
            allowed = torch.zeros(len(recipe.items), dtype=torch.bool)
            allowed[[c - 1 for c in map(recipe.item_code, _several("only", only)) if c]] = True
        codes = [c - 1 for c in map(recipe.item_code, _several("without", without)) if c]
        if codes:
            allowed[codes] = False
        if not allowed.any():
            raise UsageError("recommend: only= and without= leave no item")
        return allowed

    def _scores(self, codes: list[int], histories: list[Tensor]) -> Tensor:
        if self.recipe.goal == "ranking":
            return self._ask(padded(histories)).float().cpu()  # type: ignore[no-any-return]
        items = torch.arange(1, len(self.recipe.items) + 1)
        made = [self._ask(torch.full_like(items, code), items).reshape(-1).cpu() for code in codes]
        return torch.stack(made)

    def explain(self, user: Any, item: Any, top: int = 5) -> list[tuple[str, float]]:
        """Which of the user's items made it: what each adds to the score, the most first.

        The score is asked for without each of them in turn.
        """
        if self.recipe.goal == "ratings":
            raise UsageError("explain: is for goal='ranking', where a user is a history")
        code = self._item(item)
        history = self.recipe.history(self.recipe.user_code(user))
        if not len(history):
            raise UsageError(f"explain: user {user!r} has no history")
        ways = [history, *(torch.cat([history[:n], history[n + 1 :]]) for n in range(len(history)))]
        scores = self._ask(padded(ways))[:, code - 1].double().cpu()
        gains = scores[0] - scores[1:]
        order = gains.argsort(descending=True)[:top].tolist()
        return [(self.recipe.items[int(history[n]) - 1], float(gains[n])) for n in order]

    def _item(self, item: Any) -> int:
        code = self.recipe.item_code(item)
        if not code:
            raise UsageError(
                f"item {str(item)!r} is new{nearest(str(item), self.recipe.items[:100_000])}"
            )
        return code

    def similar(self, item: Any, top: int = 10) -> list[tuple[str, float]]:
        """The items that whoever has seen this one alone is given, the best first.

        Raises:
            UsageError: training did not have it.
        """
        if self.recipe.goal == "ratings":
            raise UsageError(
                "similar: is for goal='ranking', where items are known by who saw them"
            )
        code = self._item(item)
        found = self.recommend(history=[self.recipe.items[code - 1]], top=top)
        return list(zip(found["item"], found["score"], strict=True))

    def _note(self, note: str) -> None:
        """Say it once."""
        if note not in self._noted:
            self._noted.add(note)
            logger.warning("%s", note)


def _several(name: str, items: Any) -> list[Any]:
    if isinstance(items, (str, bytes)):
        raise UsageError(f"recommend({name}={items!r:.40}): give a list of items")
    return list(items)


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> CollabPredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    return CollabPredictor(run, CollabRecipe.from_state(state, tensors), about)
