"""A model and its batches in another floating-point type, and the model's way back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: The method of a module by the type; unlike `Module.to` they leave complex numbers alone.
_METHODS = {"bfloat16": "bfloat16", "float16": "half", "float32": "float", "float64": "double"}


class Conversion:
    """Converts the floating-point parameters and buffers of a model, in place.

    Args:
        model: what is converted; its parameters stay the same objects.
        type_name: "bfloat16", "float16", "float32" or "float64".
        keep: keep the tensors as they were, for a run that does not change them.
    """

    def __init__(self, model: nn.Module, type_name: str, keep: bool) -> None:
        import torch

        self._dtype = getattr(torch, type_name)
        self._parameters = [
            (parameter, parameter.dtype, parameter.data if keep else None)
            for parameter in model.parameters()
            if self._changes(parameter)
        ]
        self._buffers = [
            (module, name, buffer.dtype, buffer if keep else None)
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if self._changes(buffer)
        ]
        getattr(model, _METHODS[type_name])()

    def _changes(self, tensor: Tensor) -> bool:
        return tensor.is_floating_point() and tensor.dtype != self._dtype

    def undo(self) -> None:
        """Put types back, with the values of now or those that were kept."""
        for parameter, dtype, kept in self._parameters:
            gradient, parameter.grad = parameter.grad, None
            parameter.data = parameter.data.to(dtype) if kept is None else kept
            if gradient is not None:
                parameter.grad = gradient.to(dtype)
        for module, name, dtype, kept in self._buffers:
            present = getattr(module, name, None)
            if present is not None and present.dtype == self._dtype:
                setattr(module, name, present.to(dtype) if kept is None else kept)
        self._parameters, self._buffers = [], []


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """The same batch with its floating-point tensors in `dtype`, walked through as by the core."""
    from torch import Tensor

    from trainbus.batches import rebuilt

    def converted(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        return value.to(dtype) if value.is_floating_point() else value

    return rebuilt(batch, converted)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Generator[None, None, None]:
    """Let tensors that are made inside, `torch.randn(3)` for example, be of this type."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
