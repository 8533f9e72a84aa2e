"""N-grams of words and of characters, as numbers: hashed, and those of training kept."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus_data import DataError

Array = np.ndarray[Any, Any]
#: Signs that are hashed together; a longer run of texts is taken in blocks.
_BLOCK = 4_000_000
#: An odd number, so that it has an inverse modulo 2^64.
_BASE = 0x9E3779B97F4A7C15


class NGrams:
    """A bag of n-grams: which of those that training had are in a text, each once.

    Texts are taken in lower case. A word is a run of letters, digits and marks, or any other sign
    alone. N-grams of characters lie within a word, with a blank at either end. What is kept of an
    n-gram is a hash of 64 bits, so that two of them are one only by chance (below one in 10^9 for
    100,000 of them); 0 stands for padding.

    Args:
        words: up to so many words in a row.
        characters: from so many to so many characters in a row; None for none.
        at_least: an n-gram is kept that so many texts of training have.
        most: at most so many are kept, the most frequent ones.
    """

    kind = "ngrams"

    def __init__(
        self,
        words: int = 2,
        characters: tuple[int, int] | None = (2, 5),
        at_least: int = 1,
        most: int = 1_000_000,
    ) -> None:
        if words < 0 or at_least < 1 or most < 1:
            raise DataError(f"NGrams(words={words}, at_least={at_least}, most={most}): too small")
        if characters is not None and not 1 <= characters[0] <= characters[1]:
            raise DataError(f"NGrams(characters={characters}): give (from, to), from 1 on")
        if not words and characters is None:
            raise DataError("NGrams(words=0, characters=None): there is nothing to count")
        self.words, self.characters = words, characters and (int(characters[0]), int(characters[1]))
        self.at_least, self.most = at_least, most
        #: The hashes that are kept, in order, and for each its number, from 1 on.
        self.hashes = np.zeros(0, np.uint64)
        self.numbers = np.zeros(0, np.int64)
        #: By number, in how many of `texts` it is; the first `split` numbers are n-grams of words.
        self.counts = np.zeros(0, np.int64)
        self.split = 0
        self.texts = 0

    @property
    def size(self) -> int:
        """Numbers that there are, 0 included."""
        return len(self.hashes) + 1

    def fit(self, texts: Sequence[str]) -> NGrams:
        """Keep the n-grams of these texts, each often enough."""
        kept: list[tuple[Array, Array]] = []
        for family, (rows, hashes) in enumerate(_hashes(texts, self.words, self.characters)):
            found = _once(hashes)
            # A number for each pair of a text and an n-gram: several times in a text is once.
            pairs = _once(rows * max(1, len(found)) + np.searchsorted(found, hashes))
            counts = np.bincount(pairs % max(1, len(found)), minlength=len(found))
            # What a single text has would be learned by heart: it is left out.
            often = counts >= self.at_least
            found, counts = found[often], counts[often]
            if len(found) > self.most // 2:
                best = np.sort(np.argsort(-counts, kind="stable")[: self.most // 2])
                found, counts = found[best], counts[best]
            kept.append((found, counts))
            if family == 0:
                self.split = len(found)
        every, counts = (np.concatenate(parts) for parts in zip(*kept, strict=True))
        order = np.argsort(every, kind="stable")
        self.hashes, self.numbers = every[order], order + 1
        self.counts, self.texts = counts, len(texts)
        return self

    def encode_all(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The numbers of all texts, one text after the other (T,) int32, and how many each has."""
        keys = []
        for rows, hashes in _hashes(texts, self.words, self.characters):
            place = np.searchsorted(self.hashes, hashes)
            place[place == len(self.hashes)] = 0
            known = self.hashes[place] == hashes if len(self.hashes) else place < 0
            keys.append(rows[known] * self.size + self.numbers[place[known]])
        pairs = _once(np.concatenate(keys))
        lengths = np.bincount(pairs // self.size, minlength=len(texts)).astype(np.int64)
        return (pairs % self.size).astype(np.int32), lengths

    def weights(self) -> Array:
        """What each number counts: the logarithm of how rare it is (idf, smoothed), float32."""
        idf = np.log((1 + self.texts) / (1 + self.counts)) + 1
        return np.concatenate([[0.0], idf]).astype(np.float32)

    @property
    def hash(self) -> str:
        """Of all that it is: others with this hash give the same numbers."""
        about = repr((self.words, self.characters)).encode()
        return hashlib.sha256(about + self.hashes.tobytes() + self.numbers.tobytes()).hexdigest()

    # --- to keep ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON values; with `tensors`, enough to make it again."""
        return {
            "kind": self.kind, "words": self.words, "characters": self.characters,
            "at_least": self.at_least, "most": self.most, "split": self.split, "texts": self.texts,
            "hash": self.hash,
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """The hashes, with their numbers and counts."""
        return {
            "hashes": torch.from_numpy(self.hashes.view(np.int64)),
            "numbers": torch.from_numpy(self.numbers),
            "counts": torch.from_numpy(self.counts),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> NGrams:
        """What `state` and `tensors` described."""
        characters = state["characters"]
        made = cls(
            state["words"], None if characters is None else tuple(characters),
            state["at_least"], state["most"],
        )  # fmt: skip
        made.hashes = tensors["hashes"].numpy().view(np.uint64)
        made.numbers, made.counts = tensors["numbers"].numpy(), tensors["counts"].numpy()
        made.split, made.texts = state["split"], state["texts"]
        return made

    def __repr__(self) -> str:
        parts = [f"1 to {self.words} words"] if self.words else []
        if self.characters is not None:
            parts.append("{} to {} characters".format(*self.characters))
        return f"n-grams of {' and of '.join(parts)}, {len(self.hashes):,} of them"


# --- hashing -------------------------------------------------------------------------------------


def _hashes(
    texts: Sequence[str], words: int, characters: tuple[int, int] | None
) -> list[tuple[Array, Array]]:
    """Of n-grams of words, and of those of characters: the text of each, and its hash."""
    found: list[list[tuple[Array, Array]]] = [[], []]
    start = 0
    while start < len(texts) or not found[0]:
        stop, signs = start, 0
        while stop < len(texts) and (stop == start or signs + len(texts[stop]) < _BLOCK):
            signs += len(texts[stop])
            stop += 1
        made = _hashed(texts[start:stop], words, characters)
        for parts, (rows, hashes) in zip(found, made, strict=True):
            parts.append((rows + start, hashes))
        start = max(stop, start + 1)
    return [(np.concatenate([r for r, _ in p]), np.concatenate([h for _, h in p])) for p in found]


def _hashed(
    texts: Sequence[str], words: int, characters: tuple[int, int] | None
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    signs, rows = _signs(texts)
    begins, ends, row_of_word = _words(signs, rows)
    # A blank in front of each word and behind it, so that its ends are seen.
    lengths = ends - begins
    padded = np.full(int(lengths.sum()) + 2 * len(begins), ord(" "), np.int64)
    own_begin = np.cumsum(lengths) - lengths + np.arange(len(begins)) * 2 + 1
    source = _ranges(begins, lengths)
    padded[source + np.repeat(own_begin - begins, lengths)] = signs[source]
    hash_of = _hasher(*_sums(padded))
    of_words, word_rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    single = hash_of(own_begin, lengths, 1)
    last = single
    for n in range(1, words + 1):
        if n > 1:
            last = _mixed(last[:-1] * np.uint64(31) + single[n - 1 :])
        same = row_of_word[: len(last)] == row_of_word[n - 1 :]
        of_words.append(last[same])
        word_rows.append(row_of_word[: len(last)][same])
    of_characters, rows_of = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for n in range(characters[0], characters[1] + 1) if characters is not None else ():
        whole = lengths + 2
        # What is shorter than the shortest is one n-gram by itself.
        many = np.where(whole >= n, whole - n + 1, n == characters[0])
        of_characters.append(
            hash_of(_ranges(own_begin - 1, many), np.repeat(np.minimum(whole, n), many), 2)
        )
        rows_of.append(np.repeat(row_of_word, many))
    return (
        (np.concatenate(word_rows), np.concatenate(of_words)),
        (np.concatenate(rows_of), np.concatenate(of_characters)),
    )


def _once(values: Array) -> Array:
    """Sorted, each once: faster than numpy's own by a sort of whole numbers."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def _signs(texts: Sequence[str]) -> tuple[Array, Array]:
    """The code points of all texts in lower case, and which text each is of."""
    lowered = [text.lower() for text in texts]
    lengths = np.fromiter(map(len, lowered), np.int64, len(lowered))
    raw = "".join(lowered).encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, np.uint32).astype(np.int64), np.repeat(np.arange(len(texts)), lengths)


def _words(signs: Array, rows: Array) -> tuple[Array, Array, Array]:
    """Where words begin and end, and which text each is of."""
    different, kind_of = np.unique(signs, return_inverse=True)
    kinds = np.array([_kind(int(each)) for each in different], np.int64)[kind_of]
    if not len(signs):
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    changes = (kinds[1:] != kinds[:-1]) | (rows[1:] != rows[:-1]) | (kinds[1:] == 2)
    begins = np.concatenate([[0], np.flatnonzero(changes) + 1])
    ends = np.concatenate([begins[1:], [len(signs)]])
    there = kinds[begins] > 0
    return begins[there], ends[there], rows[begins[there]]


def _kind(point: int) -> int:
    """1 for a sign that words are made of, 0 for a blank, 2 for any other."""
    category = unicodedata.category(chr(point))
    if category[0] in "LNM" or point == ord("_"):
        return 1
    return 0 if category[0] in "ZC" or chr(point).isspace() else 2


def _ranges(begins: Array, lengths: Array) -> Array:
    """begin, begin + 1, ... for each, one behind the other."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(begins - before, lengths)


def _sums(signs: Array) -> tuple[Array, Array]:
    """Sums of signs times powers of a base, modulo 2^64, and inverse powers (Karp, Rabin, 1987)."""
    with np.errstate(over="ignore"):
        powers = np.ones(len(signs) + 1, np.uint64)
        powers[1:] = _BASE
        powers = np.cumprod(powers, dtype=np.uint64)
        inverse = np.ones(len(signs) + 1, np.uint64)
        inverse[1:] = pow(_BASE, -1, 1 << 64)
        inverse = np.cumprod(inverse, dtype=np.uint64)
        sums = np.zeros(len(signs) + 1, np.uint64)
        sums[1:] = np.cumsum(_mixed(signs.astype(np.uint64)) * powers[:-1], dtype=np.uint64)
    return sums, inverse


def _hasher(sums: Array, inverse: Array) -> Any:
    def hash_of(places: Array, sizes: Array, salt: int) -> Array:
        """The hash of the signs from each place on, so many."""
        with np.errstate(over="ignore"):
            found = (sums[places + sizes] - sums[places]) * inverse[places]
            return _mixed(found + np.uint64(salt) * np.uint64(0xD1B54A32D192ED03))

    return hash_of


def _mixed(values: Array) -> Array:
    """A bijection that spreads bits (SplitMix64: Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
