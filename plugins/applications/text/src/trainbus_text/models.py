"""Networks that read a text: a bag of n-grams, a convolution, an LSTM, a transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_text.awd_lstm import AWDLSTM
from trainbus_text.encoder import Encoder

#: What may be asked for by name, with its source.
ARCHS = {
    "bag": "a linear model of n-grams, weighted by how rare they are (Joachims, 1998)",
    "conv": "convolutions of 3, 4 and 5 tokens and their maxima (Kim, 2014)",
    "lstm": "AWD-LSTM, mean, maximum and last (Merity et al., 2017; Howard and Ruder, 2018)",
    "transformer": "transformer encoder, pre-norm, rotary positions (Vaswani et al., 2017)",
}
#: Which tokens suit each where nothing is said, and how many of a text.
USUAL_TOKENS = {"bag": "ngrams", "conv": "words", "lstm": "words", "transformer": "bpe"}
USUAL_LENGTH = {"bag": None, "conv": 512, "lstm": 512, "transformer": 256}


class TextModel(nn.Module):
    """A network that gives numbers for a text: N x outputs of (N x T tokens, N lengths).

    Args:
        arch: one of `ARCHS`.
        size: numbers of tokens, 0 included.
        outputs: how many numbers are given for a text.
        tokens: the hash of the tokens, which weights of other tokens do not fit.
        options: of the network.
    """

    def __init__(
        self, arch: str, size: int, outputs: int, tokens: str = "", **options: Any
    ) -> None:
        super().__init__()
        if arch not in ARCHS:
            raise UsageError(
                f"arch={arch!r}: there is no such network for texts{nearest(arch, ARCHS)} There "
                f"are {', '.join(ARCHS)}; a folder of transformers; or give a module that is "
                "called with (tokens, lengths)"
            )
        #: JSON values that make an equal one.
        self.description = {
            "arch": arch, "size": size, "outputs": outputs, "tokens": tokens, **options,
        }  # fmt: skip
        makers: Mapping[str, Any] = {
            "bag": Bag, "conv": Convolution, "lstm": AWDLSTM, "transformer": Encoder,
        }  # fmt: skip
        try:
            self.body = makers[arch](size, **options)
        except TypeError as error:
            raise UsageError(f"network={options!r:.80} of {arch!r}: {error}") from None
        self.head: nn.Module = (
            _Sum(outputs) if arch == "bag" else Head(self.body.width, outputs, arch == "lstm")
        )
        if arch == "bag":
            self.body.made_for(outputs)
        self.fingerprint = Fingerprint(tokens, size)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """N x outputs."""
        made: Tensor = self.head(self.body(tokens, lengths))
        return made

    def groups(self) -> list[list[nn.Module]]:
        """Modules that learn at rates of their own, those next to the tokens first."""
        return [*self.body.groups(), [self.head]]


class Fingerprint(nn.Module):
    """The hash of the tokens, kept with the weights: others refuse to be put into the model.

    Args:
        tokens: the hash, in hexadecimal digits; empty for none.
        size: of their vocabulary, for the message.
    """

    def __init__(self, tokens: str, size: int) -> None:
        super().__init__()
        digits = bytes.fromhex(tokens)[:8] if tokens else bytes(8)
        number = int.from_bytes(digits, "big") >> 1
        self.register_buffer("tokens", torch.tensor([number, size], dtype=torch.int64))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:
        given = state_dict.get(f"{prefix}tokens")
        own = self.tokens
        if given is not None and not torch.equal(given.cpu(), own.cpu()):
            raise UsageError(
                f"weights have {int(given[1]):,} tokens, this tokenizer {int(own[1]):,}: they "
                f"belong to different data (hash {_digits(given)} and {_digits(own)})"
            )
        super()._load_from_state_dict(state_dict, prefix, *others)  # type: ignore[arg-type]


def _digits(fingerprint: Tensor) -> str:
    return f"{int(fingerprint[0]) << 1:016x}"[:8]


class Bag(nn.Module):
    """Which n-grams are in a text, as a sum of vectors with weights: N x outputs.

    A text's n-grams of words have the length 1 together, and so have those of characters, each
    weighted by how rare it is (tf-idf, Salton and Buckley, 1988). Without a layer between them
    the sum is a linear model.

    Args:
        size: numbers of n-grams, 0 included.
        split: the last number that is an n-gram of words.
        dropout: the part of the n-grams of a text that is left out in training.
    """

    def __init__(self, size: int, split: int = 0, dropout: float = 0.3) -> None:
        super().__init__()
        self.size, self.split, self.dropout = size, split, dropout
        self.register_buffer("rarity", torch.ones(size))
        self.vectors = nn.EmbeddingBag(1, 1)

    def made_for(self, outputs: int) -> None:
        """Take so many outputs, all 0 in the beginning."""
        self.vectors = nn.EmbeddingBag(self.size, outputs, mode="sum", padding_idx=0)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """N x outputs of N x T."""
        made: Tensor = self.vectors(tokens, per_sample_weights=self.weighted(tokens))
        return made

    def weighted(self, tokens: Tensor) -> Tensor:
        """What each n-gram of a text counts: N x T."""
        weights = self.rarity[tokens] * (tokens > 0)
        if self.training and self.dropout:
            weights = weights * (torch.rand_like(weights) >= self.dropout)
        words = tokens <= self.split
        squares = weights.square()
        of_words = (squares * words).sum(1, keepdim=True)
        of_characters = squares.sum(1, keepdim=True) - of_words
        both = torch.where(words, of_words, of_characters)
        return weights * both.clamp(min=1e-6).rsqrt()

    def groups(self) -> list[list[nn.Module]]:
        """One."""
        return [[self.vectors]]


class _Sum(nn.Module):
    """Adds a number for each output.

    Args:
        outputs: how many.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, made: Tensor) -> Tensor:
        """N x outputs."""
        return made + self.bias


class Head(nn.Module):
    """From the vectors of the tokens of a text to its outputs.

    Args:
        width: of a vector.
        outputs: how many.
        last: take the vector of the last token, too (concat pooling, Howard and Ruder, 2018).
        dropout: of the pooled vector.
    """

    def __init__(self, width: int, outputs: int, last: bool = False, dropout: float = 0.2) -> None:
        super().__init__()
        self.last = last
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width * (3 if last else 2), outputs)

    def forward(self, made: tuple[Tensor, Tensor]) -> Tensor:
        """N x outputs of (N x T x width, N x T: which tokens are there)."""
        vectors, there = made
        there = there.unsqueeze(2)
        count = there.sum(1).clamp(min=1)
        mean = (vectors * there).sum(1) / count
        # Of a text without tokens the maximum would be minus infinity.
        highest = vectors.masked_fill(~there, -1e4).amax(1) * there.any(1)
        parts = [mean, highest]
        if self.last:
            places = (count - 1).clamp(min=0)[:, :, None].expand(-1, 1, vectors.shape[2])
            parts.append(vectors.gather(1, places)[:, 0])
        made_of: Tensor = self.linear(self.dropout(torch.cat(parts, 1)))
        return made_of


class Convolution(nn.Module):
    """Vectors of tokens, and convolutions of several of them in a row (Kim, 2014).

    Args:
        size: numbers of tokens.
        width: of a vector.
        filters: of each length.
        lengths: of tokens in a row.
        dropout: of the vectors of tokens.
    """

    def __init__(
        self, size: int, width: int = 128, filters: int = 100,
        lengths: Sequence[int] = (3, 4, 5), dropout: float = 0.3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding = nn.Embedding(size, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.dropout = nn.Dropout(dropout)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, filters, n, padding=n - 1) for n in lengths
        )
        self.width = filters * len(lengths)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """N x T x width, and which are there."""
        there = present(tokens, lengths)
        given = self.dropout(self.embedding(tokens)) * there.unsqueeze(2)
        columns = given.transpose(1, 2)
        # What begins at a token: as many as there are tokens.
        made = [
            functional.relu(each(columns))[:, :, -tokens.shape[1] :] for each in self.convolutions
        ]
        return torch.cat(made, 1).transpose(1, 2), there

    def groups(self) -> list[list[nn.Module]]:
        """Vectors of tokens, and convolutions."""
        return [[self.embedding], [self.convolutions]]


def present(tokens: Tensor, lengths: Tensor) -> Tensor:
    """N x T: which places of a batch are tokens, and not padding."""
    return torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]


def rebuild(**description: Any) -> nn.Module:
    """The network that a description tells of, with weights of chance."""
    return TextModel(**description)
