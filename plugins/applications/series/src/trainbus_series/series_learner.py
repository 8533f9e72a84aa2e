"""SeriesLearner: a learner of what series are."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner import Prediction
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.baselines import Comparison, Row
from trainbus_learner.evaluation import forward, measured, validation_of
from trainbus_series.classify import SERIES_ARCHS, SeriesModel
from trainbus_series.labels import BATCH, SeriesPredictions, SeriesPredictor
from trainbus_series.ridge_head import solve

_RATES = {"rocket": 1e-4, "inception": 2e-3}
#: More series are not solved at once; training goes on from a part of them.
_SOLVED = 4000
#: Epochs where nothing was said.
_EPOCHS = 100


class SeriesLearner(ArchLearner):
    """Learns what a series is: a class, or a number.

    Args:
        data: what `series_files(...)` or `series_arrays(...)` made.
        arch: "rocket" or "inception"; or a module that is called with (series N x dimensions x
            steps, lengths N).
        network: options of the network: {"features": 20000}, {"filters": 16, "depth": 3}, ...
        lr: the learning rate; by default one for each network.
        options: of `Learner`: loss, metrics, optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "rocket",
        *,
        network: Mapping[str, Any] | None = None,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(getattr(data, "recipe", None), "together"):
            raise UsageError(
                f"SeriesLearner(data={type(data).__name__}): give what series_files(...) or "
                "series_arrays(...) makes: series_files('GunPoint_TRAIN.ts', 'GunPoint_TEST.ts')"
            )
        name = arch if isinstance(arch, str) else type(arch).__name__
        described = None
        if isinstance(arch, nn.Module):
            model: nn.Module = arch
        else:
            model = _made(data, arch, dict(network or {}), options.get("seed"))
            described = {
                "builder": "trainbus_series.classify:rebuild", "options": dict(model.description),
            }  # fmt: skip
        super().__init__(
            data, model, arch=name, about={"network": SERIES_ARCHS.get(name, f"{name} (given)")},
            usual=None, lr=_RATES.get(name) if lr is None else lr,  # "rocket" is solved
            model_description=described, **options,
        )  # fmt: skip

    def fit(self, epochs: int | None = None, lr: Any = None, **options: Any) -> Any:
        """Train. Without epochs, "rocket" is solved at once, and others have a cycle of 100.

        Args:
            epochs: passes over the training data, with the same rate throughout.
            lr, options: see `Learner.fit`.
        """
        if epochs is not None:
            return super().fit(epochs, lr, **options)
        if self.arch == "rocket":
            begun = time.perf_counter()
            penalty = solved(self.model, self.data, self.source.target.kind)
            self._seconds += time.perf_counter() - begun
            self.choices["head"] = f"ridge, penalty {penalty:.3g} by leaving one out"
            return None
        return self.fit_one_cycle(_EPOCHS, lr, **options)

    def predictor(self) -> SeriesPredictor:
        """What `predict` asks; it goes on with the present weights."""
        return SeriesPredictor(partial(forward, self), self.source.recipe)

    def predict(self, item: Any) -> Prediction:
        """Predict one series: steps, or dimensions x steps."""
        return self.predictor().predict(item)

    def predictions(self, items: Any, batch_size: int = BATCH) -> SeriesPredictions:  # type: ignore[override]
        """Predict many series, in their order: arrays, or the path of a `.ts` file."""
        return self.predictor().predictions(items, batch_size)

    def baselines(  # type: ignore[override]
        self, loader: Any = "valid", *, names: Sequence[str] | None = None
    ) -> Comparison:
        """The classical answers beside this one: same series, same metrics, with times.

        "constant" knows how often classes occur; "nearest" gives what the nearest series of
        training is, by the Euclidean distance.
        """
        known = {"constant": _constant, "nearest": _nearest}
        for name in names or ():
            if name not in known:
                raise UsageError(
                    f"baselines: there is no {name!r}{nearest(name, known)} There are "
                    f"{', '.join(known)}"
                )
        found = []
        items = validation_of(self, loader, "baselines")
        for name in names or known:
            begun = time.perf_counter()
            rule = partial(known[name], self.data)
            found.append(Row(name, measured(self, items, rule), time.perf_counter() - begun))
        return Comparison([*found, Row("this learner", self.validate(loader), self.seconds)])


def _made(data: Any, arch: str, network: dict[str, Any], seed: Any) -> SeriesModel:
    recipe = data.recipe
    outputs = recipe.target.outputs or 1
    if arch == "rocket" and seed is not None:
        network = {"seed": int(seed), **network}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            model = SeriesModel(recipe.dimensions, recipe.length, outputs, arch, **network)
        except TypeError as error:
            raise UsageError(f"network={network!r:.80} of {arch!r}: {error}") from None
    model.body.take(data.train_items.parts[0])
    return model


def solved(model: Any, data: Any, kind: str) -> float:
    """Put the solution of a ridge regression into the head; returns the penalty.

    Of classes the outputs are scaled so that their softmax is as sure as it is right on series
    that were left out.
    """
    series, _, target = (part[:_SOLVED] for part in data.train_items.parts)
    rows = model.body.take(series)
    if kind == "category":
        wanted = torch.nn.functional.one_hot(target, model.head.out_features).double() * 2 - 1
    else:
        wanted = target.double().reshape(len(target), -1)
    found = solve(rows, wanted)
    scale = 1.0
    if kind == "category":
        scales = torch.logspace(-0.5, 1.5, 41, dtype=torch.float64)
        costs = [torch.nn.functional.cross_entropy(found.left_out * s, target) for s in scales]
        scale = float(scales[int(torch.stack(costs).argmin())])
    with torch.no_grad():
        model.head.weight.copy_(found.weights.T * scale)
        model.head.bias.copy_(found.bias * scale)
    return found.penalty


def _constant(data: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    target = data.train_items.parts[2]
    if data.target.kind == "category":
        counts = torch.bincount(target, minlength=data.target.outputs).float()
        made = (counts / counts.sum()).clamp(min=1e-12).log()
    else:
        made = target.float().reshape(len(target), -1).mean(0)
    return made.expand(len(inputs[0]), -1)


def _nearest(data: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    series, _, target = data.train_items.parts
    near = torch.cdist(inputs[0].flatten(1), series.flatten(1)).argmin(1)
    if data.target.kind == "category":
        made = torch.nn.functional.one_hot(target[near], data.target.outputs).float()
        return (made * 0.9 + 0.1 / data.target.outputs).log()  # type: ignore[no-any-return]
    return target[near].float().reshape(len(near), -1)  # type: ignore[no-any-return]
