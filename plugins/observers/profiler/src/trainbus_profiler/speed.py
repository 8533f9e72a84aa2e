"""How much work a batch is: tokens, floating-point operations, and what the device could do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from trainbus import Run


def tokens_in(batch: Any, key: str | None) -> int:
    """Tokens in a batch: the elements of one tensor of it, padding included; 0 without one.

    Args:
        batch: a mapping of tensors.
        key: the tensor's name; None for `input_ids`, where there is one.
    """
    if not isinstance(batch, Mapping) and not hasattr(batch, "input_ids"):
        return 0
    name = key or "input_ids"
    tensor: Any = batch.get(name) if isinstance(batch, Mapping) else getattr(batch, name, None)
    return int(tensor.numel()) if hasattr(tensor, "numel") else 0


class FlopCount:
    """Counts the floating-point operations of one batch: its forward and its backward pass."""

    def __init__(self) -> None:
        #: Of the batch that was counted; None before.
        self.flops: int | None = None
        #: The type in which matrices were multiplied in it.
        self.dtype: torch.dtype | None = None
        #: A batch is being counted.
        self.on = False
        self._inside = False

    @contextmanager
    def counting(self, run: Run) -> Iterator[None]:
        """Add what is computed inside, while it is on; nested, the outermost counts."""
        if not self.on or self._inside:
            yield
            return
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        kind = run.device.type
        if torch.is_autocast_enabled(kind):
            self.dtype = torch.get_autocast_dtype(kind)
        self._inside = True
        try:
            with FlopCounterMode(display=False) as counter:
                yield
        finally:
            self._inside = False
        self.flops = (self.flops or 0) + counter.get_total_flops()

    def peak(self, run: Run) -> float | None:
        """Floating-point operations that the device could make in a second, where it is known."""
        if self.dtype is None:
            floating = [p.dtype for p in run.model.parameters() if p.dtype.is_floating_point]
            if not floating:
                return None
            self.dtype = floating[0]
        return run.accelerator.peak_flops(self.dtype)
