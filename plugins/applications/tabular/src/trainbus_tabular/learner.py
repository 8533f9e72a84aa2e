"""TabularLearner: a learner whose network is made for the columns and the target of its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.arguments import check_whole
from trainbus_learner.arch_learner import ArchLearner
from trainbus_learner.ensembles import Ensemble
from trainbus_learner.evaluation import forward
from trainbus_tabular import explaining
from trainbus_tabular.bins import counts, quantile_bins, target_bins
from trainbus_tabular.calibration import Calibration, calibrate
from trainbus_tabular.embeddings import PiecewiseLinear
from trainbus_tabular.explaining import (
    CalibrationCurve,
    Importance,
    PartialDependence,
    Residuals,
)
from trainbus_tabular.model import ARCHS, NUMBERS, TableModel, usual_embedding
from trainbus_tabular.predictor import BATCH, Predicted, RowPrediction, TablePredictor

#: The highest rate of a cycle, by the network; and why, for `summary`.
_RATES = {
    "mlp": 5e-3, "linear": 1e-2, "resnet": 1e-3, "tabm": 2e-3, "transformer": 3e-4,
}  # fmt: skip
#: Of fewer rows than these an MLP learns slower: so high a rate would learn them by heart.
_FEW_ROWS = 2000
_HOW = {
    "target": "as {} ramps at most, with edges of a tree on the target",
    "quantile": "as {} ramps at most, with edges at quantiles",
    "periodic": "as cosines and sines of learned frequencies",
    "plain": "as they are, scaled",
}


class TabularLearner(ArchLearner):
    """Learns a column of a table, or several, from the others.

    The target of the data says what: a class, several labels, numbers, a count, classes in an
    order. `summary()` says what was chosen, and why; `baselines()` puts the classical answers
    beside it.

    Args:
        data: what `table(...)` made.
        arch: "mlp", "linear", "resnet", "tabm", "transformer", "realmlp"; or a module that is
            called with (numbers, codes).
        ensemble: so many networks, as one: their predictions are averaged.
        embed: how numbers come in: "quantile" or "target" for ramps with edges of either,
            "periodic", or "plain"; by default what suits the network.
        network: options of the network: {"width": 256, "blocks": 2, "dropout": 0.2}, ...
        lr: the learning rate; by default one for each network.
        options: of `Learner`: loss, class_weights, metrics, optimizer, seed, plugins, ...

    Raises:
        UsageError: something of it cannot work; says what would.
    """

    def __init__(
        self,
        data: Any,
        arch: str | nn.Module = "mlp",
        *,
        ensemble: int = 1,
        embed: str | None = None,
        network: Mapping[str, Any] | None = None,
        lr: Any = None,
        **options: Any,
    ) -> None:
        if not hasattr(data, "layout"):
            raise UsageError(
                f"TabularLearner(data={type(data).__name__}): give what table(...) makes, which "
                "knows its columns: table('file.csv', target='column')"
            )
        check_whole(1, UsageError, ensemble=ensemble)
        name = arch if isinstance(arch, str) else type(arch).__name__
        description: dict[str, Any] | None = None
        about = {"network": f"{name} (given)"}
        if isinstance(arch, nn.Module):
            if ensemble > 1 or network or embed:
                raise UsageError(
                    "ensemble=, network= and embed= are for a network by name; of modules of your "
                    "own make an ensemble: trainbus_learner.Ensemble([...])"
                )
            model: nn.Module = arch
        else:
            model, description, about = _made(
                data, arch, ensemble, embed, dict(network or {}), options.get("seed")
            )
        super().__init__(
            data,
            model,
            arch=name,
            about=about,
            usual=_rate(name, data.target.kind, len(data.train_items)),
            lr=lr,
            model_description=None
            if description is None
            else {"builder": "trainbus_tabular.model:rebuild", "options": description},
            **options,
        )

    # --- predicting ------------------------------------------------------------------------------

    def predictor(self) -> TablePredictor:
        """What `predict` asks; it goes on with the present weights."""
        return TablePredictor(partial(forward, self), self.source.recipe, self.source.target)

    def predict(self, item: Any) -> RowPrediction:
        """Predict one row: a mapping of columns to values; the target need not be in it."""
        return self.predictor().predict(item)

    def predictions(self, items: Any, batch_size: int = BATCH) -> Predicted:  # type: ignore[override]
        """A table of what is predicted for many rows, in their order.

        Args:
            items: a frame, a path, a dict of columns, a list of dicts.
            batch_size: rows that the model is asked about together.
        """
        return self.predictor().predictions(items, batch_size)

    def calibrate(self, coverage: float | None = 0.9, loader: Any = "valid") -> Calibration:
        """Make probabilities honest, and give predictions intervals; on rows that are held back.

        Probabilities of classes get a temperature (Guo et al., 2017). With a coverage, an interval
        around each number holds the right one that often, and a set of classes the right one
        (split conformal prediction, Vovk et al., 2005; Lei et al., 2018), for rows as those. It
        is asked for again after a further fit, and goes with `export`.

        Args:
            coverage: how often an interval or a set is to hold what is right; None for none.
            loader: the rows, as in `validate`.
        """
        return calibrate(self, coverage, loader)

    # --- explaining ------------------------------------------------------------------------------

    def importance(
        self, loader: Any = "valid", *, repeats: int = 3, rows: int = 20_000
    ) -> Importance:
        """How much the loss grows where a column is shuffled (Breiman, 2001; Fisher et al., 2019).

        Of columns that say the same, each seems to matter little: the others stand in for it.

        Args:
            loader: the rows, as in `validate`: those that were not trained on.
            repeats: how often each column is shuffled.
            rows: at most so many are asked about.
        """
        return explaining.importance(self, loader, repeats, rows)

    def partial_dependence(
        self, column: str, source: Any, values: Sequence[Any] | None = None, *, rows: int = 1000
    ) -> PartialDependence:
        """What is predicted on average where a column has each of some values, all else as it is.

        Args:
            column: of the source.
            source: rows of any kind that `table` takes.
            values: that the column is given; quantiles of numbers, or the most frequent words, by
                default.
            rows: so many of the source, from its beginning.
        """
        return explaining.partial_dependence(self, column, source, values, rows)

    def calibration_curve(self, loader: Any = "valid", bins: int = 10) -> CalibrationCurve:
        """How often predictions are right, against their probabilities."""
        return explaining.calibration_curve(self, loader, bins)

    def residuals(self, loader: Any = "valid") -> list[Residuals]:
        """What is less what is predicted, for each number that is learned, in its units."""
        return explaining.residuals(self, loader)

    def _header(self, schedule: str) -> dict[str, str]:
        """As of any learner, and the network; `summary` has the reasons."""
        return {"network": self.choices["network"], **super()._header(schedule)}


def training_tensors(data: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers, codes and target of the training part."""
    parts = data.train_items.parts
    return parts[0], parts[1], parts[2]


def _rate(arch: str, kind: str, rows: int) -> float | None:
    if arch == "mlp" and rows < _FEW_ROWS:
        return 2e-3
    if arch == "realmlp":  # its authors' rates, for its parametrization
        return 0.2 if kind == "number" else 0.04
    return _RATES.get(arch)


def _made(
    data: Any, arch: str, ensemble: int, embed: str | None, network: dict[str, Any], seed: Any
) -> tuple[nn.Module, dict[str, Any], dict[str, str]]:
    """The network, its description, and what is said of it."""
    layout = data.layout
    embed = usual_embedding(arch) if embed is None else embed
    bins = _bins(data, embed, arch)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        members = [
            TableModel(
                len(layout.numbers), layout.cardinalities, data.target.outputs, layout.target,
                arch, embed, counts(bins), **network,
            )
            for _ in range(ensemble)
        ]  # fmt: skip
    for each in members:
        if isinstance(each.embed, PiecewiseLinear):
            each.embed.take(bins)
    model = members[0] if ensemble == 1 else Ensemble(members, members[0].mean)
    many = f"{ensemble} of them, averaged" if ensemble > 1 else ""
    about = {"network": ", ".join(filter(None, (ARCHS[arch], many)))}
    if layout.numbers and arch not in ("transformer", "realmlp"):
        most = max(counts(bins), default=0)
        about["numbers"] = f"{len(layout.numbers)} columns, {_HOW[embed].format(most)}"
    if layout.categories:
        about["categories"] = (
            f"{len(layout.categories)} columns, of {max(layout.cardinalities)} codes at most"
        )
    return model, {**members[0].description, "ensemble": ensemble}, about


def _bins(data: Any, embed: str, arch: str) -> list[Tensor]:
    """The edges of the numbers, where the network has pieces of them."""
    if embed not in NUMBERS[:2] or not data.layout.numbers or arch in ("transformer", "realmlp"):
        return []
    numbers, _, target = training_tensors(data)
    return quantile_bins(numbers) if embed == "quantile" else target_bins(numbers, target)
