"""Tokens: from texts to numbers and back, learned from the training part alone."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from trainbus.errors import nearest
from trainbus_data import DataError
from trainbus_text.ngrams import NGrams

Array = np.ndarray[Any, Any]
#: Texts that the library of tokenizers is given together.
_TEXTS = 4096
#: Pieces of a vocabulary where nothing is said: a multiple of 64 suits devices.
_SIZE = 4096
#: What may be given by name.
NAMES = ("ngrams", "characters", "bytes", "words", "bpe", "wordpiece", "unigram")


class Tokens(Protocol):
    """What turns texts into numbers. 0 stands for what is unknown, and for padding."""

    kind: str

    @property
    def size(self) -> int:
        """Numbers that there are, 0 included."""

    @property
    def hash(self) -> str:
        """Of all that it is: others with this hash give the same numbers."""

    def fit(self, texts: Sequence[str]) -> Any:
        """Learn from the training part."""

    def encode_all(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The numbers of all texts, one text after the other (T,), and how many each has."""

    def state(self) -> dict[str, Any]:
        """JSON values; with `tensors`, enough to make it again."""

    def tensors(self) -> dict[str, Tensor]:
        """What was learned that is numbers."""


class Characters:
    """Each character is a token.

    Args:
        vocab: those that there are; by default those of training, in order.
    """

    kind = "characters"

    def __init__(self, vocab: str | None = None) -> None:
        self._take("" if vocab is None else vocab)

    def _take(self, vocab: str) -> None:
        self.vocab = vocab
        points = _points(vocab)
        self._table = np.zeros(int(points.max()) + 2 if len(points) else 1, np.int32)
        self._table[points] = np.arange(1, len(points) + 1)

    @property
    def size(self) -> int:
        """One for each character, and 0."""
        return len(self.vocab) + 1

    @property
    def hash(self) -> str:
        """Of the characters in their order."""
        return _sha256(self.vocab)

    def fit(self, texts: Sequence[str]) -> Characters:
        """Take the characters of these texts."""
        self._take("".join(sorted(set().union(*texts))))
        return self

    def encode_all(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """A number for each character, 0 for one that training did not have."""
        points = _points("".join(texts))
        # The last place of the table is that of all characters beyond it: unknown.
        numbers = self._table[np.minimum(points, len(self._table) - 1)]
        return numbers, np.fromiter(map(len, texts), np.int64, len(texts))

    def decode(self, numbers: Sequence[int]) -> str:
        """The text; U+FFFD stands for what is unknown."""
        return "".join(self.vocab[n - 1] if 0 < n <= len(self.vocab) else "�" for n in numbers)

    def state(self) -> dict[str, Any]:
        """The vocabulary, escaped where JSON has no way to write it."""
        return {"kind": self.kind, "vocab": json.dumps(self.vocab), "hash": self.hash}

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def __repr__(self) -> str:
        return f"{len(self.vocab)} characters"


class Bytes:
    """Each byte of UTF-8 is a token: nothing is unknown."""

    kind = "bytes"
    size = 257
    hash = hashlib.sha256(b"bytes").hexdigest()

    def fit(self, texts: Sequence[str]) -> Bytes:
        """Nothing is learned."""
        return self

    def encode_all(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """A number for each byte, 1 more than the byte."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        numbers = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int32) + 1
        return numbers, np.fromiter(map(len, encoded), np.int64, len(encoded))

    def decode(self, numbers: Sequence[int]) -> str:
        """The text; U+FFFD stands for bytes that are none."""
        return bytes(n - 1 for n in numbers if n).decode("utf-8", "replace")

    def state(self) -> dict[str, Any]:
        """The name alone."""
        return {"kind": self.kind, "hash": self.hash}

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def __repr__(self) -> str:
        return "bytes of UTF-8"


class Subwords:
    """Words or pieces of them, by the library `tokenizers`, trained on the training part.

    Args:
        model: "bpe" (byte-level: nothing is unknown; Sennrich et al., 2016), "wordpiece",
            "unigram" (Kudo, 2018) or "words".
        size: so many tokens at most.
        json: of a tokenizer that is there already.
        special: put the tokens around a text that its tokenizer has for that ([CLS], [SEP]).
    """

    def __init__(
        self, model: str = "bpe", size: int = _SIZE, json: str | None = None, special: bool = False
    ) -> None:
        if size < 2:
            raise DataError(f"a vocabulary of {size} tokens: give at least 2")
        self.kind, self.most = model, size
        self._json, self.special = json, special
        self._tokenizer: Any = None if json is None else _read(json)

    @property
    def size(self) -> int:
        """Tokens of the vocabulary, padding included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @property
    def hash(self) -> str:
        """Of the JSON of the tokenizer."""
        return _sha256(self.json)

    @property
    def json(self) -> str:
        """The tokenizer as the library writes it."""
        if self._json is None:
            self._json = str(self._tokenizer.to_str())
        return self._json

    def fit(self, texts: Sequence[str]) -> Subwords:
        """Train on these texts; one that was there already stays as it is."""
        if self._tokenizer is None:
            self._tokenizer, trainer = _untrained(self.kind, self.most)
            with _one_process():
                self._tokenizer.train_from_iterator(map(_valid, texts), trainer)
        return self

    def encode_all(self, texts: Sequence[str]) -> tuple[Array, Array]:
        """The numbers of the tokens of all texts."""
        parts, lengths = [], []
        with _one_process():
            for start in range(0, len(texts), _TEXTS):
                some = [_valid(text) for text in texts[start : start + _TEXTS]]
                ids = [
                    each.ids
                    for each in self._tokenizer.encode_batch_fast(
                        some, add_special_tokens=self.special
                    )
                ]
                lengths += map(len, ids)
                parts.append(np.fromiter(chain.from_iterable(ids), np.int32))
        numbers = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return numbers, np.array(lengths, np.int64)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends in its characters."""
        return list(self._tokenizer.encode(_valid(text), add_special_tokens=False).offsets)

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of these tokens."""
        return str(self._tokenizer.decode([n for n in numbers if n], skip_special_tokens=False))

    def state(self) -> dict[str, Any]:
        """The JSON of the tokenizer, as a text: one part of the one file of an export."""
        return {
            "kind": self.kind, "json": self.json, "special": self.special, "hash": self.hash,
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def __repr__(self) -> str:
        return f"{self.kind}, {self.size:,} tokens" if self._tokenizer is not None else self.kind


# --- made of what was given ----------------------------------------------------------------------


def made(tokens: Any, default: str) -> Any:
    """The tokens that were asked for, not yet fitted.

    Args:
        tokens: one of `NAMES`, also with a size ("bpe:8000"); the path of a tokenizer.json; an
            object with the methods of `Tokens`; None for the default.
        default: a name.

    Raises:
        DataError: it is none of these.
    """
    if tokens is None:
        tokens = default
    if isinstance(tokens, Path) or (isinstance(tokens, str) and tokens.endswith(".json")):
        return Subwords("given", json=_file(Path(tokens)))
    if not isinstance(tokens, str):
        if hasattr(tokens, "to_str") and hasattr(tokens, "get_vocab_size"):
            return Subwords("given", json=tokens.to_str())
        if all(hasattr(tokens, name) for name in ("encode_all", "fit", "state")):
            return tokens
        raise DataError(
            f"tokens={tokens!r:.60}: give a name ({', '.join(NAMES)}), the path of a "
            "tokenizer.json, or an object such as trainbus_text.Subwords('bpe', 8000)"
        )
    name, _, size = tokens.partition(":")
    if name not in NAMES or (size and not (size.isdigit() and int(size) > 1)):
        raise DataError(
            f"tokens={tokens!r}: there are no such tokens{nearest(name, NAMES)} There are "
            f"{', '.join(NAMES)}; those that are learned with a size: 'bpe:8000'"
        )
    if name in ("ngrams", "characters", "bytes"):
        if size:
            raise DataError(f"tokens={tokens!r}: {name} have no size")
        return {"ngrams": NGrams, "characters": Characters, "bytes": Bytes}[name]()
    return Subwords(name, int(size) if size else _SIZE * 4 if name == "words" else _SIZE)


def from_state(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """The tokens that a state described.

    Raises:
        DataError: they are not what they were, by their hash.
    """
    kind = state["kind"]
    found: Any
    if kind == "ngrams":
        found = NGrams.from_state(state, tensors)
    elif kind == "characters":
        found = Characters(json.loads(state["vocab"]))
    elif kind == "bytes":
        found = Bytes()
    else:
        found = Subwords(kind, json=state["json"], special=bool(state.get("special")))
    if found.hash != state["hash"]:
        raise DataError(
            f"the {kind} of this export are not those that were written with it: hash "
            f"{found.hash[:8]} and not {state['hash'][:8]}"
        )
    return found


# --- the library ---------------------------------------------------------------------------------


def _untrained(model: str, size: int) -> tuple[Any, Any]:
    """A tokenizer and its trainer."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    special = ["<pad>"] if model == "bpe" else ["<pad>", "<unk>"]
    options = {"vocab_size": size, "special_tokens": special, "show_progress": False}
    if model == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return made, trainers.BpeTrainer(initial_alphabet=alphabet, **options)
    if model == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        made.decoder = decoders.Metaspace(prepend_scheme="never")
        return made, trainers.UnigramTrainer(unk_token="<unk>", **options)
    if model == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        return made, trainers.WordPieceTrainer(**options)
    made = Tokenizer(models.WordLevel(unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made, trainers.WordLevelTrainer(min_frequency=2, **options)


def _file(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"tokens={str(path)!r} cannot be read: {error}") from error


def _read(text: str) -> Any:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_str(text)
        # Cuts and padding are ours, and are said.
        made.no_truncation()
        made.no_padding()
        return made
    except Exception as error:  # the library raises its own, without a type
        raise DataError(
            f"this is no tokenizer.json of the library `tokenizers`: {error!s:.200}"
        ) from error


@contextmanager
def _one_process() -> Iterator[None]:
    """No threads of the library, unless they are asked for: processes may be forked later."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = before or "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _valid(text: str) -> str:
    """A text that UTF-8 can write: U+FFFD for each half of a pair of surrogates that is alone."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _points(text: str) -> Array:
    """The code points of a text."""
    raw = text.encode("utf-32-le", "surrogatepass")
    return np.frombuffer(raw, np.uint32).astype(np.int64)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
