"""Quantiles beside forecasts, from what was wrong on windows that were not trained on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_learner.evaluation import outputs, validation_of
from trainbus_series.target import FLOOR, SPREAD

#: Fewer windows than these do not tell the quantiles of each step alone.
_FEW = 200


def offsets(learner: Any) -> Tensor:
    """Where quantiles lie beside forecasts, quantiles x horizon, in what a window spreads.

    Split conformal prediction (Vovk et al., 2005) of errors in the spread of their window, so that
    quiet times have narrow intervals. Where there are few windows, the steps share one
    distribution, wide as the errors of each step are.
    """
    target = learner.source.target
    found = learner.source.valid
    loader = validation_of(learner, "train" if found is None else "valid", "calibrate")
    errors = torch.cat(
        [
            (wanted.double() - made.double()) / (about[:, SPREAD, None] + FLOOR)
            for _, (wanted, about), made in outputs(learner, loader)
        ]
    ).cpu()
    levels = torch.tensor(target.quantiles, dtype=torch.float64)
    if (~torch.isnan(errors)).sum(0).min() >= _FEW:
        return errors.nanquantile(levels, 0).contiguous()
    width = errors.square().nanmean(0).sqrt().nan_to_num(0.0)
    known = width > 0
    if not known.any():
        return torch.zeros(len(levels), errors.shape[1], dtype=torch.float64)
    width = torch.where(known, width, width[known].mean())
    shared = (errors / width).flatten()
    return shared.nanquantile(levels)[:, None] * width
