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
        batch = yield
        loader: Any = run.loader
        while not hasattr(loader, "batch_transforms"):
            # The first batches of a loader, or one that an accelerator wrapped.
            loader = getattr(loader, "loader", None)
            if loader is None:
                return batch
        return apply_batch_transforms(batch, loader)


def apply_batch_transforms(batch: Any, loader: Any) -> Any:
    """A placed batch after the batch transforms of its loader."""
    for transform in loader.batch_transforms:
        try:
            batch = tuple(transform(batch, loader.kinds))
        except Exception as error:  # of its own type still: what is out of memory is told by it
            name = getattr(transform, "__name__", None) or repr(transform)
            error.add_note(f"in the batch transform {name}")
            raise
    return batch
