"""What holds for the whole process: TF32 and cuDNN; set for a run, and put back."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


class Settings:
    """TF32 and cuDNN as a run wants them.

    torch has two ways to ask for TF32, and refuses to read the older one when the newer was used
    (`torch.backends.*.fp32_precision`). Much of torch (its compiler among others) reads the older
    one, so that one is set; both are put back.
    """

    def __init__(self, tf32: bool, cudnn_benchmark: bool) -> None:
        self.tf32 = tf32
        self.cudnn_benchmark = cudnn_benchmark
        self._matmul: str | None = None
        self._cudnn: bool | None = None
        with suppress(RuntimeError):  # the newer way was used
            self._matmul = torch.get_float32_matmul_precision()
        with suppress(RuntimeError):
            self._cudnn = torch.backends.cudnn.allow_tf32
        self._newer = _own_precisions()
        self._benchmark = torch.backends.cudnn.benchmark

    def apply(self) -> None:
        """Set them."""
        for place, _ in self._newer:  # or the older way may not be used
            place.fp32_precision = "none"
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.cudnn_benchmark

    def put_back(self) -> None:
        """Set them to what they were."""
        torch.backends.cudnn.benchmark = self._benchmark
        if self._matmul is not None:
            torch.set_float32_matmul_precision(self._matmul)
        if self._cudnn is not None:
            torch.backends.cudnn.allow_tf32 = self._cudnn
        _set(self._newer)


def _own_precisions() -> list[tuple[Any, str]]:
    """What each place was set to itself; "none" where it inherits."""
    found = []
    for place in _places():
        found.append((place, place.fp32_precision))
        place.fp32_precision = "none"  # so that its parts tell what is their own
    _set(found)
    return found


def _set(precisions: list[tuple[Any, str]]) -> None:
    # The whole at last: torch takes what is set of oneDNN for all of it.
    for place, precision in reversed(precisions):
        place.fp32_precision = precision


def _places() -> list[Any]:
    backends: Any = torch.backends
    # The wholes before their parts, which inherit from them.
    return [
        backends, backends.cudnn, backends.mkldnn,
        backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul,
    ]  # fmt: skip
