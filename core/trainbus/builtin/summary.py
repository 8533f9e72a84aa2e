"""Tell what the model is made of: layers, output shapes, parameters, size."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError
from trainbus.events.markers import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")

_COLUMNS = ("layer", "type", "output shape", "trainable", "frozen", "size (MB)")
_SHAPE_WIDTH = 60


class Summary:
    """Make a table of the model's layers once the first training batch has gone through it.

    The output shapes are those of that batch: no batch is made up and none is run twice. The table
    goes to Python's `logging` under `trainbus` and, as the artifact `summary`, to the loggers.

    A layer's numbers include those of the layers inside it. A module or parameter that is used
    twice is counted once, under its first name.

    Args:
        depth: levels of modules to show below the task; 0 shows the task alone.
        show: print the table, too.
    """

    observer = True

    def __init__(self, depth: int = 2, show: bool = False) -> None:
        if depth < 0:
            raise PluginError(f"depth={depth}: give a whole number of at least 0")
        self.depth = depth
        self.show = show
        #: The table of the last fit.
        self.text = ""
        self._shapes: dict[str, str] = {}
        self._handles: list[RemovableHandle] = []

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Tell the size of the model in the header."""
        if run.stage == "train":
            count, size = _count(_of(run.task, "parameters")), _megabytes(run.task)
            run.header["model"] = f"{run.name}, {count:,} parameters, {size:,.2f} MB"

    @hookimpl(rank_zero=True)
    def on_fit_start(self, run: Run) -> None:
        """Look at the outputs of the layers from now on."""
        self.text = ""
        self._shapes = {}
        for name, module in self._shown(run.task):
            self._handles.append(module.register_forward_hook(self._noting(name)))

    @hookimpl(once=True, rank_zero=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Look away, and tell."""
        self._remove_hooks()
        self.text = self._table(run.task)
        logger.info("the model:\n%s", self.text)
        run.log_artifact("summary", self.text, "text")
        if self.show:
            print(self.text)

    @hookimpl
    def on_run_end(self) -> None:
        """Look away, also when the first batch failed."""
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _shown(self, task: nn.Module) -> list[tuple[str, nn.Module]]:
        return [
            (name, module)
            for name, module in task.named_modules()
            if (name.count(".") + 1 if name else 0) <= self.depth
        ]

    def _noting(self, name: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            self._shapes.setdefault(name, _shape(output))

        return note

    def _table(self, task: nn.Module) -> str:
        rows = [_COLUMNS]
        for name, module in self._shown(task):
            shape = self._shapes.get(name, "-")
            inside = f"{name}." if name else ""
            rows.append((name or "(all)", type(module).__name__, shape, *_numbers(task, inside)))
        widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
        lines = [
            "| " + " | ".join(
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ) + " |"
            for row in rows
        ]  # fmt: skip
        rule = [f"{'-' * (width - 1)}{'-' if i < 3 else ':'}" for i, width in enumerate(widths)]
        lines.insert(1, "| " + " | ".join(rule) + " |")
        parameters = _of(task, "parameters")
        trainable, total = _count(parameters, trainable=True), _count(parameters)
        lines += [
            "",
            f"{total:,} parameters: {trainable:,} trainable, {total - trainable:,} frozen; "
            f"{_megabytes(task):,.2f} MB with buffers",
        ]
        return "\n".join(lines)


def _numbers(task: nn.Module, inside: str) -> tuple[str, str, str]:
    """Trainable and frozen parameters, and megabytes, of what has names that begin so."""
    parameters = _of(task, "parameters", inside)
    trainable = _count(parameters, trainable=True)
    return (
        f"{trainable:,}",
        f"{_count(parameters) - trainable:,}",
        f"{_megabytes(task, inside):,.2f}",
    )


def _of(task: nn.Module, kind: str, inside: str = "") -> list[Tensor]:
    """Parameters or buffers, each once under its first name; those without a shape yet left out."""
    from torch.nn.parameter import is_lazy

    named = getattr(task, f"named_{kind}")()
    return [value for name, value in named if name.startswith(inside) and not is_lazy(value)]


def _count(tensors: list[Tensor], trainable: bool = False) -> int:
    return sum(each.numel() for each in tensors if each.requires_grad or not trainable)


def _megabytes(task: nn.Module, inside: str = "") -> float:
    tensors = _of(task, "parameters", inside) + _of(task, "buffers", inside)
    return sum(each.numel() * each.element_size() for each in tensors) / 1e6


def _shape(output: Any) -> str:
    """The shapes of the tensors in an output, nested as they are."""
    text = _nested(output)
    return text if len(text) <= _SHAPE_WIDTH else text[: _SHAPE_WIDTH - 3] + "..."


def _nested(output: Any) -> str:
    if hasattr(output, "shape"):
        return str(tuple(output.shape))
    if isinstance(output, Mapping):
        return "{" + ", ".join(f"{key}: {_nested(value)}" for key, value in output.items()) + "}"
    if isinstance(output, Sequence) and not isinstance(output, str):
        return "[" + ", ".join(_nested(value) for value in output) + "]"
    return type(output).__name__
