"""The state that a task keeps beside its modules: schedulers, metrics, scalers, generators."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from trainbus.checkpoints import archive, given, sections
from trainbus.devices import generators
from trainbus.errors import CheckpointError
from trainbus.storage.untrusted import mapping

_OF_TORCH = set(vars(nn.Module()))


class TaskState:
    """All that a task keeps in its attributes, or those of its modules, and that has a state.

    That is whatever has `state_dict` and `load_state_dict` (a scheduler of torch, a scaler); metric
    objects (`update`, `compute` and `reset`), whose attributes are their state; and random
    generators of torch, Python and NumPy. Objects in lists and mappings count. Modules and the
    optimizers of the run are saved as such.

    Args:
        task: what is trained.
        known: objects whose state is kept elsewhere.
    """

    def __init__(self, task: nn.Module, known: Sequence[Any] = ()) -> None:
        self._objects: dict[str, Any] = {}
        self._known = {id(each) for each in known}
        for path, module in task.named_modules():
            for name, value in vars(module).items():
                if name not in _OF_TORCH:
                    self._look(f"{path}.{name}" if path else name, value)
        self._given = {
            name: given.plain(each.state_dict())
            for name, each in self._objects.items()
            if not (_is_metric(each) or generators.is_generator(each))
        }

    def _look(self, path: str, value: Any) -> None:
        if id(value) in self._known or isinstance(value, (str, bytes)):
            return
        keeps_state = not isinstance(value, nn.Module) and _is_stateful(value)
        if keeps_state or _is_metric(value) or generators.is_generator(value):
            self._known.add(id(value))
            self._objects[path] = value
            return
        inside: Iterator[tuple[Any, Any]] | Any = ()
        if isinstance(value, (Mapping, list, tuple)):
            self._known.add(id(value))  # it may hold itself
        if isinstance(value, Mapping):
            inside = value.items()
        elif isinstance(value, (list, tuple)):
            inside = enumerate(value)
        for key, item in inside:
            self._look(f"{path}.{key}", item)

    def random_generators(self) -> list[Any]:
        """The random generators among them."""
        return [each for each in self._objects.values() if generators.is_generator(each)]

    def state_dict(self) -> dict[str, Any]:
        """The state of each, by where it stands in the task."""
        state: dict[str, Any] = {"given": self._given}
        for name, each in self._objects.items():
            if generators.is_generator(each):
                state[name] = generators.state_of(each)
            elif _is_metric(each):
                state[name] = _metric_state(each)
            else:
                state[name] = given.plain(each.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> list[str]:
        """Take up what was kept; returns what is given otherwise now.

        Raises:
            CheckpointError: the task does not keep what was saved.
        """
        sections.check(state, mapping(), "the task")
        before = state.get("given", {})
        sections.check(before, mapping(), "the task, as it was given")
        missing = [name for name in state if name not in self._objects and name != "given"]
        if missing:
            raise CheckpointError(
                f"the checkpoint holds a state of {', '.join(missing)}, which the task does not "
                "keep; was it made of another task?"
            )
        told: list[str] = []
        for name, each in self._objects.items():
            if name not in state:
                continue
            if generators.is_generator(each):
                generators.restore(each, state[name], f"the task, {name}")
                continue
            if _is_metric(each):
                given.put_attributes(each, state[name], f"{name} of the task")
                continue
            values, changes = given.merged(each.state_dict(), before.get(name), state[name])
            given.put(each, values, f"{name} of the task")
            told += given.told(f"{name} of the task", changes)
        return told


def _is_stateful(value: Any) -> bool:
    if isinstance(value, type):
        return False
    return callable(getattr(value, "state_dict", None)) and callable(
        getattr(value, "load_state_dict", None)
    )


def _is_metric(value: Any) -> bool:
    if isinstance(value, type):
        return False
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def _metric_state(metric: Any) -> dict[str, Any]:
    """What a metric object has gathered: those of its attributes that a file can hold."""
    held = vars(metric) if hasattr(metric, "__dict__") else {}
    if isinstance(metric, nn.Module):  # torchmetrics: its states are attributes with a default
        names = [*getattr(metric, "_defaults", {}), "_update_count"]
        held = {name: getattr(metric, name) for name in names if hasattr(metric, name)}
    state = {}
    for name, value in held.items():
        if isinstance(value, (set, frozenset, deque)):
            value = list(value)
        elif hasattr(value, "__array__") and not isinstance(value, torch.Tensor):  # NumPy's
            value = torch.as_tensor(value).clone() if value.dtype.kind in "biuf" else None
        with suppress(CheckpointError):  # what cannot be saved is no number that was gathered
            state.update(archive.plain_tensors({name: given.plain(value)}, "metric"))
    return state
