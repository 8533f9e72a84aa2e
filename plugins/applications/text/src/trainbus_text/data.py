"""TextData: texts of training, validation and test, encoded when somebody asks for batches."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus_data import Block, DataError
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_data.ranges import BucketLoader
from trainbus_text import tokens as all_tokens
from trainbus_text.recipe import Cutting, TextRecipe

Array = np.ndarray[Any, Any]
logger = logging.getLogger("trainbus")
#: What a part of the data is: texts, and what was said of each.
Part = tuple[list[str], list[Any]]


class Texts(Tensors):
    """Encoded texts: all tokens one behind the other, and for each text its length and target.

    Args:
        flat: the tokens, (T,) int32.
        lengths: of each text, N.
        target: N x ...
        texts: as they were given.
    """

    def __init__(self, flat: Tensor, lengths: Tensor, target: Tensor, texts: Sequence[str]) -> None:
        super().__init__([lengths, target])
        self.flat, self.texts = flat, texts
        self.starts = lengths.cumsum(0) - lengths

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        start, length = int(self.starts[index]), int(self.parts[0][index])
        return self.flat[start : start + length], self.parts[0][index], self.parts[1][index]

    def describe(self, index: int) -> str:
        """The beginning of a text."""
        return f"{self.texts[index]!r:.60}"

    def taken(self, rows: Sequence[int]) -> Texts:
        """Some of them, in this order."""
        picked = torch.as_tensor(rows, dtype=torch.int64)
        lengths = self.parts[0][picked]
        parts = [self[int(row)][0] for row in picked]
        flat = torch.cat(parts) if parts else self.flat[:0]
        return Texts(flat, lengths, self.parts[1][picked], [self.texts[int(i)] for i in picked])


class TextLoader(BucketLoader):
    """Batches (tokens N x the longest, lengths N, target): in training texts of like length meet.

    A batch has `batch_size` texts; or with `batch_tokens` as many as have no more tokens together,
    padding included.

    Args:
        texts: encoded.
        batch_tokens: the most tokens of a batch, padding included.
        options: of `MemoryLoader`.
    """

    def __init__(
        self,
        texts: Texts,
        kinds: tuple[str, ...],
        batch_tokens: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(texts.flat, texts.parts[0], [texts.parts[1]], kinds, **options)
        self.texts, self.batch_tokens = texts, batch_tokens
        #: What the plugin `text` logs.
        self.about = ""
        if batch_tokens is not None and len(texts) and batch_tokens < int(texts.parts[0].max()):
            raise DataError(
                f"batch_tokens={batch_tokens}: the longest text has {int(texts.parts[0].max())}"
            )

    def __len__(self) -> int:
        return super().__len__() if self.batch_tokens is None else len(self._planned())

    def start_at_sample(self, sample: int) -> int:
        """Leave out the samples before this one, once; returns the batches that are left."""
        self._skip = sample
        if self.batch_tokens is None:
            return super().start_at_sample(sample)
        ends = np.cumsum([len(batch) for batch in self._planned()])
        return int((ends > sample).sum())

    def start_at(self, batch: int) -> None:
        """Leave out the batches before this one, once."""
        if self.batch_tokens is None:
            super().start_at(batch)
        else:
            self.start_at_sample(sum(len(each) for each in self._planned()[:batch]))

    def padded_part(self) -> float:
        """The part of all numbers of an epoch that is padding."""
        lengths = self.texts.parts[0]
        batches = [lengths[rows] for rows in self._planned()]
        cells = sum(len(each) * int(each.max()) for each in batches)
        return 1 - float(lengths.sum()) / max(1, cells)

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """The texts, padded to the longest of them and at least to one token."""
        tokens, *others = super().taken(rows)
        return [tokens if tokens.shape[1] else tokens.new_zeros(len(tokens), 1), *others]

    def _planned(self) -> list[Tensor]:
        """The texts of each batch of this epoch."""
        order = self.order() if self.shuffle else torch.arange(len(self.texts))
        if self.batch_tokens is None:
            return list(order.split(self.batch_size))[: len(self)]
        return _within(order, self.texts.parts[0], self.batch_tokens)

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        if self.batch_tokens is None:
            yield from self.one_by_one(skip)
            return
        for rows in self._planned():
            if skip >= len(rows):
                skip -= len(rows)
                continue
            yield tuple(self.taken(rows[skip:]))
            skip = 0


def _within(order: Tensor, lengths: Tensor, most: int) -> list[Tensor]:
    """Batches in this order, each with at most so many tokens, padding included."""
    batches, begin, longest = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if max(longest, length) * (place - begin + 1) > most and place > begin:
            batches.append(order[begin:place])
            begin, longest = place, 0
        longest = max(longest, length)
    return [*batches, order[begin:]] if begin < len(order) else batches


@dataclass
class Plan:
    """What was decided on the way, for `summary`.

    Attributes:
        names: the columns of the text.
        split: how the parts were chosen.
        notes: what was found odd.
    """

    names: Sequence[str] = ("text",)
    split: str = ""
    notes: list[str] = field(default_factory=list)


class TextData(Container):
    """Loaders for training, validation and test of texts: `text_table` makes it.

    A batch is (tokens, lengths, target). Texts are encoded once, when batches are first asked for,
    with tokens that are learned from the training part.

    Args:
        parts: (texts, targets) of "train", and of "valid" and "test" if they are there.
        target: what is learned, set up.
        tokens: see `text_table`; n-grams by default.
        plan: what was decided.
        max_length: longer texts are cut.
        head: how many tokens of the beginning of a cut one are kept; a quarter by default.
        batch_tokens: see `TextLoader`.
        options: of `Container`.
    """

    recipe: TextRecipe

    def __init__(
        self,
        parts: Mapping[str, Part],
        target: Block,
        tokens: Any = None,
        *,
        plan: Plan | None = None,
        max_length: int | None = None,
        head: int | None = None,
        batch_tokens: int | None = None,
        **options: Any,
    ) -> None:
        self.parts = dict(parts)
        self.plan = plan or Plan()
        #: What was asked for; None for what suits the network.
        self.tokens = tokens
        self._goal = target
        self._cutting = Cutting(max_length, head)
        self._batch_tokens = batch_tokens
        self._options = options
        self._said: list[str] = []
        if tokens is not None:
            all_tokens.made(tokens, "ngrams")  # an error now, and not later

    def __getattr__(self, name: str) -> Any:
        """What needs encoded texts: they are encoded now, once."""
        if name.startswith("_") or "train_items" in self.__dict__ or "parts" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._encode()
        return getattr(self, name)

    def _encode(self) -> None:
        tokens = all_tokens.made(self.tokens, "ngrams")
        if not _is_fitted(tokens):
            tokens = tokens.fit(self.parts["train"][0])
        recipe = TextRecipe(self.plan.names, tokens, self._cutting, self._goal)
        stores = {stage: self._encoded(recipe, stage) for stage in self.parts}
        super().__init__(
            recipe, stores["train"], stores.get("valid"), stores.get("test"), **self._options
        )
        for note in self._said:
            logger.warning("%s", note)
        self.train.about = self.summary()  # type: ignore[union-attr]

    def _encoded(self, recipe: TextRecipe, stage: str) -> Texts:
        texts, targets = self.parts[stage]
        flat, lengths = recipe.tokens.encode_all(texts)
        kept, cut = recipe.cutting(flat, lengths)
        long = int((lengths > cut).sum())
        if long:
            self._said.append(
                f"{long:,} of {len(texts):,} texts of {stage} ({long / len(texts):.1%}) are longer "
                f"than {recipe.cutting.most} tokens: {recipe.cutting}; max_length=... says another "
                "length"
            )
        try:
            target = recipe.target.encode_all(targets)
        except DataError as error:
            raise DataError(f"{stage}, {error}") from None
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            self._said.append(
                f"{len(empty):,} of {len(texts):,} texts of {stage} have no token that is known "
                f"(row {empty[0]}: {texts[int(empty[0])]!r:.40})"
            )
        return Texts(torch.from_numpy(kept.astype(np.int32)), torch.from_numpy(cut), target, texts)

    # --- batches -------------------------------------------------------------------------------

    def _loader(
        self, store: Any, stage: str, drop_last: bool = False, weights: Tensor | None = None
    ) -> Any:
        return TextLoader(
            store, self.kinds, self._batch_tokens, batch_size=self.batch_size,
            shuffle=stage == "train", drop_last=drop_last, seed=self._options.get("seed", 0),
            blocks=self.blocks, weights=weights,
        )  # fmt: skip

    def part(self, stage: str, indices: Sequence[int]) -> Any:
        """Batches of these texts of a stage, in this order, as in validation."""
        store: Any = self.items(stage)
        return self._loader(store.taken(indices), "predict")

    def loader(self, items: Any) -> Any:
        """Batches of texts without targets do not exist: see `Learner.predictions`."""
        raise DataError("for texts without targets there is learner.predictions(texts)")

    def _again(self, **changed: Any) -> Self:
        given: dict[str, Any] = {"parts": self.parts, "target": self._goal, "tokens": self.tokens}
        options = {
            "plan": self.plan, "max_length": self._cutting.most, "head": self._cutting.head,
            "batch_tokens": self._batch_tokens, **self._options,
        }  # fmt: skip
        for name, value in changed.items():
            (given if name in given else options)[name] = value
        return type(self)(**given, **options)

    def all_for_training(self) -> Self:
        """The same data without a validation part: its texts are trained on, too."""
        both = [self.parts["train"], self.parts.get("valid", ([], []))]
        texts, targets = ([each for part in both for each in part[i]] for i in range(2))
        kept = {stage: part for stage, part in self.parts.items() if stage == "test"}
        return self._again(parts={"train": (texts, targets), **kept})

    def with_batch_size(self, batch_size: int) -> Self:
        """The same texts in batches of another size."""
        return self._again(batch_size=batch_size)

    def with_tokens(self, tokens: Any, max_length: int | None = None) -> Self:
        """The same texts in other tokens."""
        longest = self._cutting.most if self._cutting.most is not None else max_length
        return self._again(tokens=tokens, max_length=longest, head=None)

    # --- what it is ----------------------------------------------------------------------------

    @property
    def notes(self) -> list[str]:
        """What was odd about the texts, and about their tokens."""
        return [*self.plan.notes, *self._said]

    def summary(self) -> str:
        """What there is, what was decided, what is cut and what is unknown."""
        from trainbus_text.summary import summary_of

        return summary_of(self)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{stage} {len(part[0]):,}" for stage, part in self.parts.items())
        tokens = self.tokens if self.tokens is not None else "tokens as the network needs them"
        return f"TextData({sizes}, {tokens!r}, {self._goal!r})"


def _is_fitted(tokens: Any) -> bool:
    """Whether tokens know something already."""
    if tokens.kind == "bytes" or getattr(tokens, "_tokenizer", None) is not None:
        return True
    return bool(len(getattr(tokens, "hashes", ())) or getattr(tokens, "vocab", ""))
