"""Predictions: from a thing to a label, with a learner's model or an exported one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainbus import Accelerator, TrainbusError, UsageError
from trainbus.arguments import check_whole


@dataclass(frozen=True)
class Prediction:
    """What a model says of one item.

    Attributes:
        label: what a person is shown: "seven", ["cat", "dog"], 3.2, an array. Points and masks
            are in pixels of the image as it was given; -1 is a pixel that the model did not see,
            and for which there is no code to ignore.
        probability: of the label, where it is one of several.
        probabilities: what the model gave, as probabilities or values; on the CPU.
        value: the prediction shaped like a target, in pixels of what the model saw; on the CPU.
        vocab: the labels in the order of the probabilities, where there are labels.
    """

    label: Any
    probability: float | None
    probabilities: Tensor = field(repr=False)
    value: Tensor = field(repr=False)
    vocab: Sequence[Any] = field(default=(), repr=False)

    def top(self, count: int = 5) -> list[tuple[Any, float]]:
        """The most probable labels with their probabilities; empty where there are no labels.

        Of a mask: its classes, each with the mean of its probability over the pixels.
        """
        if self.probability is None and not self.vocab:
            return []
        means = self.probabilities.flatten(1).mean(1) if self.probabilities.ndim > 1 else None
        values, indices = (self.probabilities if means is None else means).sort(descending=True)
        pairs = zip(indices[:count].tolist(), values[:count].tolist(), strict=True)
        return [(self.vocab[i] if self.vocab else i, value) for i, value in pairs]

    def __repr__(self) -> str:
        if self.probability is not None:
            return f"Prediction({self.label!r}, {self.probability:.1%})"
        shown = f"{self.label:.4g}" if isinstance(self.label, float) else f"{self.label!r:.80}"
        shape = getattr(self.label, "shape", None)
        return f"Prediction({shown if shape is None else f'array of shape {tuple(shape)}'})"


class Predictor:
    """Reads items, asks a model, and says what its outputs mean.

    Args:
        forward: gives the outputs of a batch of inputs, without gradients, in evaluation mode.
        encode: the inputs of one item.
        target: the block that says what an output means.
        recipe: makes batches of encoded items; without it they are stacked.
        about: what an export says of itself.
        moved_later: inputs are changed behind the recipe, by batch transforms: places in what the
            model sees cannot be brought back.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        encode: Callable[[Any], tuple[Tensor, ...]],
        target: Any,
        recipe: Any = None,
        about: dict[str, Any] | None = None,
        moved_later: bool = False,
    ) -> None:
        self._moved_later = moved_later
        self._forward = forward
        self._encode = encode
        self._recipe = recipe
        self.target = target
        self.about = about or {}

    def __repr__(self) -> str:
        blocks = [] if self._recipe is None else self._recipe.blocks[: self._recipe.inputs]
        given = ", ".join(map(repr, blocks)) or "tensors"
        kind = f", {self.about['kind']}" if "kind" in self.about else ""
        return f"Predictor({given} -> {self.target!r}{kind})"

    @property
    def vocab(self) -> Sequence[Any]:
        """The labels in the order of the outputs, or none."""
        words = getattr(self.target, "vocab", None) if self.target.kind != "boxes" else ()
        return tuple(words or ())

    @property
    def recipe(self) -> Any:
        """How items are read; None with plain loaders."""
        return self._recipe

    def write(self, prediction: Prediction, path: str | Path) -> Path:
        """Write a prediction to a file: a mask as PNG, in the size of the photo.

        Args:
            prediction: of this predictor.
            path: where; its ending is replaced by that of the format.

        Raises:
            UsageError: it is no picture, but a line of text.
        """
        written = getattr(self.target, "write", lambda label, path: None)
        place: Path | None = written(prediction.label, Path(path))
        if place is None:
            raise UsageError(
                f"write: a prediction of the kind {self.target.kind!r} is a line of text, and no "
                "file: print it"
            )
        return place

    def predict(self, item: Any) -> Prediction:
        """Predict one item: a file, an image, or what else the data were made of.

        Raises:
            UsageError: it cannot be read.
        """
        return next(self._stream(iter([item]), 1, "predict"))

    def predictions(self, items: Iterable[Any], batch_size: int = 64) -> Iterator[Prediction]:
        """Predict a stream of items, in order; only one batch of them is in memory at a time.

        Args:
            items: any iterable, an endless one too.
            batch_size: items that the model is asked about together.

        Raises:
            UsageError: an item cannot be read; the message says which.
        """
        if items is None or isinstance(items, (str, bytes, dict)):
            raise UsageError(
                f"predictions({items!r:.60}): give a list or another iterable of items; for one "
                "item there is predict(item)"
            )
        check_whole(1, UsageError, "predictions", batch_size=batch_size)
        return self._stream(iter(items), batch_size, "predictions")

    def _stream(self, items: Iterator[Any], batch_size: int, verb: str) -> Iterator[Prediction]:
        number = 0
        while chunk := list(islice(items, batch_size)):
            encoded, restores = [], []
            for item in chunk:
                try:
                    parts, restore = self._placed(item)
                    encoded.append(parts)
                    restores.append(restore)
                except TrainbusError as error:
                    where = f"item {number} of the stream, {_name(item)}"
                    where = _name(item) if verb == "predict" else where
                    raise UsageError(f"{verb}: {where}: {error}") from error
                number += 1
            inputs = self._collate(encoded)
            try:
                output = self._forward(*inputs)
            except (RuntimeError, TypeError, ValueError) as error:
                if Accelerator().is_out_of_memory(error):
                    raise
                raise UsageError(f"{verb}: {self._refused(chunk, inputs, error)}") from error
            yield from self.read(output, restores)

    def _refused(self, chunk: list[Any], inputs: Sequence[Tensor], error: Exception) -> str:
        """What to say where the model fails: mostly the input has another size than in training."""
        shapes = " and ".join(" x ".join(map(str, each.shape[1:])) for each in inputs)
        hint = getattr(self._recipe.input, "shape_hint", "") if self._recipe is not None else ""
        many = f" and {len(chunk) - 1} others" if len(chunk) > 1 else ""
        return (
            f"{_name(chunk[0])}{many}: the model cannot take an input of {shapes}: "
            f"{next(iter(str(error).splitlines()), type(error).__name__)}. Is that its shape in "
            f"training?{' For the data: ' + hint if hint else ''}"
        )

    def _collate(self, encoded: list[tuple[Tensor, ...]]) -> Sequence[Tensor]:
        if self._recipe is not None:
            batch: tuple[Tensor, ...] = self._recipe.collate(encoded, "item {} of the batch".format)
            return batch
        if len({tuple(part.shape for part in parts) for parts in encoded}) > 1:
            raise UsageError(
                "predictions: the items have different shapes and cannot go into one batch; ask "
                "with batch_size=1"
            )
        return [torch.stack(parts) for parts in zip(*encoded, strict=True)]

    def _placed(self, item: Any) -> tuple[tuple[Tensor, ...], Callable[[Tensor], Any]]:
        """The inputs of an item, and what makes of a predicted value what a person is shown."""
        if self._recipe is None or not self.target.in_picture or self._moved_later:
            return self._encode(item), self.target.decode
        placed: tuple[tuple[Tensor, ...], Callable[[Tensor], Any]]
        placed = self._recipe.encode_placed(item)
        return placed

    def read(
        self, output: Any, restores: Sequence[Callable[[Tensor], Any]] = ()
    ) -> Iterator[Prediction]:
        """What the outputs of a batch mean, one by one; they are fetched together.

        Args:
            output: of the model.
            restores: make of each value what a person is shown; by default the target decodes it.
        """
        if self.about and hasattr(self.target, "check_output"):  # a file says what they mean
            self.target.check_output(output)
        probabilities = self.target.activation(output)
        values = self.target.read(probabilities).cpu()
        probabilities = probabilities.cpu()
        vocab = self.vocab
        restores = restores or [self.target.decode] * len(values)
        for each, value, restore in zip(probabilities, values, restores, strict=True):
            sure = float(each[int(value)]) if self.target.kind == "category" else None
            yield Prediction(restore(value), sure, each, value, vocab)


def _name(item: Any) -> str:
    """An item in words: all of a file's name, the shape of an array, the beginning of others."""
    if getattr(item, "ndim", 0):
        return f"{type(item).__name__} of shape {tuple(item.shape)}"
    return str(item) if isinstance(item, (str, Path)) else f"{item!r:.80}"
