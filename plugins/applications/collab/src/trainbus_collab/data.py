"""CollabData: who did what, by code, with the histories of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainbus_collab.targets import Codes, HistoryCodes, ItemCode, NextItem, Rating
from trainbus_data import Block, DataError, MemoryLoader
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_data.recipe import Recipe

Array = np.ndarray[Any, Any]
#: Items of a history that a network sees, at most: the last ones.
HISTORY = 100
GOALS = ("ratings", "ranking")


class Events(NamedTuple):
    """Rows by code; 0 is who or what training did not know.

    Attributes:
        users, items: codes.
        ratings: float64, or None.
        user_names, item_names: of training the names by code (from 1 on); else of each row.
    """

    users: Array
    items: Array
    ratings: Array | None
    user_names: Array
    item_names: Array


class CollabRecipe(Recipe):
    """What a model of interactions knows of users and items.

    Args:
        goal: "ratings" or "ranking".
        columns: of user, item, rating and time.
        users, items: names, in the order of their codes, from 1 on.
        starts, seen: what users have seen: that of user u is seen[starts[u - 1]:starts[u]].
        span: the least and the greatest rating of training.
    """

    #: What an export names for `trainbus_learner.load`.
    reader = "collab"

    def __init__(
        self, goal: str, columns: Sequence[str], users: Sequence[str], items: Sequence[str],
        starts: Tensor, seen: Tensor, span: Sequence[float] = (0.0, 1.0),
    ) -> None:  # fmt: skip
        blocks: list[Block]
        if goal == "ratings":
            blocks, inputs = [Codes("user"), Codes("item"), Rating(span)], 2
        else:
            blocks, inputs = [HistoryCodes(), NextItem(len(items)), ItemCode()], 1
        super().__init__(blocks, inputs)
        self.goal, self.columns, self.span = goal, tuple(columns), tuple(span)
        self.users, self.items = list(users), list(items)
        self.starts, self.seen = starts, seen
        self._user_codes = {name: code for code, name in enumerate(self.users, 1)}
        self._item_codes = {name: code for code, name in enumerate(self.items, 1)}

    def user_code(self, user: Any) -> int:
        """Of a user by name, as a text or a number; 0 of a new one."""
        return self._user_codes.get(str(user).strip(), 0)

    def item_code(self, item: Any) -> int:
        """Of an item by name; 0 of a new one."""
        return self._item_codes.get(str(item).strip(), 0)

    def known(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Users and items by name."""
        return self._user_codes, self._item_codes

    def history(self, user: int) -> Tensor:
        """The codes of what a user has seen, in the order of time."""
        if not user:
            return torch.zeros(0, dtype=torch.int64)
        return self.seen[int(self.starts[user - 1]) : int(self.starts[user])]

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "goal": self.goal, "columns": list(self.columns), "users": self.users,
            "items": self.items, "span": list(self.span),
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """What users have seen."""
        return {"starts": self.starts.clone(), "seen": self.seen.clone()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Any = ()) -> CollabRecipe:
        """The recipe that `state` and `tensors` described."""
        try:
            given = dict(tensors)
            return cls(
                state["goal"], state["columns"], state["users"], state["items"], given["starts"],
                given["seen"], state["span"],
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is no recipe of interactions: {error}") from error

    def __repr__(self) -> str:
        return f"CollabRecipe({self.goal}: {len(self.users):,} users, {len(self.items):,} items)"


def padded(histories: Sequence[Tensor], most: int = HISTORY) -> Tensor:
    """N x the longest (at least 1, at most `most`): the last items, 0 in front of shorter ones."""
    width = max(1, min(most, max((len(each) for each in histories), default=0)))
    made = torch.zeros(len(histories), width, dtype=torch.int64)
    for row, each in enumerate(histories):
        own = each[-width:]
        if len(own):
            made[row, -len(own) :] = own
    return made


class Turns(MemoryLoader):
    """Batches (history, next item, history): each item of training once, from all the others.

    Args:
        starts, seen: of `CollabRecipe`.
        kinds: of the parts.
        options: of `MemoryLoader`.
    """

    def __init__(
        self, starts: Tensor, seen: Tensor, kinds: tuple[str, ...], **options: Any
    ) -> None:
        counts = starts.diff()
        owners = torch.arange(len(counts)).repeat_interleave(counts)
        rows = torch.arange(len(seen))[(counts > 1)[owners]]
        super().__init__([rows], kinds, **options)
        self._starts, self._seen, self._owners = starts, seen, owners
        self.about = ""

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """The parts of these turns."""
        places = self.dataset.parts[0][rows]
        owners = self._owners[places]
        starts, ends = self._starts[owners], self._starts[owners + 1]
        width = max(1, min(HISTORY + 1, int((ends - starts).max())))
        steps = ends[:, None] - width + torch.arange(width)
        there = (steps >= starts[:, None]) & (steps != places[:, None])
        history = torch.where(there, self._seen[steps.clamp(min=0)], 0)
        return [history, self._seen[places], history]

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self.one_by_one(skip)


class CollabData:
    """Interactions in two parts: `interactions` makes it, and a learner makes loaders of it.

    Args:
        events: of "train" and "valid".
        columns: their names.
        how: validation was chosen.
        notes: what was said.
        given: whether validation is a second source.
        seed: of what is drawn.
        name: in the names of runs.
    """

    def __init__(
        self, events: dict[str, Events], columns: Sequence[str], how: str, notes: Sequence[str],
        given: bool = False, seed: int = 0, name: str = "",
    ) -> None:  # fmt: skip
        self.events, self.columns, self.how, self.notes = events, tuple(columns), how, list(notes)
        self.given, self.seed, self.name = given, seed, name
        train = events["train"]
        order = np.argsort(train.users, kind="stable")
        counts = np.bincount(train.users, minlength=len(train.user_names) + 1)[1:]
        self.starts = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))
        self.seen = torch.from_numpy(train.items[order].astype(np.int64))

    @property
    def usual_goal(self) -> str:
        """ "ratings" where there are some that differ, else "ranking"."""
        ratings = self.events["train"].ratings
        return "ratings" if ratings is not None and np.ptp(ratings) > 0 else "ranking"

    def cold(self) -> tuple[float, float]:
        """The part of validation with a user, and with an item, that training does not know."""
        valid = self.events["valid"]
        if self.given:  # whose histories are given with them
            return 0.0, float((valid.items == 0).mean())
        return float((valid.users == 0).mean()), float((valid.items == 0).mean())

    def for_goal(self, goal: str, batch_size: int | None = None) -> CollabLoaders:
        """Loaders for ratings or for rankings."""
        if goal not in GOALS:
            raise DataError(f"goal={goal!r}: 'ratings' or 'ranking'")
        ratings = self.events["train"].ratings
        if goal == "ratings":
            if ratings is None:
                raise DataError("goal='ratings' needs rating=, the column of what was given")
            if np.ptp(ratings) == 0:
                raise DataError(
                    f"all ratings are {ratings[0]:g}: this is implicit feedback: goal='ranking'"
                )
        span = (0.0, 1.0) if ratings is None else (float(ratings.min()), float(ratings.max()))
        train = self.events["train"]
        recipe = CollabRecipe(
            goal, self.columns, train.user_names.tolist(), train.item_names.tolist(), self.starts,
            self.seen, span,
        )  # fmt: skip
        return CollabLoaders(self, recipe, batch_size)

    def targets(self) -> tuple[list[Tensor], list[Tensor], int]:
        """Histories and what is to be found of each user of validation, and how many had nothing
        to find (all of it new).
        """
        valid = self.events["valid"]
        histories, wanted, without = [], [], 0
        draw = np.random.default_rng(self.seed)
        names, which = np.unique(valid.user_names, return_inverse=True)
        order = np.argsort(which, kind="stable")
        groups = np.split(order, np.cumsum(np.bincount(which, minlength=len(names)))[:-1])
        for rows in groups:
            items = valid.items[rows]
            items = items[items > 0]
            if self.given:
                if len(rows) < 2:
                    continue
                hidden = int(draw.integers(len(rows)))
                target = valid.items[rows[hidden]]
                own = np.delete(valid.items[rows], hidden)
                items, history = np.array([target]), torch.from_numpy(own[own > 0])
            else:
                user = int(valid.users[rows[0]])
                history = self.seen[int(self.starts[user - 1]) : int(self.starts[user])]
                history = history if user else history[:0]
            if not (items > 0).any():
                without += 1
            histories.append(history)
            wanted.append(torch.from_numpy(items.astype(np.int64)))
        return histories, wanted, without

    def summary(self) -> str:
        """Users, items, parts, and how much of validation is new."""
        train, valid = self.events["train"], self.events["valid"]
        users, items = self.cold()
        lines = [
            f"users     {len(train.user_names):,}",
            f"items     {len(train.item_names):,}",
            f"train     {len(train.users):,} interactions",
            f"valid     {len(valid.users):,} interactions: {self.how}",
            f"cold      {users:.1%} of validation has a new user, {items:.1%} a new item",
        ]
        if train.ratings is not None:
            lines.append(
                f"ratings   {train.ratings.min():g} to {train.ratings.max():g}, "
                f"{train.ratings.mean():.3g} on average"
            )
        return "\n".join([*lines, *(f"note      {note}" for note in self.notes)])

    def __repr__(self) -> str:
        train = self.events["train"]
        return (
            f"CollabData({len(train.user_names):,} users, {len(train.item_names):,} items, train "
            f"{len(train.users):,}, valid {len(self.events['valid'].users):,})"
        )


class CollabLoaders(Container):
    """Loaders of interactions for a goal."""

    recipe: CollabRecipe

    def __init__(self, whole: CollabData, recipe: CollabRecipe, batch_size: int | None) -> None:
        self.whole = whole
        train, valid = whole.events["train"], whole.events["valid"]
        if recipe.goal == "ratings":
            stores = [_rated(each) for each in (train, valid)]
            usual = min(2048, max(64, 1 << max(0, (len(train.users) // 40).bit_length() - 1)))
        else:
            rows = _asked(whole)
            stores, usual = [Tensors([whole.seen, whole.seen]), rows], 512
        super().__init__(
            recipe, stores[0], stores[1] if len(stores[1]) else None,
            batch_size=batch_size or usual, seed=whole.seed, name=whole.name,
        )  # fmt: skip
        self.train.about = whole.summary()  # type: ignore[union-attr]

    def _loader(
        self, store: Any, stage: str, drop_last: bool = False, weights: Tensor | None = None
    ) -> Any:
        if self.recipe.goal == "ranking" and stage == "train":
            return Turns(
                self.recipe.starts, self.recipe.seen, self.kinds, batch_size=self.batch_size,
                shuffle=True, drop_last=drop_last, seed=self.whole.seed, blocks=self.blocks,
            )  # fmt: skip
        return super()._loader(store, stage, drop_last, weights)

    def _again(self, **changed: Any) -> Any:
        return CollabLoaders(self.whole, self.recipe, changed.get("batch_size", self.batch_size))

    def summary(self) -> str:
        """That of the interactions."""
        return self.whole.summary()


def _rated(events: Events) -> Tensors:
    assert events.ratings is not None
    return Tensors(
        [torch.from_numpy(events.users.astype(np.int64)),
         torch.from_numpy(events.items.astype(np.int64)),
         torch.from_numpy(events.ratings.astype(np.float32))]
    )  # fmt: skip


def _asked(whole: CollabData) -> Tensors:
    """For each known item that validation has: the history before it, itself, the history."""
    histories, wanted, _ = whole.targets()
    rows = [(n, item) for n, items in enumerate(wanted) for item in items.tolist() if item]
    short = padded(histories)
    places = torch.tensor([n for n, _ in rows], dtype=torch.int64)
    history = short[places] if rows else short[:0]
    return Tensors([history, torch.tensor([i for _, i in rows], dtype=torch.int64), history])
