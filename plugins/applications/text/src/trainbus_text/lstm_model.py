"""A model of language of the LSTM kind: its body begins a classifier (ULMFiT)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from trainbus_text.awd_lstm import AWDLSTM
from trainbus_text.models import Fingerprint


class LanguageLSTM(nn.Module):
    """AWD-LSTM that says the next token: N x T x size logits (Merity et al., 2017).

    Args:
        size: numbers of tokens.
        context: of a window; the LSTM itself has no limit.
        tokens: the hash of the tokens.
        options: of `AWDLSTM`.
    """

    #: Its inputs are tokens, and no bytes of pictures.
    scales_bytes = True

    def __init__(self, size: int, context: int = 256, tokens: str = "", **options: Any) -> None:
        super().__init__()
        #: JSON values that make an equal one.
        self.description: dict[str, Any] = {
            "kind": "lstm", "size": size, "context": context, "tokens": tokens, **options,
        }  # fmt: skip
        self.size, self.context = size, context
        self.body = AWDLSTM(size, **options)
        self.bias = nn.Parameter(self.body.embedding.weight.new_zeros(size))
        self.fingerprint = Fingerprint(tokens, size)

    def forward(self, tokens: Tensor, cache: list[Any] | None = None) -> Tensor:
        """Logits for the token behind each; with a cache for the last one: see `GPT`."""
        if cache is None:
            vectors, _ = self.body.run(tokens)
        else:
            known = cache[0] if cache else 0
            vectors, states = self.body.run(tokens[:, known:], states=cache[1] if cache else None)
            cache[:] = [tokens.shape[1], states]
            vectors = vectors[:, -1:]
        # The vectors of tokens are those of the answers, too (Press and Wolf, 2017).
        return functional.linear(vectors, self.body.embedding.weight, self.bias)

    def groups(self) -> list[list[Any]]:
        """Vectors of tokens, and each layer."""
        return [*self.body.groups(), [self.bias]]
