"""The plugin `vision`: after a validation, a picture of images with targets and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainbus import PluginError, hookimpl
from trainbus.arguments import check_whole

if TYPE_CHECKING:
    from trainbus import Run


class VisionPlugin:
    """Log a picture of validation images, each with its target and what is predicted for it.

    The images are the first ones of the validation data, the same each time, so that the pictures
    of a run show how it learns. It works for the tasks of a learner (`trainbus_learner`), which
    know what their batches are, and, for others, for batches of images and class numbers.

    Args:
        count: images in the picture.
        every: log once in this many epochs: 2 for the first, the third, ...
        name: of the artifact.
    """

    observer = True

    def __init__(self, count: int = 9, every: int = 1, name: str = "validation") -> None:
        check_whole(1, count=count, every=every)
        self.count = count
        self.every = every
        self.name = name
        self._seen: tuple[Any, Any] | None = None

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Say at once if nothing can be drawn."""
        self._seen = None
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise PluginError("vision draws with matplotlib: pip install matplotlib") from None

    @hookimpl
    def on_validation_start(self) -> None:
        """Begin a pass."""
        self._seen = None

    @hookimpl
    def on_validation_batch_end(self, run: Run) -> None:
        """Keep the first images with what the model gave; nothing is fetched from the device."""
        if self._seen is None and run.epoch % self.every == 0 and run.rank == 0:
            self._seen = _first(run.batch, self.count), _first(run.output, self.count)

    @hookimpl
    def on_validation_end(self, run: Run) -> None:
        """Draw what was kept."""
        if self._seen is None:
            return
        (batch, output), self._seen = self._seen, None
        from trainbus_vision.pictures import picture

        figure = picture(batch, output, getattr(run.task, "recipe", None))
        if figure is not None:
            run.log_artifact(self.name, figure, "figure")


def _first(value: Any, count: int) -> Any:
    """The first samples of a batch, not fetched; None for what has no samples."""
    if isinstance(value, (tuple, list)):
        return tuple(_first(each, count) for each in value)
    dimensions: int = getattr(value, "ndim", 0)
    return value.detach()[:count].clone() if dimensions and hasattr(value, "detach") else None
