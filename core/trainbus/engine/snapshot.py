"""What is put back when something is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

#: Modules, and whether each is in training mode.
Modes = list[tuple[nn.Module, bool]]


def modes(module: nn.Module) -> Modes:
    """Which of its modules are in training mode."""
    return [(each, each.training) for each in module.modules()]


def set_modes(wanted: Modes) -> Modes:
    """Set modes; returns those that were."""
    before = [(each, each.training) for each, _ in wanted]
    for each, mode in wanted:
        each.training = mode
    return before


@contextmanager
def same_modes(module: nn.Module) -> Iterator[None]:
    """Put back which of its modules are in training mode."""
    found = modes(module)
    try:
        yield
    finally:
        set_modes(found)


def in_evaluation_mode(module: nn.Module) -> str:
    """The modules that are in evaluation mode, in words: the outermost of each branch."""
    names: list[str] = []

    def look(name: str, part: nn.Module) -> None:
        if not part.training and not any(each.training for each in part.modules()):
            names.append(name or "the whole model")
            return
        for child, inner in part.named_children():
            look(f"{name}.{child}" if name else child, inner)

    look("", module)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
