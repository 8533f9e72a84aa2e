"""The networks for tables, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_learner.ensembles import Ensemble, mean_output
from trainbus_tabular.backbones import (
    MiniEnsemble,
    RealPerceptron,
    ResidualBlocks,
    Transformer,
    perceptron,
)
from trainbus_tabular.embeddings import (
    Categories,
    Periodic,
    PeriodicBias,
    PiecewiseLinear,
)

#: What a network is called, and what it is, for messages and `summary`.
ARCHS = {
    "mlp": "an MLP on embeddings of numbers (Gorishniy et al. 2022)",
    "linear": "one linear layer",
    "resnet": "ResNet (Gorishniy et al. 2021)",
    "tabm": "TabM-mini (Gorishniy et al. 2024)",
    "transformer": "FT-Transformer (Gorishniy et al. 2021)",
    "realmlp": "RealMLP-TD (Holzmüller et al. 2024)",
}
#: How numbers come to a network: pieces with edges from the target or from quantiles, ...
NUMBERS = ("quantile", "target", "periodic", "plain")
_USUAL_NUMBERS = {"mlp": "quantile", "tabm": "quantile", "resnet": "quantile"}
#: What the means of the members of an ensemble are taken of, by the kind of a target.
_MEANS = {"class": "softmax", "labels": "sigmoid", "ordinal": "sigmoid", "count": "exp"}


class TableModel(nn.Module):
    """A network for (numbers, codes of categories), from rows to outputs.

    With several predictions of a row inside (TabM) it gives rows x members x outputs in training,
    and their mean otherwise.

    Args:
        numbers: columns of numbers.
        cardinalities: codes of each column of categories, 0 for what is not known among them.
        outputs: how many.
        target: "class", "labels", "number", "numbers", "count" or "ordinal".
        arch: a name of `ARCHS`.
        embed: how numbers come in: "target" or "quantile" for pieces with edges of either,
            "periodic", or "plain"; by default what suits the network.
        pieces: how many each column of numbers has, where they come in pieces.
        width_of_number: of the vector for a number.
        options: of the network: width, blocks, dropout, members, ...

    Raises:
        UsageError: there is no such network, or no column.
    """

    def __init__(
        self,
        numbers: int,
        cardinalities: Sequence[int],
        outputs: int,
        target: str,
        arch: str = "mlp",
        embed: str | None = None,
        pieces: Sequence[int] = (),
        width_of_number: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        _check(arch, embed, numbers + len(cardinalities))
        embed = usual_embedding(arch) if embed is None else embed
        self.description = {
            "numbers": numbers, "cardinalities": list(cardinalities), "outputs": outputs,
            "target": target, "arch": arch, "embed": embed, "pieces": list(pieces),
            "width_of_number": width_of_number, **options,
        }  # fmt: skip
        self.mean = _MEANS.get(target, "none")
        self.embed, self.categories = None, None
        self.body: nn.Module
        try:
            if arch == "transformer":
                self.body = Transformer(numbers, cardinalities, outputs, **options)
                return
            chunks = self._inputs(numbers, cardinalities, arch, embed, pieces, width_of_number)
            smooth = target not in ("class", "labels", "ordinal")
            self.body = _body(arch, chunks, outputs, smooth, embed, options)
        except TypeError as error:
            raise UsageError(f"arch={arch!r} with {options!r:.200}: {error}") from None

    def _inputs(
        self,
        numbers: int,
        cardinalities: Sequence[int],
        arch: str,
        embed: str,
        pieces: Sequence[int],
        width: int,
    ) -> list[int]:
        """Make the embeddings; returns the size of what each column is as a vector."""
        chunks: list[int] = []
        if numbers:
            made: nn.Module | None = None
            if arch == "realmlp":
                made, width = PeriodicBias(numbers), 4
            elif embed in ("target", "quantile"):
                made = PiecewiseLinear(pieces, width)
            elif embed == "periodic":
                made = Periodic(numbers, width)
            self.embed = made
            chunks += [1 if made is None else width] * numbers
        if cardinalities:
            self.categories = Categories(cardinalities)
            chunks += self.categories.chunks
        return chunks

    @property
    def gives_members(self) -> bool:
        """Whether it gives several predictions of each row in training."""
        return isinstance(self.body, MiniEnsemble)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Rows x outputs; rows x members x outputs in the training of what has members."""
        if isinstance(self.body, Transformer):
            made: Tensor = self.body(numbers, codes)
            return made
        parts = []
        if numbers.shape[1]:
            parts.append(numbers if self.embed is None else self.embed(numbers).flatten(1))
        if self.categories is not None:
            parts.append(self.categories(codes))
        made = self.body(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        if made.ndim == 3 and not self.training:
            return mean_output(made, self.mean)
        return made


def _check(arch: str, embed: str | None, columns: int) -> None:
    if arch not in ARCHS:
        raise UsageError(
            f"arch={arch!r}: there is no such network for tables{nearest(arch, ARCHS)} There are "
            f"{', '.join(ARCHS)}; or give a module that is called with (numbers, codes)"
        )
    if embed is not None and embed not in NUMBERS:
        raise UsageError(f"embed={embed!r}: give one of {', '.join(NUMBERS)}")
    if not columns:
        raise UsageError("there is no column to predict from")


def usual_embedding(arch: str) -> str:
    """How numbers come to a network where nothing is said."""
    return _USUAL_NUMBERS.get(arch, "plain")


def _body(
    arch: str,
    chunks: Sequence[int],
    outputs: int,
    smooth: bool,
    embed: str,
    options: dict[str, Any],
) -> nn.Module:
    inputs = sum(chunks)
    if arch == "linear":
        return nn.Linear(inputs, outputs, **options)
    if arch == "resnet":
        return ResidualBlocks(inputs, outputs, **options)
    if arch == "tabm":
        return MiniEnsemble(chunks, outputs, signs=embed == "plain", **options)
    if arch == "realmlp":
        return RealPerceptron(inputs, outputs, smooth, **options)
    given = {"width": 256, "blocks": 2 if embed != "plain" else 3, "dropout": 0.2, **options}
    layers = perceptron(inputs, **given)
    return nn.Sequential(*layers, nn.Linear(given["width"], outputs))


def rebuild(ensemble: int = 1, **description: Any) -> nn.Module:
    """The network that a description tells of, with weights of chance.

    Args:
        ensemble: so many of them, as one.
        description: the arguments of `TableModel`.
    """
    members = [TableModel(**description) for _ in range(ensemble)]
    return members[0] if ensemble == 1 else Ensemble(members, members[0].mean)
