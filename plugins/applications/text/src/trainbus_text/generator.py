"""LanguagePredictor: writes texts on, token by token, with a learner's model or an exported one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from trainbus import UsageError
from trainbus_learner import Predictor
from trainbus_text.sampling import Choice, draws

logger = logging.getLogger("trainbus")


class LanguagePredictor(Predictor):
    """Writes texts on, and says how probable a text is.

    Args:
        model: gives logits N x T x size of N x T tokens; and with a list as a second argument
            keeps in it what it computed.
        recipe: with the tokens.
        about: what an export says of itself.
        cached: whether the model takes that second argument.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        recipe: Any,
        about: dict[str, Any] | None = None,
        cached: bool = True,
    ) -> None:
        super().__init__(model, self.encode, recipe.target, recipe, about)
        self._model, self._cached = model, cached
        self.tokens, self.context = recipe.tokens, recipe.context

    def __repr__(self) -> str:
        return f"LanguagePredictor({self.tokens!r}, context={self.context})"

    def encode(self, text: Any) -> tuple[Tensor, ...]:
        """The tokens of a text, (T,) int64.

        Raises:
            UsageError: it is none, or has characters that are unknown.
        """
        if not isinstance(text, str):
            raise UsageError(f"{text!r:.60} is a {type(text).__name__}, and no text")
        flat, _ = self.tokens.encode_all([text])
        if self.tokens.kind == "characters" and (flat == 0).any():
            unknown = text[int((flat == 0).argmax())]
            raise UsageError(
                f"{unknown!r} is not among the {len(self.tokens.vocab)} characters of training "
                "(tokens='bytes' would take it)"
            )
        return (torch.from_numpy(flat.astype("int64")),)

    # --- writing on ------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[str] = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        beams: int = 1,
        seed: int | None = None,
        use_cache: bool = True,
    ) -> Any:
        """A text that goes on behind a prompt, without it; for a list of prompts a list.

        Args:
            prompt: the beginning; or several, which are written on together.
            length: tokens that are written, at most.
            temperature: below 1 the probable is more so; 0 takes the most probable token.
            top_k, top_p, min_p, repetition_penalty: see `Choice`.
            stop: texts that end it; they are left out.
            beams: above 1, the most probable of so many texts that are followed at once, without
                chance.
            seed: of the chance; the same for the first prompt, whatever others are beside it.
            use_cache: keep what was computed for the tokens so far.
        """
        choice = Choice(temperature, top_k, top_p, min_p, repetition_penalty)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        stops = _stops(stop)
        _check(length, beams)
        begun = [self._begun(each) for each in prompts]
        if beams > 1:
            texts = [self._beam(each, length, beams, stops) for each in begun]
        else:
            made = [""] * len(prompts)
            run = self._run(begun, length, choice, seed, use_cache, self._ends(begun, stops))
            rows: list[list[int]] = [[] for _ in prompts]
            for row, token in run:
                rows[row].append(token)
            for row, written in enumerate(rows):
                made[row] = _before(self.tokens.decode(written), stops)
            texts = made
        return texts[0] if isinstance(prompt, str) else texts

    def stream(
        self,
        prompt: str = "",
        length: int = 200,
        *,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        use_cache: bool = True,
        **choice: Any,
    ) -> Iterator[str]:
        """The same text as `generate` gives, in pieces as they are written.

        Args:
            prompt: the beginning.
            length: tokens that are written, at most.
            stop: texts that end it; nothing is given that may be the beginning of one.
            seed: of the chance.
            use_cache: see `generate`.
            choice: temperature and others of `Choice`.
        """
        if not isinstance(prompt, str):
            raise UsageError("stream takes one prompt; for several there is generate([...])")
        try:
            chosen = Choice(**choice)
        except TypeError as error:
            raise UsageError(f"stream: {error}") from None
        _check(length, 1)
        return self._pieces(self._begun(prompt), length, chosen, _stops(stop), seed, use_cache)

    def _pieces(
        self, begun: Tensor, length: int, choice: Choice, stops: Sequence[str], seed: Any,
        use_cache: bool,
    ) -> Iterator[str]:  # fmt: skip
        written: list[int] = []
        given = ""
        held = max((len(each) - 1 for each in stops), default=0)
        for _, token in self._run(
            [begun], length, choice, seed, use_cache, lambda row, made: False
        ):
            written.append(token)
            text = self.tokens.decode(written)
            cut = _before(text, stops)
            if len(cut) < len(text):
                if len(cut) > len(given):
                    yield cut[len(given) :]
                return
            # Bytes of a character that is not whole yet, and what may begin a stop, are held back.
            safe = text.rstrip("�")[: len(text) - held]
            if len(safe) > len(given) and safe.startswith(given):
                yield safe[len(given) :]
                given = safe
        text = self.tokens.decode(written)
        if len(text) > len(given):
            yield text[len(given) :]

    def _begun(self, prompt: str) -> Tensor:
        """The tokens of a prompt; of an empty one a line's end, or the first token there is."""
        (tokens,) = self.encode(prompt)
        if len(tokens):
            return tokens
        flat, _ = self.tokens.encode_all(["\n"])
        first = [int(n) for n in flat if n] or [1]
        return torch.tensor(first)

    def _ends(self, begun: Sequence[Tensor], stops: Sequence[str]) -> Any:
        def ends(row: int, made: Sequence[int]) -> bool:
            if not stops:
                return False
            # As many tokens as may hold the longest of them.
            text = self.tokens.decode(made[-4 * max(map(len, stops)) - 4 :])
            return any(each in text for each in stops)

        return ends

    @torch.no_grad()
    def _run(
        self, begun: Sequence[Tensor], length: int, choice: Choice, seed: int | None,
        use_cache: bool, ends: Any,
    ) -> Iterator[tuple[int, int]]:  # fmt: skip
        """(row, token), one by one. Rows of one length are asked about together."""
        made: list[list[int]] = [[] for _ in begun]
        chances = [draws(seed, row) for row in range(len(begun))]
        groups: dict[int, list[int]] = {}
        for row, tokens in enumerate(begun):
            groups.setdefault(len(tokens), []).append(row)
        if max(groups) + length > self.context and not self.recipe.noted:
            self.recipe.noted = True
            logger.warning(
                "%d + %d tokens exceed the context of %d: older tokens are dropped",
                max(groups), length, self.context,
            )  # fmt: skip
        for rows in groups.values():
            tokens = torch.stack([begun[row] for row in rows])
            cache: list[Any] = []
            for _ in range(length):
                tokens, cache = self._room(tokens, cache)
                logits = self._next(tokens, cache if use_cache and self._cached else None)
                chosen = []
                for place, row in enumerate(rows):
                    seen = torch.cat([begun[row], torch.tensor(made[row], dtype=torch.int64)])
                    chosen.append(choice.token(logits[place], seen, chances[row]))
                left = []
                for place, row in enumerate(rows):
                    made[row].append(chosen[place])
                    yield row, chosen[place]
                    if not ends(row, made[row]):
                        left.append(place)
                tokens = torch.cat([tokens, torch.tensor(chosen)[:, None]], 1)
                if len(left) < len(rows):
                    if not left:
                        break
                    rows = [rows[place] for place in left]
                    tokens, cache = tokens[left], _picked(cache, left)

    def _room(self, tokens: Tensor, cache: list[Any]) -> tuple[Tensor, list[Any]]:
        """Tokens that fit: where there are too many, the newer half of the context goes on."""
        if tokens.shape[1] <= self.context:
            return tokens, cache
        return tokens[:, -(self.context // 2) :], []

    def _next(self, tokens: Tensor, cache: list[Any] | None) -> Tensor:
        """Logits of the next token, N x size, on the CPU."""
        output = self._model(tokens) if cache is None else self._model(tokens, cache)
        return output[:, -1].float().cpu()

    @torch.no_grad()
    def _beam(self, begun: Tensor, length: int, beams: int, stops: Sequence[str]) -> str:
        """The most probable of the texts that are followed (Graves, 2012)."""
        followed: list[tuple[float, list[int]]] = [(0.0, [])]
        done: list[tuple[float, list[int]]] = []
        for _ in range(length):
            rows = torch.stack([torch.cat([begun, torch.tensor(m).long()]) for _, m in followed])
            rows, _ = self._room(rows, [])
            logs = self._next(rows, None).double()
            logs[:, 0] = -math.inf
            values = logs.log_softmax(1) + torch.tensor([score for score, _ in followed])[:, None]
            best, places = values.flatten().topk(min(beams, values.numel()))
            size, before = values.shape[1], followed
            followed = []
            for score, place in zip(best.tolist(), places.tolist(), strict=True):
                made = [*before[place // size][1], place % size]
                ended = any(each in self.tokens.decode(made) for each in stops)
                (done if ended else followed).append((score, made))
            if not followed or (done and max(done)[0] >= max(followed)[0]):
                break
        return _before(self.tokens.decode(max([*done, *followed])[1]), stops)

    # --- how probable ----------------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, text: str, stride: int | None = None) -> dict[str, float]:
        """What a text costs: "nats" of a token, "bits_per_character", "perplexity".

        Args:
            text: of at least two tokens.
            stride: see `text_file`.
        """
        (tokens,) = self.encode(text)
        if len(tokens) < 2:
            raise UsageError("measure: give a text of at least two tokens")
        context = min(self.context, len(tokens) - 1)
        step = min(stride or max(1, context // 2), context)
        total, said = 0.0, 0
        begin = 0
        while said < len(tokens) - 1:
            begin = min(begin, len(tokens) - 1 - context)
            window = tokens[begin : begin + context + 1]
            output = self._model(window[None, :-1])[0].double().cpu()
            wanted = window[1:].clone()
            wanted[: said - begin] = -100
            total += float(functional.cross_entropy(output, wanted, reduction="sum"))
            said, begin = begin + context, begin + step
        nats = total / (len(tokens) - 1)
        return {
            "nats": nats,
            "bits_per_character": total / math.log(2) / len(text),
            "bits_per_byte": total / math.log(2) / len(text.encode("utf-8", "surrogatepass")),
            "perplexity": math.exp(nats),
        }

    def predict(self, item: Any) -> Any:
        """What may come next: see `next_tokens`."""
        raise UsageError(
            "a model of language writes texts on: generate(prompt); or tells what may come next: "
            "next_tokens(prompt)"
        )

    def predictions(self, items: Any, batch_size: int = 1) -> Any:
        """See `predict`."""
        return self.predict(items)

    @torch.no_grad()
    def next_tokens(self, prompt: str, count: int = 5) -> list[tuple[str, float]]:
        """The most probable next tokens, with their probabilities."""
        begun = self._begun(prompt)[None, -self.context :]
        probabilities = self._next(begun, None)[0].double().softmax(0)
        best = probabilities.topk(min(count, len(probabilities)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.tokens.decode([token]), value) for token, value in pairs]


def _picked(cache: list[Any], rows: list[int]) -> list[Any]:
    """What was kept, of some rows: keys and values; or of an LSTM its states."""
    if cache and isinstance(cache[0], int):
        states = [tuple(part[:, rows] for part in state) for state in cache[1]]
        return [cache[0], states]
    return [tuple(part[rows] for part in pair) for pair in cache]


def _stops(stop: str | Sequence[str]) -> list[str]:
    stops = [stop] if isinstance(stop, str) else list(stop)
    if any(not isinstance(each, str) for each in stops):
        raise UsageError(f"stop={stop!r:.60}: give a text, or several")
    return [each for each in stops if each]


def _before(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the stops."""
    places = [place for each in stops if (place := text.find(each)) >= 0]
    return text[: min(places)] if places else text


def _check(length: int, beams: int) -> None:
    if not isinstance(length, int) or length < 1:
        raise UsageError(f"length={length!r}: give a whole number of tokens, at least 1")
    if beams < 1:
        raise UsageError(f"beams={beams}: at least 1")


def from_export(
    run: Callable[..., Any],
    state: Mapping[str, Any],
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> LanguagePredictor:
    """The predictor of an export; used by `trainbus_learner.load`."""
    from trainbus_text import tokens as all_tokens
    from trainbus_text.corpus import LanguageRecipe

    recipe = LanguageRecipe(all_tokens.from_state(state["tokens"], tensors), state["context"])
    module: Any = getattr(run, "module", None)
    if about["kind"] != "weights":
        return LanguagePredictor(run, recipe, about, cached=False)
    device = next(module.parameters()).device

    def model(tokens: Tensor, *cache: Any) -> Tensor:
        made: Tensor = module(tokens.to(device), *cache)
        return made

    return LanguagePredictor(model, recipe, about)
