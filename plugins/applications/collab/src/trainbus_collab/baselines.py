"""The classical answers for interactions: what is popular, nearest items, EASE; biases."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_collab.measuring import ranked
from trainbus_collab.solving import (
    biases,
    check_size,
    counted,
    ease,
    ease_penalty,
    nearest_items,
)
from trainbus_learner.baselines import Comparison, Row
from trainbus_learner.evaluation import measured, validation_of


def compare(learner: Any, names: Sequence[str] | None) -> Comparison:
    """See `CollabLearner.baselines`."""
    ratings = learner.goal == "ratings"
    known: dict[str, Callable[[Any], Any]] = (
        {"mean": _mean, "item mean": _item_mean, "biases": _biases}
        if ratings
        else {"popular": _popular, "popular of late": _of_late, "item knn": _knn, "ease": _ease}
    )
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"baselines: there is no {name!r}{nearest(name, known)} There are "
                f"{', '.join(known)}"
            )
    data, found = learner.whole, []
    for name in names or known:
        begun = time.perf_counter()
        try:
            rule = known[name](data)
        except UsageError as error:
            found.append(Row(name, {}, 0.0, str(error)))
            continue
        if ratings:
            loader = validation_of(learner, "valid", "baselines")
            values: Any = measured(learner, loader, lambda inputs, rule=rule: rule(*inputs))
        else:
            values = ranked(data, rule)
        found.append(Row(name, dict(values), time.perf_counter() - begun))
    return Comparison([*found, Row("this learner", dict(learner.validate()), learner.seconds)])


def _mean(data: Any) -> Any:
    mean = float(data.events["train"].ratings.mean())
    return lambda users, items: torch.full((len(users), 1), mean)


def _item_mean(data: Any) -> Any:
    train = data.events["train"]
    mean = train.ratings.mean()
    counts = np.bincount(train.items, minlength=len(train.item_names) + 1)
    sums = np.bincount(train.items, train.ratings - mean, len(counts))
    of_item = torch.from_numpy(mean + sums / (counts + 5.0)).float()
    return lambda users, items: of_item[items][:, None]


def _biases(data: Any) -> Any:
    train = data.events["train"]
    mean, users, items = biases(
        train.users, train.items, train.ratings, (len(train.user_names), len(train.item_names))
    )
    of_user, of_item = torch.from_numpy(users).float(), torch.from_numpy(items).float()
    low, high = float(train.ratings.min()), float(train.ratings.max())
    return lambda u, i: (mean + of_user[u] + of_item[i])[:, None].clamp(low, high)


def _counts(data: Any, items: Any) -> Tensor:
    size = len(data.events["train"].item_names)
    return torch.bincount(torch.as_tensor(items).long() - 1, minlength=size).float()


def _popular(data: Any) -> Any:
    counts = _counts(data, data.events["train"].items)
    return lambda history: counts.expand(len(history), -1)


def _of_late(data: Any) -> Any:
    """Of the last tenth of training, where rows are in the order of time."""
    if not data.columns[3]:
        raise UsageError("what is popular of late needs time=")
    items = data.events["train"].items
    counts = _counts(data, items[-max(1, len(items) // 10) :])
    return lambda history: counts.expand(len(history), -1)


def _by_matrix(data: Any, matrix: Tensor) -> Any:
    size = len(matrix)
    popular = _counts(data, data.events["train"].items)
    popular = popular / popular.max() * 1e-6  # of those with nothing else

    def rule(history: Tensor) -> Tensor:
        wide = torch.zeros(len(history), size + 1).scatter(1, history, 1.0)[:, 1:]
        return wide @ matrix + popular

    return rule


def _pairs(data: Any) -> Tensor:
    items = len(data.events["train"].item_names)
    check_size(items)
    return counted(data.starts, data.seen, items)


def _knn(data: Any) -> Any:
    return _by_matrix(data, nearest_items(_pairs(data)))


def _ease(data: Any) -> Any:
    pairs = _pairs(data)
    penalty = ease_penalty(data.starts, data.seen, len(pairs), pairs)
    return _by_matrix(data, ease(pairs, penalty))
