"""A vendor's device, as its plugin would have it: the CPU, which says that it is another chip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainbus import Accelerator


class Device(Accelerator):
    """Counts what the loop asks of it."""

    name = "acme_chip"
    priority = 100

    def __init__(self) -> None:
        super().__init__("cpu")
        self.asked = dict.fromkeys(("module", "batch", "loader", "optimizer_step", "save"), 0)

    def dtypes(self) -> frozenset[torch.dtype]:
        return frozenset({torch.float32, torch.bfloat16})

    def place_module(self, module: nn.Module) -> nn.Module:
        self.asked["module"] += 1
        return super().place_module(module)

    def place_batch(self, batch: Any) -> Any:
        self.asked["batch"] += 1
        return super().place_batch(batch)

    def wrap_loader(self, loader: Iterable[Any]) -> Iterable[Any]:
        self.asked["loader"] += 1
        return super().wrap_loader(loader)

    def step_boundary(self, boundary: str) -> None:
        if boundary in self.asked:
            self.asked[boundary] += 1
