"""Linear layers whose matrices are multiplied in float8, through torchao."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError, UsageError
from trainbus_amp.precisions import WHO

if TYPE_CHECKING:
    from torch import nn

#: The units of float8 take matrices whose sides are multiples of this.
_MULTIPLE = 16


def check() -> None:
    """Raise `PluginError` if torchao is not installed."""
    if find_spec("torchao") is None:
        raise PluginError(f"{WHO}: precision='fp8' needs torchao: pip install 'torchao>=0.12'")


class Float8:
    """Replaces the linear layers of a model, which keep their weights; and puts them back.

    Raises:
        UsageError: the model has no linear layer that float8 can take.
    """

    def __init__(self, model: nn.Module) -> None:
        torchao = import_module("torchao.float8")
        self._linears = [
            (parent, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
            if _suits(child)
        ]
        if not self._linears:
            raise UsageError(
                f"{WHO}: precision='fp8' finds no nn.Linear in {type(model).__name__} whose sizes "
                f"are multiples of {_MULTIPLE}"
            )
        convert = torchao.convert_to_float8_training
        convert(model, module_filter_fn=lambda module, _name: _suits(module))

    def undo(self) -> None:
        """Put the layers back that the model had; they have the weights of now."""
        for parent, name, linear in self._linears:
            setattr(parent, name, linear)
        self._linears = []


def _suits(module: Any) -> bool:
    from torch import nn

    return (
        type(module) is nn.Linear
        and module.in_features % _MULTIPLE == 0
        and module.out_features % _MULTIPLE == 0
    )
