"""`text_file`: a text as one long row of tokens, for a model of language."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainbus_data import Block, DataError
from trainbus_data.container import Container
from trainbus_data.items import Tensors
from trainbus_data.memory_loader import MemoryLoader
from trainbus_data.orders import order_of
from trainbus_data.recipe import Recipe
from trainbus_text import tokens as all_tokens
from trainbus_text.files import encoded, spans
from trainbus_text.measures import NextToken

logger = logging.getLogger("trainbus")
#: Tokens that are looked back at, by their kind; and steps that an epoch is to have.
_CONTEXT, _SHORT = 256, 64
_STEPS = 100


def text_file(
    path: str | Path,
    *,
    valid: str | Path | None = None,
    tokens: Any = "characters",
    split: float = 0.9,
    context: int = _CONTEXT,
    stride: int | None = None,
    batch_size: int | None = None,
    encoding: str = "utf-8",
    cache: str | Path | None = None,
    seed: int = 0,
    name: str = "",
) -> LanguageData:
    """A text, of which each token is to be said from those before it.

    Args:
        path: a file of text.
        valid: another one, for validation.
        tokens: "characters", "bytes", "bpe:4096" trained here, a tokenizer.json, ...; what is
            learned of them is learned from the training part.
        split: the part of the file, from its beginning, that is for training; the rest validates.
        context: tokens that a model sees at once.
        stride: in validation a window of `context` tokens moves on by so many, and those alone
            count: each token once, with at least `context - stride` before it. Half by default.
        batch_size: windows in a batch of training; 16, or fewer for a short text.
        encoding: of the files.
        cache: a folder where tokens are kept, mapped and not in memory, by a hash of text and
            tokens; for texts larger than memory.
        seed: of the order of training.
        name: in the names of runs; by default the file's.

    Raises:
        DataError: something of it cannot be; the message says what, where, and what would be right.
    """
    if not 0 < split <= 1:
        raise DataError(f"split={split}: the part for training, above 0 and at most 1")
    if context < 2:
        raise DataError(f"context={context}: at least 2 tokens")
    if stride is not None and not 1 <= stride <= context:
        raise DataError(f"stride={stride}: from 1 to the context, {context}")
    path = Path(path)
    train, rest = spans(path, encoding, 1.0 if valid is not None else split)
    if valid is not None:
        rest, _ = spans(Path(valid), encoding, 1.0)
    made = all_tokens.made(tokens, "characters")
    if made.kind == "ngrams":
        raise DataError("tokens='ngrams' are a bag, and have no order: 'characters', 'bpe', ...")
    made.fit(train)
    folder = None if cache is None else Path(cache)
    parts = {
        stage: Stream(*encoded(span, made, folder))
        for stage, span in (("train", train), ("valid", rest)) if span is not None
    }  # fmt: skip
    return LanguageData(
        made, parts, context=context, stride=stride, batch_size=batch_size, seed=seed,
        name=name or path.name.partition(".")[0],
    )  # fmt: skip


class Stream(Tensors):
    """The tokens of a text, one after the other; an item is a token.

    Args:
        tokens: (T,), in memory or mapped.
        characters, bytes: of the text.
    """

    def __init__(self, tokens: np.ndarray[Any, Any], characters: int, bytes: int) -> None:
        super().__init__([torch.arange(0)])
        self.tokens, self.characters, self.bytes = tokens, characters, bytes

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return (torch.tensor(int(self.tokens[index])),)

    def describe(self, index: int) -> str:
        """Its number."""
        return f"token {index:,}"


class WindowsOfTokens(MemoryLoader):
    """Batches (tokens N x T, the next ones N x T) of windows of a text.

    In training windows lie side by side, from a beginning that each epoch has of its own, in an
    order of its own. In validation they overlap, and -100 stands where a window says again what
    the one before it said with less in view.

    Args:
        stream: of tokens.
        context: of a window.
        stride: of validation; None for training.
        options: of `MemoryLoader`.
    """

    def __init__(
        self, stream: Stream, context: int, stride: int | None, kinds: tuple[str, ...],
        **options: Any,
    ) -> None:  # fmt: skip
        last = len(stream) - 1 - context
        if stride is None:
            starts = np.arange(0, max(1, last + 1), context)
        else:
            starts = np.append(np.arange(0, last, stride), last)
        super().__init__([torch.from_numpy(starts)], kinds, shuffle=stride is None, **options)
        self.stream, self.context, self.stride = stream, context, stride
        #: What the plugin `text` logs.
        self.about = ""
        # Windows move on behind their beginning by so much, at most.
        self._room = min(context, last - int(starts[-1]) + 1) if stride is None else 1

    def taken(self, rows: Tensor | slice) -> list[Tensor]:
        """Tokens and next tokens of these windows, int64."""
        begins = self.dataset.parts[0]
        starts = begins[rows]
        if self.stride is None and self._room > 1:
            starts = starts + int(order_of(self._room, self.seed, ~self.epoch)[0])
        places = starts.numpy()[:, None] + np.arange(self.context + 1)
        windows = torch.from_numpy(self.stream.tokens[places].astype(np.int64))
        tokens, wanted = windows[:, :-1].contiguous(), windows[:, 1:].clone()
        if self.stride is not None:
            numbers = torch.arange(len(begins))[rows]
            before = begins[(numbers - 1).clamp(min=0)]
            said = torch.where(numbers > 0, before + self.context - starts, 0)
            wanted[torch.arange(self.context) < said[:, None]] = -100
        return [tokens, wanted]

    def _batches(self, skip: int) -> Iterator[tuple[Tensor, ...]]:
        yield from self.one_by_one(skip)


class TokenWindow(Block):
    """Tokens in a row: int64, N x T."""

    kind = "tokens"


class LanguageRecipe(Recipe):
    """What turns a text into tokens, for a model of language.

    Args:
        tokens: fitted.
        context: tokens that a model sees at once.
        measured: characters and bytes of a token in validation, on average.
    """

    #: What an export names for `trainbus_learner.load`.
    reader = "language"

    def __init__(self, tokens: Any, context: int, measured: Sequence[float] = (1.0, 1.0)) -> None:
        super().__init__([TokenWindow(), NextToken(tokens.size, *measured)])
        self.tokens, self.context = tokens, context
        #: Whether it was said that a text is longer than the context.
        self.noted = False

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {"tokens": self.tokens.state(), "context": self.context}


class LanguageData(Container):
    """Loaders of windows of a text: `text_file` makes it.

    Args:
        tokens: fitted.
        parts: the tokens of "train", and of "valid" if there are any.
        context, stride, batch_size: see `text_file`.
        options: of `Container`.
    """

    recipe: LanguageRecipe

    def __init__(
        self, tokens: Any, parts: dict[str, Stream], *, context: int = _CONTEXT,
        stride: int | None = None, batch_size: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        train = parts["train"]
        short = min(len(part) for part in parts.values())
        if short < 3:
            raise DataError(f"the text has {short} tokens in a part: there is nothing to learn")
        if len(train) <= context:
            raise DataError(
                f"the text has {len(train):,} tokens for training, and a window takes "
                f"{context + 1}: context <= {len(train) - 1}"
            )
        windows = (len(train) - 1) // context
        if batch_size is not None and batch_size > windows:
            raise DataError(
                f"the text has {len(train):,} tokens for training; one batch takes {batch_size} x "
                f"{context} = {batch_size * context:,}: batch_size <= {windows}, or context <= "
                f"{max(2, (len(train) - 1) // batch_size)}"
            )
        by_rule = batch_size is None
        if batch_size is None:
            batch_size = max(1, min(16, 1 << max(0, (windows // _STEPS).bit_length() - 1)))
        self.context, self.stride = context, stride or context // 2
        self._tokens, self._parts, self._given = tokens, parts, options
        valid = parts.get("valid")
        seen = valid or train
        measured = (seen.characters / len(seen), seen.bytes / len(seen))
        recipe = LanguageRecipe(tokens, context, measured)
        super().__init__(recipe, train, valid, batch_size=batch_size, **options)
        self.batch_size_by_rule = by_rule
        self.train.about = self.summary()  # type: ignore[union-attr]

    def _loader(
        self, store: Any, stage: str, drop_last: bool = False, weights: Tensor | None = None
    ) -> Any:
        training = stage == "train"
        context = min(self.context, len(store) - 1)
        return WindowsOfTokens(
            store, context, None if training else min(self.stride, context), self.kinds,
            batch_size=self.batch_size if training else max(self.batch_size, 8),
            drop_last=drop_last, seed=self._given.get("seed", 0), blocks=self.blocks,
        )  # fmt: skip

    def part(self, stage: str, indices: Sequence[int]) -> Any:
        """Windows of a whole stage, as in validation."""
        return self._loader(self.items(stage), "predict")

    def _again(self, **changed: Any) -> Self:
        given = {
            "context": self.context, "stride": self.stride, "batch_size": self.batch_size,
            **self._given, **changed,
        }  # fmt: skip
        parts = given.pop("parts", self._parts)
        return type(self)(self._tokens, parts, **given)

    def all_for_training(self) -> Self:
        """The same text without a validation part: it is trained on, too."""
        valid = self._parts.get("valid")
        if valid is None:
            return self
        train = self._parts["train"]
        tokens = np.concatenate([train.tokens, valid.tokens])
        whole = Stream(tokens, train.characters + valid.characters, train.bytes + valid.bytes)
        return self._again(parts={"train": whole})

    def summary(self) -> str:
        """How many tokens there are, of what kind, and what validation has that is unknown."""
        lines = [f"tokens    {self.recipe.tokens!r}, learned from the training part"]
        for stage, part in self._parts.items():
            lines.append(
                f"{stage:<9} {len(part):,} tokens, {part.characters / len(part):.2f} characters "
                f"each, {float(np.mean(part.tokens[:10_000_000] == 0)):.3%} of them unknown"
            )
        lines.append(f"windows   {self.context} tokens, in validation each {self.stride}")
        lines.append(f"batches   {self.batch_size} windows, {len(self.train):,} an epoch")
        return "\n".join(lines)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{stage} {len(part):,}" for stage, part in self._parts.items())
        return f"LanguageData({sizes} tokens, {self.recipe.tokens!r}, context={self.context})"
