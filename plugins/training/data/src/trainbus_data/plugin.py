"""The plugin `data`: batch transforms on the device."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from trainbus import hookimpl

if TYPE_CHECKING:
    from trainbus import Run


class DataPlugin:
    """Applies the batch transforms of this package's loaders to batches on the device.

    In every stage: what only training is to see is an augmentation. Loaders of others are left
    alone.
    """

    plugin_name = "data"

    @hookimpl(wrapper=True)
    def place_batch(self, run: Run) -> Generator[None, Any, Any]:
        """Transform what was placed."""
        from trainbus.batches import innermost  # it imports torch

        batch = yield
        loader = innermost(run.loader)
        return (
            apply_batch_transforms(batch, loader) if hasattr(loader, "batch_transforms") else batch
        )


def apply_batch_transforms(batch: Any, loader: Any) -> Any:
    """A placed batch after the batch transforms of its loader."""
    for transform in loader.batch_transforms:
        try:
            batch = tuple(transform(batch, loader.kinds))
        except Exception as error:  # its type is kept: it says that memory is out
            name = getattr(transform, "__name__", None) or repr(transform)
            error.add_note(f"in the batch transform {name}")
            raise
    return batch
