"""Tables of counts as models of language: interpolated Kneser-Ney, and how often tokens occur."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.baselines import Comparison, Row

Array = np.ndarray[Any, Any]


def compare(learner: Any, part: Any, names: Sequence[str] | None, rows: int) -> Comparison:
    """See `LanguageLearner.baselines`."""
    known: dict[str, Callable[[Array, Array, int], Array]] = {
        "unigram": partial(kneser_ney, order=1),
        "kneser-ney 5": partial(kneser_ney, order=5),
        "kneser-ney 6": partial(kneser_ney, order=6),
    }
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"baselines: there is no {name!r}{nearest(name, known)} There are "
                f"{', '.join(known)}"
            )
    if part not in ("valid", "test"):
        raise UsageError(f"baselines({part!r:.60}): give 'valid' or 'test'")
    data = learner.data
    train = np.asarray(data.items("train").tokens[:rows], np.int64)
    asked = np.asarray(data.items(part).tokens, np.int64)
    target, found = data.recipe.target, []
    for name in names or known:
        begun = time.perf_counter()
        nats = float(known[name](train, asked, data.recipe.tokens.size)[1:].mean())
        bits = nats / math.log(2)
        measures = {
            "loss": nats, "nats": nats, "bits_per_character": bits / target.characters,
            "bits_per_byte": bits / target.bytes, "perplexity": math.exp(nats),
        }  # fmt: skip
        found.append(Row(name, measures, time.perf_counter() - begun))
    return Comparison([*found, Row("this learner", learner.validate(part), learner.seconds)])


def kneser_ney(train: Array, asked: Array, size: int, order: int = 6) -> Array:
    """What each token of a text costs, in nats, by an interpolated Kneser-Ney model.

    One absolute discount for each order, n1 / (n1 + 2 n2) of the n-grams that occur once and twice
    (Ney et al., 1994); lower orders count in how many contexts an n-gram is (Kneser and Ney, 1995).

    Args:
        train: tokens, (T,) int64.
        asked: tokens, (S,) int64.
        size: numbers of tokens.
        order: of the longest n-grams.
    """
    probabilities = np.full(len(asked), 1.0 / size)
    for n in range(1, min(order, len(train)) + 1):
        tables = _Counts(train, n, n == order)
        probabilities = tables.interpolated(asked, probabilities)
    return -np.log(probabilities)


class _Counts:
    """How often n-grams of one length occur, or in how many contexts.

    Args:
        train: tokens.
        n: their length.
        highest: whether they are counted, or the different tokens in front of them.
    """

    def __init__(self, train: Array, n: int, highest: bool) -> None:
        self.n = n
        ends, heads = _hashes(train, n), _hashes(train, n - 1)
        if highest or len(train) <= n:
            heads = heads[: len(ends)]
        else:
            # The last n tokens of each different n + 1: those in front of them are different.
            _, first = np.unique(_hashes(train, n + 1), return_index=True)
            ends, heads = ends[first + 1], heads[first + 1]
        self.grams, self.counts = np.unique(ends, return_counts=True)
        self.heads, places = np.unique(heads, return_inverse=True)
        self.totals = np.bincount(places)
        once, twice = (self.counts == 1).sum(), (self.counts == 2).sum()
        self.discount = float(once / (once + 2 * twice)) if once and twice else 0.5
        _, first = np.unique(ends, return_index=True)
        self.kinds = np.bincount(places[first], minlength=len(self.heads))

    def interpolated(self, asked: Array, lower: Array) -> Array:
        """The probability of each token, given that of the order below."""
        made = lower.copy()
        if len(asked) < self.n:
            return made
        gram = _looked_up(self.grams, _hashes(asked, self.n))
        head = _looked_up(self.heads, _hashes(asked, self.n - 1)[: len(gram)])
        known = head >= 0
        count = np.where(gram >= 0, self.counts[gram], 0)
        total = np.where(known, self.totals[head], 1)
        kinds = np.where(known, self.kinds[head], 0)
        own = np.maximum(count - self.discount, 0) / total
        part = np.where(known, self.discount * kinds / total, 1.0)
        made[self.n - 1 :] = own + part * lower[self.n - 1 :]
        return made


def _looked_up(table: Array, values: Array) -> Array:
    """The place of each value in a sorted table; -1 where it is not."""
    places = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return np.where(table[places] == values, places, -1)


def _hashes(tokens: Array, n: int) -> Array:
    """A hash of 64 bits of each n tokens in a row; of none, 0 for each place and one behind."""
    count = len(tokens) - n + 1
    made = np.zeros(max(0, count), np.uint64)
    with np.errstate(over="ignore"):
        for place in range(n):
            part = tokens[place : place + len(made)].astype(np.uint64) + np.uint64(1)
            made = (made ^ part) * np.uint64(0x9E3779B97F4A7C15)
            made ^= made >> np.uint64(29)
    return made
