"""TextRecipe: from a text, or a row with one, to tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data import Block, DataError
from trainbus_data.cells import is_missing
from trainbus_data.recipe import Recipe, block_from_state
from trainbus_text import tokens as all_tokens
from trainbus_text.targets import ScaledNumber

#: What stands between two texts of a row.
SEPARATOR = " ␞ "
Array = np.ndarray[Any, Any]


class TokenNumbers(Block):
    """The tokens of a text: int32, N x the longest, 0 behind those of a shorter one."""

    kind = "tokens"

    def decode(self, value: Tensor) -> Any:
        """The numbers."""
        return value.tolist()


class Lengths(Block):
    """How many tokens a text has: int64, N."""

    kind = "lengths"


class Cutting:
    """What is kept of a text that is too long: its beginning and its end (Sun et al., 2019).

    Args:
        most: tokens of a text; None for all.
        head: how many of them are from the beginning; by default a quarter.
    """

    def __init__(self, most: int | None = None, head: int | None = None) -> None:
        if most is not None and most < 1:
            raise DataError(f"max_length={most}: give at least 1")
        if head is not None and (most is None or not 0 <= head <= most):
            raise DataError(f"head={head}: from 0 to max_length={most}")
        self.most = most
        self.head = head if head is not None or most is None else most // 4

    def __call__(self, flat: Array, lengths: Array) -> tuple[Array, Array]:
        """The tokens that are kept, and how many of each text."""
        if self.most is None or self.head is None or not (lengths > self.most).any():
            return flat, lengths
        # Counted within its text, each token is in the head, or in the tail.
        place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        from_end = np.repeat(lengths, lengths) - place
        short = np.repeat(lengths <= self.most, lengths)
        kept = short | (place < self.head) | (from_end <= self.most - self.head)
        return flat[kept], np.minimum(lengths, self.most)

    def __str__(self) -> str:
        head, tail = self.head or 0, (self.most or 0) - (self.head or 0)
        if not head or not tail:
            return f"their {'end' if not head else 'beginning'} is kept"
        return f"the middle is cut out (head {head}, tail {tail})"


class TextRecipe(Recipe):
    """What turns texts into tokens, by a tokenizer that was fitted on the training part.

    Args:
        names: the columns of the text; several are joined.
        tokens: see `trainbus_text.tokens`.
        cutting: of long texts.
        target: what is learned.
    """

    #: What an export names for `trainbus_learner.load`.
    reader = "text"

    def __init__(self, names: Sequence[str], tokens: Any, cutting: Cutting, target: Block) -> None:
        super().__init__([TokenNumbers(), Lengths(), target], inputs=2)
        self.names, self.tokens, self.cutting = tuple(names), tokens, cutting

    @property
    def target(self) -> Any:
        """What is learned."""
        return self.blocks[2]

    def text_of(self, item: Any) -> str:
        """The text of an item: a text as it is, or the columns of a row.

        Raises:
            DataError: it is neither, or lacks a column.
        """
        if isinstance(item, Mapping):
            absent = [name for name in self.names if name not in item]
            if absent:
                raise DataError(
                    f"the row lacks {', '.join(map(repr, absent))}"
                    f"{nearest(absent[0], map(str, item))}"
                )
            return joined([item[name] for name in self.names])
        if len(self.names) > 1 and isinstance(item, (tuple, list)):
            if len(item) != len(self.names):
                raise DataError(f"{len(item)} texts; give {len(self.names)}: {self.names}")
            return joined(item)
        if is_missing(item):
            return ""
        if not isinstance(item, str):
            raise DataError(f"{item!r:.60} is a {type(item).__name__}, and no text")
        return item.strip()  # as cells of a table are

    def encode_texts(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The tokens of all texts (T,), cut where they are too many, and how many each has."""
        flat, lengths = self.tokens.encode_all(texts)
        return self.cutting(flat, lengths)

    def encode_input(self, raw: Any) -> tuple[Tensor, ...]:
        """The tokens of one text, (T,) int32, and how many: ()."""
        flat, lengths = self.encode_texts([self.text_of(raw)])
        return torch.from_numpy(flat.astype(np.int32)), torch.tensor(int(lengths[0]))

    def padded(self, flat: Array, lengths: Array) -> tuple[Tensor, Tensor]:
        """N x the longest (at least 1), and N."""
        width = max(1, int(lengths.max(initial=0)))
        numbers = np.zeros((len(lengths), width), np.int32)
        numbers[np.arange(width) < lengths[:, None]] = flat
        return torch.from_numpy(numbers), torch.from_numpy(lengths)

    def collate(self, items: Any, name: Any = str) -> tuple[Tensor, ...]:
        """A batch of encoded texts."""
        lengths = np.array([int(length) for _, length in items], np.int64)
        flat = np.concatenate([tokens.numpy() for tokens, _ in items])
        return self.padded(flat, lengths)

    # --- to keep ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """JSON values from which, with `tensors`, `from_state` makes the same recipe."""
        return {
            "names": list(self.names),
            "tokens": self.tokens.state(),
            "cutting": [self.cutting.most, self.cutting.head],
            "target": self.target.state(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """What was learned that is numbers, by name."""
        return {f"tokens.{name}": each for name, each in self.tokens.tensors().items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], tensors: Any = ()) -> TextRecipe:
        """The recipe that `state` and `tensors` described.

        Raises:
            DataError: they describe none.
        """
        try:
            given = {name.removeprefix("tokens."): each for name, each in dict(tensors).items()}
            return cls(
                state["names"],
                all_tokens.from_state(state["tokens"], given),
                Cutting(*state["cutting"]),
                block_from_state(state["target"], [ScaledNumber]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"this is no recipe of texts: {type(error).__name__}: {error}"
            ) from error

    def __repr__(self) -> str:
        return f"TextRecipe({', '.join(self.names)}: {self.tokens!r} -> {self.target!r})"


def joined(texts: Sequence[Any]) -> str:
    """Texts of a row as one; what is missing is empty."""
    for each in texts:
        if not isinstance(each, str) and not is_missing(each):
            raise DataError(f"{each!r:.60} is a {type(each).__name__}, and no text")
    return SEPARATOR.join("" if is_missing(each) else each.strip() for each in texts)
