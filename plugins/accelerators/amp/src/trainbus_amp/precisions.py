"""The precisions there are, and what a device must compute in for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trainbus.errors import UsageError, nearest

if TYPE_CHECKING:
    import torch

    from trainbus import Accelerator

Name = Literal["bf16", "fp16", "bf16-true", "fp16-true", "fp32", "fp64", "fp8"]

#: Who speaks, in messages.
WHO = "plugin 'amp' (trainbus-amp)"


@dataclass(frozen=True)
class Precision:
    """One way to compute."""

    name: str
    #: The type that the operators, or the model and its batches, get: its name in torch.
    type_name: str
    #: In words, for the run's header.
    meaning: str
    #: Operators that bear it compute in the type; the weights stay as they are. Otherwise the
    #: floating-point tensors of the model and of its batches are converted.
    autocast: bool = False
    #: The loss is scaled, since small gradients would become 0.
    scaled: bool = False
    #: What the device must compute in besides.
    also: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The type itself."""
        import torch

        dtype: torch.dtype = getattr(torch, self.type_name)
        return dtype

    def missing(self, accelerator: Accelerator) -> list[str]:
        """The types it needs that the device does not compute in."""
        there = _names(accelerator)
        return [name for name in (self.type_name, *self.also) if name not in there]

    def check(self, accelerator: Accelerator) -> None:
        """Raise `UsageError` for a device that does not compute in what it needs."""
        if missing := self.missing(accelerator):
            usable = [name for name, each in PRECISIONS.items() if not each.missing(accelerator)]
            raise UsageError(
                f"{WHO}: precision={self.name!r} needs {' and '.join(missing)}, and the "
                f"accelerator {accelerator.name!r} computes in "
                f"{', '.join(sorted(_names(accelerator)))}; usable here: {', '.join(usable)}"
            )


PRECISIONS = {
    each.name: each
    for each in (
        Precision("bf16", "bfloat16", "autocast to bfloat16", autocast=True),
        Precision(
            "fp16", "float16", "autocast to float16, scaled gradients", autocast=True, scaled=True
        ),
        Precision("bf16-true", "bfloat16", "model and batches in bfloat16"),
        Precision("fp16-true", "float16", "model and batches in float16"),
        Precision("fp32", "float32", "model and batches in float32"),
        Precision("fp64", "float64", "model and batches in float64"),
        Precision(
            "fp8",
            "bfloat16",
            "linear layers in float8, autocast to bfloat16 for the rest",
            autocast=True,
            also=("float8_e4m3fn",),
        ),
    )
}


def choose(by_trainer: str | None, by_option: str | None) -> Precision:
    """The precision that was asked for, or bf16.

    Raises:
        UsageError: unknown, or said twice and differently.
    """
    if by_trainer and by_option and by_trainer != by_option:
        raise UsageError(
            f"{WHO}: Trainer(precision={by_trainer!r}) and its option precision={by_option!r} "
            "contradict each other; say one of them"
        )
    name = by_trainer or by_option or "bf16"
    if name not in PRECISIONS:
        raise UsageError(unknown(name))
    return PRECISIONS[name]


def unknown(name: object) -> str:
    """The message for a precision that there is not."""
    return (
        f"{WHO}: precision={name!r} is not known{nearest(str(name), PRECISIONS)} "
        f"There are: {', '.join(PRECISIONS)}"
    )


def _names(accelerator: Accelerator) -> list[str]:
    return [str(dtype).removeprefix("torch.") for dtype in accelerator.dtypes()]
