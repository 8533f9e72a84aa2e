"""Heads: from what a body gives to the outputs that a target needs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainbus import UsageError
from trainbus.arguments import check_number
from trainbus_vision.body import Body

#: Numbers in the layer between body and outputs.
_HIDDEN = 512


class ConcatPool(nn.Module):
    """The mean and the maximum of each map, one after the other: N x F x h x w -> N x 2F."""

    def forward(self, maps: Tensor) -> Tensor:
        """Pool over all pixels, whatever their number."""
        return torch.cat((maps.mean((2, 3)), maps.amax((2, 3))), dim=1)


def make_head(body: Body, outputs: int, dropout: float) -> nn.Sequential:
    """The head of a classifier.

    With dropout it is the usual one for transfer, laid out as in fastai (Howard and Gugger, 2020):
    pooling by mean and maximum, batch norm, half the dropout, a linear layer of 512, ReLU, batch
    norm, dropout, a linear layer. The linear layer before the ReLU begins as He et al. (2015) say.
    Without dropout it is what networks have that are trained from scratch: the mean, and one linear
    layer. A body that gives a vector is not pooled.

    Args:
        body: what comes before.
        outputs: numbers to give for one image.
        dropout: the part of the numbers that is dropped before the last layer.
    """
    check_number(0, UsageError, below=1, dropout=dropout)
    if not dropout:
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        pool: nn.Module = mean if body.gives_maps else nn.Identity()
        return nn.Sequential(pool, nn.Linear(body.features, outputs))
    pool = ConcatPool() if body.gives_maps else nn.Identity()
    width = 2 * body.features if body.gives_maps else body.features
    hidden = nn.Linear(width, _HIDDEN, bias=False)
    nn.init.kaiming_normal_(hidden.weight, nonlinearity="relu")
    return nn.Sequential(
        pool,
        nn.BatchNorm1d(width),
        nn.Dropout(dropout / 2),
        hidden,
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(_HIDDEN),
        nn.Dropout(dropout),
        nn.Linear(_HIDDEN, outputs),
    )
