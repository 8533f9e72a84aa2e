"""Targets that are a label, several labels, or numbers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainbus.arguments import check_whole
from trainbus.errors import nearest
from trainbus_data.blocks import Block, Metric
from trainbus_data.cells import (
    check_labels,
    dimensions,
    is_missing,
    is_number,
    label_of,
    text_of,
)
from trainbus_data.errors import DataError
from trainbus_data.metrics import (
    F1,
    IGNORED,
    accuracy,
    labels_accuracy,
    mean_absolute_error,
    mean_squared_error,
)
from trainbus_data.transforms import Kinds, Parts

logger = logging.getLogger("trainbus")


class _Vocabulary(Block):
    """What the blocks with a vocabulary share: words, and the index of each."""

    def __init__(self, vocab: Sequence[Any] | None = None) -> None:
        self.given = vocab is not None
        self.vocab: list[Any] = []
        self._codes: dict[Any, int] = {}
        self._by_text: dict[str, int] = {}
        if vocab is not None:
            self._take([label_of(word) for word in vocab])

    def _learn(self, words: Iterable[Any]) -> None:
        """Take the labels of the training part, sorted; 1 and "1" are one."""
        self._take(_sorted({text_of(word): label_of(word) for word in words}.values()))

    def _take(self, words: Sequence[Any]) -> None:
        self.vocab = list(words)
        if (doubt := check_labels(words, type(self).__name__)) and not self.given:
            logger.warning("%s (give vocab=[...] if they are)", doubt)
        self._codes = {word: index for index, word in enumerate(self.vocab)}
        self._by_text = {text_of(word): index for index, word in enumerate(self.vocab)}
        self.outputs = len(self.vocab)
        # Numbers in a target are codes where the vocabulary is names, and none of them a number.
        self._takes_codes = all(isinstance(word, str) for word in self.vocab) and not any(
            map(is_number, self.vocab)
        )

    def code(self, raw: Any) -> int:
        """The index of a word in the vocabulary; 1, 1.0 and "1" are one word."""
        word = label_of(raw)
        index = self._codes.get(word)
        if index is None and not is_missing(word):
            index = self._by_text.get(text_of(word))
        if index is not None:
            return index
        if self._takes_codes and type(word) is int and 0 <= word < len(self.vocab):
            return word
        raise DataError(self._unknown(word))

    def _unknown(self, word: Any) -> str:
        if is_missing(word):
            return "the label is missing"
        words = [str(each) for each in self.vocab]
        source = "the vocabulary given" if self.given else "the labels of the training part"
        some = ", ".join(map(repr, self.vocab[:8])) + (", ..." if len(words) > 8 else "")
        return f"the label {word!r} is not among {source} ({some}){nearest(str(word), words)}"

    def problem(self, raw: Any) -> str | None:
        """One that is missing, or unknown."""
        try:
            self.encode(raw)
        except (DataError, TypeError) as error:
            return str(error)
        return None

    def options(self) -> dict[str, Any]:
        """The vocabulary."""
        return {"vocab": self.vocab or None}

    def needs(self) -> str:
        """One output for each word."""
        return f"{self.outputs} outputs, one for each of {_some(self.vocab)}"


class Category(_Vocabulary):
    """One label of several: a tensor () int64, in a batch (N,).

    The loss is cross-entropy, which also takes probabilities (N x C) as targets.

    Args:
        vocab: the labels in the order of the model's outputs; by default what the training
            part has, sorted. 1, 1.0 and "1" are one label. Where all are names, and none a number,
            integers in the data are indices of them.
    """

    kind = "category"

    def setup(self, raws: Iterable[Any]) -> None:
        """Take the labels of the training part."""
        if self.given:
            return
        words = {label_of(raw) for raw in raws if not is_missing(raw)}
        if IGNORED in words:
            raise DataError(
                f"{IGNORED} is a label, which the loss takes for none: leave those items out, or "
                "give vocab=[...] with it"
            )
        if any(isinstance(word, float) for word in words):
            some = next(word for word in words if isinstance(word, float))
            raise DataError(
                f"the labels are numbers with fractions, {some} for example: Number() learns "
                "numbers; if they are classes, give them as texts, or vocab=[...]"
            )
        if len(words) == 1:
            raise DataError(
                f"all labels of the training part are {next(iter(words))!r}; a classifier needs "
                "two classes (give vocab=[...] if the others come later)"
            )
        self._learn(words)

    def encode(self, raw: Any) -> Tensor:
        """The index of the label, int64."""
        return torch.tensor(self.code(raw))

    def encode_all(self, raws: Any) -> Tensor:
        """The indices of all labels: (N,) int64; an array of integers without a loop."""
        values = raws.cpu().numpy() if isinstance(raws, Tensor) else np.asarray(raws)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise DataError(f"labels of shape {values.shape}; a Category takes one for each item")
        try:
            unique, positions = np.unique(values, return_inverse=True)
            codes = torch.tensor([self.code(word) for word in unique], dtype=torch.int64)
        except (DataError, TypeError):  # None is not sorted among words; find the item
            return super().encode_all(raws)
        return codes[torch.from_numpy(positions)]

    def decode(self, value: Tensor) -> Any:
        """The label."""
        return self.vocab[int(value)]

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Cross-entropy."""
        return functional.cross_entropy

    def metrics(self) -> dict[str, Metric]:
        """The part that is right."""
        return {"accuracy": accuracy}

    def activation(self, output: Tensor) -> Tensor:
        """Softmax: probabilities N x C."""
        return output.softmax(dim=-1)

    def read(self, probabilities: Tensor) -> Tensor:
        """The most probable: (N,) int64."""
        return probabilities.argmax(dim=-1)


class Categories(_Vocabulary):
    """Any number of labels: a tensor (C,) float of zeros and ones, in a batch N x C.

    The loss is binary cross-entropy of each label alone, on what the model gives without sigmoid.

    Args:
        vocab: as in `Category`.
        delimiter: what separates the labels where one text holds them all ("cat dog").
        threshold: the probability above which a label is predicted.
    """

    kind = "categories"

    def __init__(
        self,
        vocab: Sequence[Any] | None = None,
        delimiter: str | None = None,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(vocab)
        self.delimiter = delimiter
        self.threshold = threshold

    def labels(self, raw: Any) -> list[Any]:
        """The labels in what was given: a list, or a text; none at all is an empty list."""
        if isinstance(raw, str):
            if self.delimiter is None:
                return [raw] if raw else []
            return [word.strip() for word in raw.split(self.delimiter) if word.strip()]
        if is_missing(raw):
            raise DataError("the labels are missing; an item without any has an empty list or text")
        if not isinstance(raw, (list, tuple, set, frozenset)) and not dimensions(raw):
            raise DataError(f"{raw!r} is not a list of labels")
        return list(raw)

    def setup(self, raws: Iterable[Any]) -> None:
        """Take the labels of the training part."""
        if self.given:
            return
        if dimensions(raws) == 2:  # zeros and ones: the labels have no names
            self._take(range(len(next(iter(raws)))))
            return
        given = (word for raw in raws if not _unset(raw) for word in self.labels(raw))
        words = {label_of(word) for word in given if not is_missing(word)}
        if not words:
            raise DataError("no item of the training part has a label")
        self._learn(words)

    def encode(self, raw: Any) -> Tensor:
        """Ones for the labels, float32 (C,)."""
        hot = torch.zeros(len(self.vocab))
        for word in self.labels(raw):
            hot[self.code(word)] = 1.0
        return hot

    def encode_all(self, raws: Any) -> Tensor:
        """N x C float32; a tensor of zeros and ones, or of probabilities, is taken as it is."""
        if dimensions(raws) != 2:
            return super().encode_all(raws)
        values = torch.as_tensor(raws).float()
        if values.shape[1] != len(self.vocab):
            raise DataError(f"{values.shape[1]} columns for {len(self.vocab)} labels")
        if not ((values >= 0) & (values <= 1)).all():
            raise DataError("a table of labels holds zeros and ones, and not NaN or other numbers")
        return values

    def decode(self, value: Tensor) -> list[Any]:
        """The labels whose value is above the threshold."""
        return [self.vocab[index] for index in (value > self.threshold).nonzero().flatten()]

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """The labels, in the title."""
        words = self.decode(value) if isinstance(value, Tensor) else value
        super().draw(axes, ", ".join(map(str, words)) or "(none)", color)

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Binary cross-entropy on logits."""
        return functional.binary_cross_entropy_with_logits

    def metrics(self) -> dict[str, Metric]:
        """The part of all labels that is right, and F1 over the whole pass."""
        return {"accuracy": labels_accuracy(self.threshold), "f1": F1(self.threshold)}

    def activation(self, output: Tensor) -> Tensor:
        """Sigmoid: a probability for each label, N x C."""
        return output.sigmoid()

    def read(self, probabilities: Tensor) -> Tensor:
        """Zeros and ones, N x C float."""
        return (probabilities > self.threshold).float()

    def options(self) -> dict[str, Any]:
        """Vocabulary, delimiter and threshold."""
        kept = {"delimiter": self.delimiter, "threshold": self.threshold}
        return {**super().options(), **kept}


class Labels(_Vocabulary):
    """Labels of what an item has several of (boxes of an image): (K,) int64, in a batch N x K.

    They are in the order of what they label. Where an item has fewer than the others of its batch,
    -1 follows.
    """

    kind = "labels"

    def setup(self, raws: Iterable[Any]) -> None:
        """Take the labels of the training part."""
        if not self.given:
            self._learn(word for raw in raws for word in raw if not is_missing(word))

    def misfit(self, value: Tensor, parts: Parts, kinds: Kinds) -> str | None:
        """Another number than there are boxes."""
        boxes = parts[kinds.index("boxes")] if "boxes" in kinds else value
        if value.shape[-1] == boxes.shape[value.ndim - 1]:
            return None
        return f"{value.shape[-1]} labels for {boxes.shape[value.ndim - 1]} boxes"

    def encode(self, raw: Any) -> Tensor:
        """The indices of the labels."""
        return torch.tensor([self.code(word) for word in raw], dtype=torch.int64)

    def same_shape(self, values: Sequence[Tensor]) -> bool:
        """Any number goes with any other."""
        return True

    def batch(self, values: Sequence[Tensor]) -> Tensor:
        """N x K, with -1 where there is none."""
        return torch.nn.utils.rnn.pad_sequence(list(values), batch_first=True, padding_value=-1)

    def decode(self, value: Tensor) -> list[Any]:
        """The labels, those that are there."""
        return [self.vocab[index] for index in value.tolist() if index >= 0]


class Number(Block):
    """One or several numbers: a tensor (outputs,) float32, in a batch N x outputs.

    The loss is the mean squared error.

    Args:
        outputs: how many.
    """

    kind = "number"

    def __init__(self, outputs: int = 1) -> None:
        check_whole(1, DataError, "Number", outputs=outputs)
        self.outputs: int = outputs

    def problem(self, raw: Any) -> str | None:
        """Missing, no number, or another count."""
        if is_missing(raw):
            return "the number is missing"
        try:
            value = self.encode(raw)
        except (DataError, TypeError, ValueError) as error:
            return str(error)
        return f"{raw!r:.60} is not finite" if not value.isfinite().all() else None

    def encode(self, raw: Any) -> Tensor:
        """The numbers, float32 (outputs,)."""
        single = isinstance(raw, str) or not (hasattr(raw, "__len__") or dimensions(raw))
        value = torch.tensor([float(each) for each in ([raw] if single else raw)])
        if len(value) != self.outputs:
            raise DataError(f"{len(value)} numbers ({raw!r:.60}); outputs={self.outputs}")
        return value

    def encode_all(self, raws: Any) -> Tensor:
        """N x outputs float32."""
        values = np.asarray(raws) if not isinstance(raws, Tensor) else raws
        if isinstance(values, np.ndarray) and values.dtype.kind not in "biuf":
            values = super().encode_all(raws)  # texts, and what is missing: it says which item
        values = torch.as_tensor(values).float().reshape(len(values), -1)
        if values.shape[1] != self.outputs:
            raise DataError(
                f"{values.shape[1]} numbers for each item; Number(outputs={self.outputs})"
            )
        if not (finite := values.isfinite().all(dim=1)).all():
            raise DataError(f"item {int(finite.int().argmin())}: a number that is not finite")
        return values

    def decode(self, value: Tensor) -> Any:
        """A float, or a list of them."""
        return float(value) if self.outputs == 1 else value.flatten().tolist()

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """The numbers, in the title."""
        shown = self.decode(value) if isinstance(value, Tensor) else value
        each = shown if isinstance(shown, (list, tuple)) else [shown]
        super().draw(axes, ", ".join(f"{number:.4g}" for number in each), color)

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The mean squared error."""
        return mean_squared_error

    def metrics(self) -> dict[str, Metric]:
        """The mean absolute error."""
        return {"mae": mean_absolute_error}

    def activation(self, output: Tensor) -> Tensor:
        """The output, N x outputs."""
        return output.reshape(len(output), -1)

    def options(self) -> dict[str, Any]:
        """How many."""
        return {"outputs": self.outputs}


def _sorted(words: Iterable[Any]) -> list[Any]:
    try:
        return sorted(words)
    except TypeError:  # words of several types
        return sorted(words, key=lambda word: (str(type(word)), str(word)))


def _some(words: Sequence[Any], most: int = 6) -> str:
    shown = ", ".join(map(repr, words[:most]))
    return f"{shown}, ..." if len(words) > most else shown


def _unset(raw: Any) -> bool:
    return not isinstance(raw, str) and is_missing(raw)
