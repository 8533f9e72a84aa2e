"""The state of a run in one file: written whole or not at all, read without executing code."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trainbus.errors import CheckpointError
from trainbus.version import __version__

if TYPE_CHECKING:
    from trainbus.run import Run

FORMAT = 1


@runtime_checkable
class Stateful(Protocol):
    """A plugin with a section of its own in every checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep: plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what was kept."""


def state_of(run: Run) -> dict[str, Any]:
    """Model, optimizers, counters, and one section for each plugin that has a `state_dict`."""
    plugins = {
        name: plugin.state_dict()
        for name, plugin in run.bus.plugins.items()
        if isinstance(plugin, Stateful) and not isinstance(plugin, nn.Module)
    }
    return {
        "format": FORMAT,
        "versions": {"trainbus": __version__, "torch": str(torch.__version__)},
        "model": run.task.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "counters": {
            "epoch": run.epochs_done,
            "global_step": run.global_step,
            "skipped_steps": run.skipped_steps,
        },
        "plugins": plugins,
    }


def restore(run: Run, state: dict[str, Any], source: str) -> None:
    """Put a state into the run. Raises `CheckpointError` for a model that does not fit."""
    load_model(run.task, state["model"], source)
    if run.optimizers:
        if len(run.optimizers) != len(state["optimizers"]):
            raise CheckpointError(
                f"{source} holds {len(state['optimizers'])} optimizers, the task has "
                f"{len(run.optimizers)}"
            )
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    for name, value in state["counters"].items():
        setattr(run, name, value)
    run.epochs_done = run.epoch
    for name, plugin in run.bus.plugins.items():
        if name in state["plugins"] and isinstance(plugin, Stateful):
            plugin.load_state_dict(state["plugins"][name])


def load_model(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load weights that fit in every name and shape, else say which do not and change nothing."""
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = {name: tuple(value.shape) for name, value in weights.items()}
    problems = [f"only in the model: {name}" for name in here if name not in there]
    problems += [f"only in the file: {name}" for name in there if name not in here]
    problems += [
        f"{name}: {there[name]} in the file, {here[name]} in the model"
        for name in here
        if name in there and here[name] != there[name]
    ]
    if problems:
        raise CheckpointError(f"{source} does not fit the model:\n  " + "\n  ".join(problems))
    model.load_state_dict(weights)


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a state so that `path` is at any time the old file or the new one, complete.

    Raises:
        CheckpointError: it cannot be written, or holds what could not be read again.
    """
    _check_readable(state, path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise CheckpointError(f"cannot write the checkpoint {path}: {error}") from error


_PLAIN = (str, int, float, bool, complex, bytes, type(None))


def _check_readable(value: Any, where: str) -> None:
    """Refuse what `read` would refuse: anything but tensors and plain values."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_readable(item, f"{where}: {key}")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _check_readable(item, f"{where}: {i}")
    elif type(value) not in _PLAIN and not type(value).__module__.startswith("torch"):
        raise CheckpointError(
            f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values"
        )


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: str | Path) -> dict[str, Any]:
    """Read a state to the CPU. Raises `CheckpointError` when it is missing, damaged or foreign."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {str(path)!r}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, or is damaged; since such a file "
            "may execute code, it is not loaded"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(f"cannot read the checkpoint {path}: {reason}") from error
    if not isinstance(state, dict) or "format" not in state:
        raise CheckpointError(f"{path} is no checkpoint of trainbus")
    if state["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {state['format']}, this trainbus reads up to {FORMAT}; upgrade it"
        )
    return state
