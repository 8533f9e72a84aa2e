"""A program through torch.compile: one function for tensors of all lengths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_optim.generate import pure
from trainbus_optim.runs import Wide
from trainbus_optim.variants import Variant, Variants


class Compiled(Wide):
    """Tensor by tensor, each as one fused pass over memory.

    A tensor of any length goes through the same code: it is compiled once for each program, which
    takes seconds, and not again when the rate changes, since numbers are given as tensors.
    """

    def __init__(self, variants: Variants, lists: dict[str, Any]) -> None:
        super().__init__(variants, lists)
        self._flat: dict[str, list[Tensor]] = {}
        self._addresses: list[int] = []

    def begin(
        self, gradients: list[Tensor], group: dict[str, Any], count: int, host: dict[str, float]
    ) -> Variant:
        """As in lists."""
        addresses = [each.data_ptr() for each in self.lists["p"]]
        if addresses != self._addresses:
            self._flat, self._addresses = {}, addresses
        same = [
            g if g.stride() == p.stride() else torch.empty_like(p, dtype=g.dtype).copy_(g)
            for g, p in zip(gradients, self.lists["p"], strict=True)
        ]
        return super().begin(same, group, count, host)

    def run(self, index: int) -> None:
        """Run a segment; pointwise programs have one."""
        assert self.variant is not None
        function, plain, names = _function(self.variant, index)
        device = self.lists["p"][0].device
        numbers = torch.tensor(self.numbers or (0.0,), dtype=torch.float64)
        double = self.lists["p"][0].dtype == torch.float64
        numbers = numbers.to(device, torch.float64 if double else torch.float32, non_blocking=True)
        columns = [self._column(name) for name in names]
        for item in zip(*columns, strict=True):
            if item[0].numel() > 1:
                function(numbers, *item)
            else:  # a length of 0 or 1 would be compiled for itself
                plain(numbers, *item)

    def _column(self, name: str) -> list[Tensor]:
        if name not in self.lists:
            return [_flattened(each) for each in self.registers[name]]
        if name not in self._flat:
            self._flat[name] = [_flattened(each) for each in self.lists[name]]
        return self._flat[name]


def _flattened(tensor: Tensor) -> Tensor:
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _function(variant: Variant, index: int) -> tuple[Any, Any, list[str]]:
    """The function of a segment, compiled and as it is, and the registers that it takes."""
    if index not in variant.compiled:
        plain, names = pure(variant.program, index)
        variant.compiled[index] = torch.compile(plain, dynamic=True), plain, names
    return variant.compiled[index]
