"""TextLearner: a learner whose tokens and network are made for the texts and the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainbus import UsageError
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.baselines import Comparison
from trainbus_learner.evaluation import forward
from trainbus_text import baselines, bodies
from trainbus_text.models import ARCHS, USUAL_LENGTH, USUAL_TOKENS, TextModel
from trainbus_text.predictor import BATCH, TextPrediction, TextPredictions, TextPredictor
from trainbus_text.targets import Smoothed
from trainbus_text.tokens import Subwords

#: The highest rate of a cycle, by the network.
_RATES = {"bag": 2e-2, "conv": 2e-3, "lstm": 5e-3, "transformer": 1e-3}
#: Of a pretrained body; and of adapters alone.
_BODY_RATES = (5e-5, 5e-4)


class TextLearner(ArchLearner):
    """Learns what a text is: a class, several labels, or numbers.

    Where the data were given no tokens, those that suit the network are learned from the training
    part. `summary()` says what was chosen; `baselines()` puts the classical answers beside it.

    Args:
        data: what `text_table(...)` made.
        arch: "bag", "conv", "lstm", "transformer"; the folder of a body of transformers, or its
            name on a hub; or a module that is called with (tokens, lengths).
        network: options of the network: {"width": 256, "layers": 4}, ...
        label_smoothing: the part of each label that is spread over all classes.
        lr: the learning rate; by default one for each network.
        options: of `Learner`: loss, class_weights, metrics, optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | Path | nn.Module = "bag",
        *,
        network: Mapping[str, Any] | None = None,
        label_smoothing: float = 0.0,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(data, "with_tokens"):
            raise UsageError(
                f"TextLearner(data={type(data).__name__}): give what text_table(...) makes: "
                "text_table('file.csv', 'text', 'label')"
            )
        data, folder = _with_body(data, arch)
        name = str(arch) if isinstance(arch, (str, Path)) else type(arch).__name__
        name = folder.name if folder is not None else name
        if data.tokens is None and name in USUAL_TOKENS:
            data = data.with_tokens(USUAL_TOKENS[name], USUAL_LENGTH[name])
        builder = "trainbus_text.models:rebuild"
        if isinstance(arch, nn.Module):
            model: Any = arch
        elif folder is not None:
            model = _of_folder(data, folder, dict(network or {}))
            builder = "trainbus_text.bodies:rebuild"
            options = {"groups": bodies.BodyModel.groups, "pretrained": True, **options}
        else:
            model = _made(data, arch, dict(network or {}), options.get("seed"))
            options.setdefault("groups", TextModel.groups)
        if label_smoothing:
            if data.target.kind != "category" or "loss" in options or "class_weights" in options:
                raise UsageError(
                    "label_smoothing= is for one class of several, without loss= or class_weights="
                )
            options["loss"] = Smoothed(label_smoothing)
        if data.target.kind == "category":
            options.setdefault("metrics", ["accuracy", "f1"])
        adapters = bool((network or {}).get("lora"))
        usual = _RATES.get(name) if folder is None else _BODY_RATES[adapters]
        described = getattr(model, "description", None)
        super().__init__(
            data,
            model,
            arch=name,
            about={
                "network": ARCHS.get(name, f"{name} (given)"),
                "tokens": repr(data.recipe.tokens),
            },
            usual=usual,
            lr=lr,
            model_description=None
            if described is None
            else {"builder": builder, "options": described},
            **options,
        )

    @property
    def tokens(self) -> Any:
        """What texts are made of."""
        return self.source.recipe.tokens

    # --- predicting ------------------------------------------------------------------------------

    def predictor(self) -> TextPredictor:
        """What `predict` asks; it goes on with the present weights."""
        return TextPredictor(partial(forward, self), self.source.recipe, self.source.target)

    def predict(self, item: Any) -> TextPrediction:
        """Predict one text; or a row, a mapping of columns to values."""
        return self.predictor().predict(item)

    def predictions(self, items: Any, batch_size: int = BATCH) -> TextPredictions:  # type: ignore[override]
        """Predict many texts, in their order.

        Args:
            items: a list of texts or of rows, a frame, a path of a table; one text is one text.
            batch_size: texts that the model is asked about together.
        """
        return self.predictor().predictions(items, batch_size)

    def baselines(  # type: ignore[override]
        self, loader: Any = "valid", *, names: Sequence[str] | None = None, rows: int = 200_000
    ) -> Comparison:
        """The classical answers beside this one: same split, same loss and metrics, with times.

        "constant" knows how often classes occur; "tf-idf" is a linear model of words and pairs of
        words, "tf-idf characters" has n-grams of characters besides (both with scikit-learn's
        linear support vector machine, or ridge for numbers), "nb-svm" that of Wang and Manning
        (2012). They are fitted on the training part alone.

        Args:
            loader: "valid" or "test".
            names: of the baselines; by default all that suit the target.
            rows: at most so many of training are given to them.
        """
        return baselines.compare(self, loader, names, rows)

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, with network and tokens."""
        about = {name: self.choices[name] for name in ("network", "tokens")}
        return {**about, **super()._header(schedule)}


def _made(data: Any, arch: str, network: dict[str, Any], seed: Any) -> TextModel:
    """The network, with what it has to know of the tokens."""
    tokens = data.recipe.tokens
    if arch == "bag" and tokens.kind == "ngrams":
        network = {"split": tokens.split, **network}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = TextModel(arch, tokens.size, data.target.outputs, tokens.hash, **network)
    if arch == "bag" and tokens.kind == "ngrams":
        model.body.rarity.copy_(torch.from_numpy(tokens.weights()))
    return model


def _with_body(data: Any, arch: Any) -> tuple[Any, Path | None]:
    """The data in the tokens of a pretrained body, and its folder, if one was asked for."""
    if isinstance(arch, nn.Module) or arch in ARCHS or not bodies.is_body(arch):
        return data, None
    folder = bodies.folder_of(arch)
    given = Subwords("given", json=(folder / "tokenizer.json").read_text("utf-8"), special=True)
    longest = data.recipe.cutting.most if data.tokens is not None else None
    return data.with_tokens(given, longest or 256), folder


def _of_folder(data: Any, folder: Path, network: dict[str, Any]) -> nn.Module:
    """The pretrained body of a folder, with a new head."""
    tokens, outputs = data.recipe.tokens, data.target.outputs
    body, config = bodies.read_body(folder, outputs)
    room = body.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if tokens.size > room:
        raise UsageError(
            f"{folder}: its tokenizer has {tokens.size:,} tokens, and its body vectors for "
            f"{room:,}: they belong to different models"
        )
    try:
        return bodies.BodyModel(config, outputs, tokens.hash, tokens.size, body=body, **network)
    except TypeError as error:
        raise UsageError(f"network={network!r:.80} of a body: {error}") from None
