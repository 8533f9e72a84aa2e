"""Which targets do not count: what the loss leaves out, metrics and reports leave out, too."""

from __future__ import annotations

from typing import Any

from torch.nn import functional

from trainbus_data.metrics import IGNORED


def ignored(loss: Any, target: Any) -> int | None:
    """The index of a class that does not count: in a mask, or in the loss."""
    found = getattr(target, "ignore", None)
    if found is None and hasattr(loss, "func"):  # a partial
        found = loss.keywords.get("ignore_index", ignored(loss.func, target))
    found = getattr(loss, "ignore_index", None) if found is None else found
    return IGNORED if found is None and loss is functional.cross_entropy else found
