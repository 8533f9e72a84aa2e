"""The classical answers for texts: linear models of n-grams, fitted on the training part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.baselines import Comparison, Problem, Row, Unsuited, constant
from trainbus_learner.evaluation import measured, validation_of

#: A word, or any other sign that is no blank.
_WORDS = r"\w+|[^\w\s]"


def compare(learner: Any, part: Any, names: Sequence[str] | None, rows: int) -> Comparison:
    """See `TextLearner.baselines`."""
    known: dict[str, Callable[[_Texts], Tensor]] = {
        "constant": _constant, "tf-idf": _words, "tf-idf characters": _characters,
        "nb-svm": _naive_bayes,
    }  # fmt: skip
    for name in names or ():
        if name not in known:
            raise UsageError(
                f"baselines: there is no {name!r}{nearest(name, known)} There are "
                f"{', '.join(known)}"
            )
    if part not in ("valid", "test"):
        raise UsageError(f"baselines({part!r:.60}): give 'valid' or 'test'")
    loader = validation_of(learner, part, "baselines")
    asked = _Texts(learner, part, rows)
    found = []
    for name in names or known:
        begun = time.perf_counter()
        try:
            outputs = known[name](asked)
        except Unsuited as error:
            found.append(Row(name, {}, 0.0, str(error)))
            continue
        seconds = time.perf_counter() - begun
        found.append(Row(name, _measured(learner, loader, outputs), seconds))
    return Comparison([*found, Row("this learner", learner.validate(part), learner.seconds)])


class _Texts:
    """What a baseline is fitted to, and asked about."""

    def __init__(self, learner: Any, part: str, rows: int) -> None:
        data = learner.data
        self.train = data.parts["train"][0][:rows]
        self.target = data.train_items.parts[-1][:rows]
        self.asked = data.parts[part][0]
        self.kind, self.outputs = data.target.kind, data.target.outputs


def _measured(learner: Any, loader: Any, outputs: Tensor) -> dict[str, float]:
    place = 0

    def next_ones(inputs: tuple[Any, ...]) -> Tensor:
        nonlocal place
        chosen = outputs[place : place + len(inputs[0])].to(inputs[0].device)
        place += len(chosen)
        return chosen

    return measured(learner, loader, next_ones)


def _constant(texts: _Texts) -> Tensor:
    empty = torch.zeros(len(texts.asked), 1)
    return constant(Problem(texts.kind, texts.outputs, (texts.target,), texts.target, (empty,)))


def _words(texts: _Texts) -> Tensor:
    return _linear(texts, [_tfidf("word", (1, 2))])


def _characters(texts: _Texts) -> Tensor:
    return _linear(texts, [_tfidf("word", (1, 2)), _tfidf("char_wb", (2, 5))])


def _learn() -> tuple[Any, Any, Any]:
    try:
        from sklearn import feature_extraction, linear_model, svm  # type: ignore[import-untyped]
    except ImportError:
        raise Unsuited("it needs scikit-learn: pip install scikit-learn") from None
    return feature_extraction.text, linear_model, svm


def _tfidf(analyzer: str, lengths: tuple[int, int]) -> Any:
    words = {"token_pattern": _WORDS} if analyzer == "word" else {}
    return _learn()[0].TfidfVectorizer(
        analyzer=analyzer, ngram_range=lengths, sublinear_tf=True, **words
    )


def _linear(texts: _Texts, views: Sequence[Any]) -> Tensor:
    """A support vector machine on tf-idf; ridge regression for numbers."""
    from scipy.sparse import hstack  # type: ignore[import-untyped]

    _, linear_model, svm = _learn()
    train = hstack([view.fit_transform(texts.train) for view in views]).tocsr()
    asked = hstack([view.transform(texts.asked) for view in views]).tocsr()
    wanted = texts.target.numpy()
    if texts.kind == "number":
        made = linear_model.Ridge().fit(train, wanted).predict(asked)
        return torch.from_numpy(np.asarray(made, np.float32)).reshape(len(texts.asked), -1)
    if texts.kind == "categories":
        columns = [_scores(svm.LinearSVC(), train, column, asked)[:, 1] for column in wanted.T]
        return torch.from_numpy(np.stack(columns, 1).astype(np.float32))
    return _of_classes(svm.LinearSVC(), train, wanted, asked, texts.outputs)


def _scores(machine: Any, train: Any, wanted: Any, asked: Any) -> Any:
    """N x 2: of a label that is there or not."""
    if len(set(wanted.tolist())) < 2:
        sure = np.full(asked.shape[0], 1.0 if wanted[0] > 0 else -1.0)
    else:
        sure = machine.fit(train, wanted).decision_function(asked)
    return np.stack([-sure, sure], 1)


def _of_classes(machine: Any, train: Any, wanted: Any, asked: Any, outputs: int) -> Tensor:
    """Distances from the planes as outputs; they are no probabilities, and their loss says so."""
    machine.fit(train, wanted)
    scores = machine.decision_function(asked)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], 1)
    found = torch.full((asked.shape[0], outputs), -10.0)
    found[:, torch.as_tensor(machine.classes_)] = torch.from_numpy(scores).float()
    return found


def _naive_bayes(texts: _Texts) -> Tensor:
    """Zeros and ones scaled by ratios of logarithms of counts (Wang and Manning, 2012)."""
    if texts.kind != "category":
        raise Unsuited("NB-SVM is for one class of several")
    text, _, svm = _learn()
    if texts.outputs > 20:
        raise Unsuited("NB-SVM is fitted once for each class: for 20 of them at most")
    view = text.CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=_WORDS)
    train, asked = view.fit_transform(texts.train), view.transform(texts.asked)
    wanted, columns = texts.target.numpy(), []
    for code in range(texts.outputs):
        own = wanted == code
        with_it = np.asarray(train[own].sum(0)).ravel() + 1
        without = np.asarray(train[~own].sum(0)).ravel() + 1
        ratio = np.log((with_it / with_it.sum()) / (without / without.sum()))
        # Sparse columns times a number each.
        scaled = [each.multiply(ratio).tocsr() for each in (train, asked)]
        columns.append(_scores(svm.LinearSVC(C=0.1), scaled[0], own.astype(int), scaled[1])[:, 1])
    return torch.from_numpy(np.stack(columns, 1)).float()
