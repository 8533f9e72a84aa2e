"""LanguageLearner: a learner of the next token, which writes texts on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.baselines import Comparison
from trainbus_learner.snapshots import evaluating
from trainbus_text import counting
from trainbus_text.generator import LanguagePredictor
from trainbus_text.gpt import rebuild

#: What may be asked for by name, with its source.
LANGUAGE_ARCHS = {
    "gpt": "decoder with rotary positions, SwiGLU and vectors of n-grams (see `GPT`)",
    "lstm": "AWD-LSTM (Merity et al., 2017)",
}
_RATES = {"gpt": 3e-3, "lstm": 5e-3}


class LanguageLearner(ArchLearner):
    """Learns which token comes next, and writes texts on.

    `validate()` gives nats of a token, bits of a character and of a byte, and the perplexity, over
    the whole validation text; `baselines()` puts tables of counts beside it.

    Args:
        data: what `text_file(...)` made.
        arch: "gpt" or "lstm"; or a module that is called with tokens N x T and gives
            N x T x size.
        network: options of the network: {"width": 384, "layers": 6}, ...
        lr: the learning rate; by default one for each network.
        options: of `Learner`: optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "gpt",
        *,
        network: Mapping[str, Any] | None = None,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(data, "stride"):
            raise UsageError(
                f"LanguageLearner(data={type(data).__name__}): give what text_file(...) makes: "
                "text_file('input.txt')"
            )
        name = arch if isinstance(arch, str) else type(arch).__name__
        described = None
        if isinstance(arch, nn.Module):
            model: Any = arch
        else:
            model = _made(data, arch, dict(network or {}), options.get("seed"))
            described = {
                "builder": "trainbus_text.gpt:rebuild", "options": dict(model.description),
            }  # fmt: skip
            options.setdefault("groups", type(model).groups)
        about = {
            "network": LANGUAGE_ARCHS.get(name, f"{name} (given)"),
            "tokens": repr(data.recipe.tokens),
        }
        super().__init__(
            data, model, arch=name, about=about, usual=_RATES.get(name), lr=lr,
            model_description=described, **options,
        )  # fmt: skip

    @property
    def tokens(self) -> Any:
        """What texts are made of."""
        return self.source.recipe.tokens

    def predictor(self) -> LanguagePredictor:  # type: ignore[override]
        """What `generate` asks; it goes on with the present weights."""
        cached = hasattr(self.model, "description")

        def model(tokens: Tensor, *cache: Any) -> Tensor:
            with evaluating(self.task):
                made: Tensor = self.model(tokens.to(self.device), *cache)
            return made

        return LanguagePredictor(model, self.source.recipe, cached=cached)

    def generate(self, prompt: str | Sequence[str] = "", length: int = 200, **options: Any) -> Any:
        """A text that goes on behind a prompt: see `LanguagePredictor.generate`."""
        return self.predictor().generate(prompt, length, **options)

    def stream(self, prompt: str = "", length: int = 200, **options: Any) -> Iterator[str]:
        """The same in pieces, as they are written: see `LanguagePredictor.stream`."""
        return self.predictor().stream(prompt, length, **options)

    def measure(self, text: str, stride: int | None = None) -> dict[str, float]:
        """What a text costs: see `LanguagePredictor.measure`."""
        return self.predictor().measure(text, stride)

    def baselines(  # type: ignore[override]
        self, loader: Any = "valid", *, names: Sequence[str] | None = None, rows: int = 2_000_000
    ) -> Comparison:
        """Tables of counts beside this model: same text, same measures, with times.

        "unigram" knows how often tokens occur; "kneser-ney 5" and "kneser-ney 6" the 4 or 5 tokens
        before, too (Kneser and Ney, 1995; Chen and Goodman, 1998).

        Args:
            loader: "valid" or "test".
            names: of the baselines; by default all.
            rows: at most so many tokens of training are counted.
        """
        return counting.compare(self, loader, names, rows)

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, with network and tokens."""
        about = {name: self.choices[name] for name in ("network", "tokens")}
        return {**about, **super()._header(schedule)}


def _made(data: Any, arch: str, network: dict[str, Any], seed: Any) -> nn.Module:
    if arch not in LANGUAGE_ARCHS:
        raise UsageError(
            f"arch={arch!r}: there is no such model of language{nearest(arch, LANGUAGE_ARCHS)} "
            f"There are {', '.join(LANGUAGE_ARCHS)}; or give a module that is called with tokens"
        )
    tokens = data.recipe.tokens
    given = {"size": tokens.size, "context": data.context, "tokens": tokens.hash, **network}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            return rebuild(kind=arch, **given)
        except TypeError as error:
            raise UsageError(f"network={network!r:.80} of {arch!r}: {error}") from None
