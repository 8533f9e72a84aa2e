"""Networks that forecast: a linear map, and what a patch transformer or a mixer adds to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_series.closed_form import Solution

#: What may be asked for by name, with its source.
ARCHS = {
    "linear": "linear in what is looked back at (NLinear, Zeng et al., 2023)",
    "patch": "linear, and a transformer of patches beside it (PatchTST, Nie et al., 2023)",
    "mixer": "linear, and layers that mix patches and features beside it (Chen et al., 2023)",
}
#: Added to the deviation of a window.
_EPS = 1e-3


class ForecastModel(nn.Module):
    """Forecasts N x horizon from (history, ahead, static): see `SeriesRecipe`.

    All that a window is forecast by is set beside its last value, and, in what is not linear, its
    own deviation: a level that was never seen changes nothing.

    Args:
        lookback, horizon: steps.
        channels: of the history, the first being the series.
        features: known ahead.
        static: features of a series.
        arch: of `ARCHS`.
        network: options of the network: width, layers, heads, patch, stride, dropout.
    """

    def __init__(
        self, lookback: int, horizon: int, channels: int = 1, features: int = 0, static: int = 0,
        arch: str = "linear", **network: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if arch not in ARCHS:
            raise UsageError(
                f"arch={arch!r}: there is no such network{nearest(arch, ARCHS)} There are "
                f"{', '.join(ARCHS)}; or give a module that is called with (history, ahead, static)"
            )
        #: What `rebuild` makes it of again.
        self.description = {
            "lookback": lookback, "horizon": horizon, "channels": channels, "features": features,
            "static": static, "arch": arch, **network,
        }  # fmt: skip
        self.lookback, self.horizon = lookback, horizon
        self.linear = nn.Linear(lookback, horizon)
        self.level = nn.Parameter(torch.zeros(horizon))
        self.explained = Explained(features, static) if features + static else None
        self.beside = PastCovariates(lookback, horizon, channels - 1) if channels > 1 else None
        body = {"linear": None, "patch": PatchTransformer, "mixer": PatchMixer}[arch]
        if body is None and network:
            raise UsageError(f"network={network!r:.60}: a linear forecast has no options")
        self.body = None if body is None else body(lookback, horizon, **network)

    def forward(self, history: Tensor, ahead: Tensor, static: Tensor) -> Tensor:
        """N x horizon, in deviations."""
        series = history[..., 0]
        spread = (series - series[:, -1:]).square().mean(1, keepdim=True).sqrt() + _EPS
        explained = None
        if self.explained is not None:
            explained = self.explained(ahead, static) * spread
            series = series - explained[:, : self.lookback]
        last = series[:, -1:]
        series = series - last
        made = self.linear(series) + last * self.level
        if self.body is not None:
            made = made + self.body(series / spread) * spread
        if self.beside is not None:
            made = made + self.beside(history[..., 1:]) * spread
        made = made + last
        return made if explained is None else made + explained[:, self.lookback :]

    def take(self, solution: Solution) -> None:
        """Begin with the linear forecast that was solved."""
        with torch.no_grad():
            self.linear.weight.copy_(solution.weights.T)
            self.linear.bias.zero_()
            self.level.copy_(solution.level)


def rebuild(**description: Any) -> ForecastModel:
    """The model that `ForecastModel.description` described."""
    return ForecastModel(**description)


class Explained(nn.Module):
    """What covariates explain at each step, N x steps: taken from the past, and added ahead.

    It begins as nothing.
    """

    def __init__(self, features: int, static: int, width: int = 32) -> None:
        super().__init__()
        self.inner = nn.Linear(features + static, width)
        self.straight = nn.Linear(features + static, 1, bias=False)
        self.outer = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.straight.weight)

    def forward(self, ahead: Tensor, static: Tensor) -> Tensor:
        """Of N x steps x features, and N x static features."""
        own = static[:, None].expand(-1, ahead.shape[1], -1)
        given = torch.cat([ahead, own], 2)
        made = self.outer(torch.nn.functional.gelu(self.inner(given))) + self.straight(given)
        return made[..., 0]


class PastCovariates(nn.Module):
    """What covariates of the past say of the horizon: a map of low rank, which begins as nothing."""

    def __init__(self, lookback: int, horizon: int, channels: int, rank: int = 8) -> None:
        super().__init__()
        self.seen = nn.Linear(lookback, rank)
        self.said = nn.Linear(rank * channels, horizon)
        nn.init.zeros_(self.said.weight)
        nn.init.zeros_(self.said.bias)

    def forward(self, past: Tensor) -> Tensor:
        """N x horizon of N x lookback x channels."""
        made: Tensor = self.said(self.seen(past.transpose(1, 2)).flatten(1))
        return made


class Patches(nn.Module):
    """Pieces of a window, N x patches x width; its beginning is left out where it is no whole one."""

    def __init__(self, lookback: int, width: int, patch: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = min(patch, lookback), stride
        self.count = (lookback - self.size) // stride + 1
        self.begin = lookback - self.size - (self.count - 1) * stride
        self.embed = nn.Linear(self.size, width)

    def forward(self, series: Tensor) -> Tensor:
        """Of N x lookback."""
        made: Tensor = self.embed(series[:, self.begin :].unfold(1, self.size, self.stride))
        return made


def _head(inputs: int, horizon: int) -> nn.Linear:
    """It begins as nothing: the linear map alone forecasts."""
    head = nn.Linear(inputs, horizon)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class PatchTransformer(nn.Module):
    """An encoder of patches; what it says of all of them becomes the horizon."""

    def __init__(
        self, lookback: int, horizon: int, width: int = 32, layers: int = 2, heads: int = 4,
        patch: int = 16, stride: int = 8, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = Patches(lookback, width, patch, stride)
        self.places = nn.Parameter(torch.randn(self.patches.count, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout)
        self.head = _head(self.patches.count * width, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """N x horizon of N x lookback."""
        made = self.encoder(self.patches(series) + self.places)
        return self.head(self.dropout(made.flatten(1)))  # type: ignore[no-any-return]


class PatchMixer(nn.Module):
    """Layers that mix over patches, and then over features."""

    def __init__(
        self, lookback: int, horizon: int, width: int = 32, layers: int = 2, patch: int = 16,
        stride: int = 8, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patches = Patches(lookback, width, patch, stride)
        self.blocks = nn.ModuleList(_Mix(self.patches.count, width, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = _head(self.patches.count * width, horizon)

    def forward(self, series: Tensor) -> Tensor:
        """N x horizon of N x lookback."""
        made = self.patches(series)
        for block in self.blocks:
            made = block(made)
        return self.head(self.dropout(made.flatten(1)))  # type: ignore[no-any-return]


class _Mix(nn.Module):
    def __init__(self, count: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_patches = _two(count, dropout)
        self.over_features = _two(width, dropout)

    def forward(self, made: Tensor) -> Tensor:
        mixed = self.over_patches(self.first(made).transpose(1, 2)).transpose(1, 2)
        made = made + mixed
        return made + self.over_features(self.second(made))  # type: ignore[no-any-return]


def _two(size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size),
        nn.Dropout(dropout),
    )  # fmt: skip
