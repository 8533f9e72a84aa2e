"""What stands for the blocks of `trainbus_data` where a learner has a plain pair of loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

TargetKind = Literal["category", "categories", "number"]


class PlainInput:
    """Tensors that are given ready for the model, and shown as images where they look like one."""

    kind = "tensor"

    def decode(self, value: Tensor) -> Tensor:
        """The tensor itself."""
        return value

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """An image for C x H x W or H x W, a curve for one dimension, else the shape."""
        shown = torch.as_tensor(value).detach().cpu()
        if shown.dtype != torch.uint8:
            shown = shown.float()
        if shown.ndim == 3 and shown.shape[0] == 1:
            shown = shown[0]
        if shown.ndim == 3 and shown.shape[0] == 3:
            low, high = shown.min(), shown.max()
            scaled = shown if shown.dtype == torch.uint8 else (shown - low) / (high - low + 1e-9)
            axes.imshow(scaled.permute(1, 2, 0).numpy())
        elif shown.ndim == 2:
            axes.imshow(shown.numpy(), cmap="gray")
        elif shown.ndim == 1:
            axes.plot(shown.numpy())
        else:
            axes.text(0.5, 0.5, "x".join(map(str, shown.shape)), ha="center", va="center")


class PlainTarget:
    """How the outputs of a model are read whose target is known by the loss alone.

    Args:
        kind: "category" (indices, softmax), "categories" (zeros and ones, sigmoid) or "number".
    """

    def __init__(self, kind: TargetKind) -> None:
        self.kind = kind
        self.outputs: int | None = None

    def __repr__(self) -> str:
        return f"PlainTarget({self.kind!r})"

    @classmethod
    def of_loss(cls, loss: Callable[..., Any] | str) -> PlainTarget:
        """The target that a loss is for: cross-entropy, binary cross-entropy, or any other."""
        if isinstance(loss, str):  # those that have a name are for one class of several
            return cls("category")
        while isinstance(loss, partial):
            loss = loss.func
        if loss is functional.cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
            return cls("category")
        if loss is functional.binary_cross_entropy_with_logits or isinstance(
            loss, nn.BCEWithLogitsLoss
        ):
            return cls("categories")
        return cls("number")

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities, or the output as it is."""
        if self.kind == "category":
            return output.softmax(dim=1)
        return output.sigmoid() if self.kind == "categories" else output

    def read(self, probabilities: Tensor) -> Tensor:
        """The most probable index, zeros and ones, or the numbers."""
        if self.kind == "category":
            return probabilities.argmax(dim=1)
        return (probabilities > 0.5).float() if self.kind == "categories" else probabilities

    def decode(self, value: Tensor) -> Any:
        """A number, the indices of the labels that are there, or a list."""
        if self.kind == "categories":
            return value.nonzero().flatten().tolist()
        return value.tolist()

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """The value, in the title."""
        shown = self.decode(value) if isinstance(value, Tensor) else value
        before = axes.get_title()
        text = f"{shown:.4g}" if isinstance(shown, float) else str(shown)
        axes.set_title(f"{before}\n{text}" if before else text, color=color or "black", fontsize=9)

    def state(self) -> dict[str, Any]:
        """JSON values: enough to read outputs in a fresh process."""
        return {"plain": self.kind}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PlainTarget:
        """What `state` described."""
        return cls(state["plain"])
