"""The state of optimizers, by the names of their parameters, beside what was given to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainbus.checkpoints import given, optimizer_values
from trainbus.errors import CheckpointError

#: How a step is computed is a matter of this process and its device, and not of a file.
_COMPUTED = ("foreach", "fused", "capturable", "differentiable")


def options(optimizers: Sequence[Optimizer]) -> list[list[dict[str, Any]]]:
    """The options of each group of each optimizer, as they are now."""
    return [
        [
            {key: given.plain(value) for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        for optimizer in optimizers
    ]


def described(
    optimizers: Sequence[Optimizer], task: nn.Module, at_start: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """What each optimizer is, whose parameters it has, and what was given to it."""
    return [
        {"class": type(optimizer).__name__, "names": _names(optimizer, task), "given": first}
        for optimizer, first in zip(optimizers, at_start, strict=True)
    ]


def fitting(
    optimizers: Sequence[Optimizer],
    task: nn.Module,
    at_start: list[list[dict[str, Any]]],
    saved: Sequence[dict[str, Any]],
    descriptions: Sequence[Mapping[str, Any]],
    source: str,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The saved states, in the order that the parameters have here.

    Returns:
        A state to load for each optimizer; and what is given otherwise now.

    Raises:
        CheckpointError: they are other optimizers, or of other parameters.
    """
    if len(optimizers) != len(saved):
        raise CheckpointError(
            f"{source} holds {len(saved)} optimizers, the task has {len(optimizers)}"
        )
    optimizer_values.check_described(descriptions, saved, source)
    states: list[dict[str, Any]] = []
    told: list[str] = []
    for number, optimizer in enumerate(optimizers):
        about = descriptions[number]
        what = "the optimizer" if len(optimizers) == 1 else f"optimizer {number}"
        if about["class"] != type(optimizer).__name__:
            raise CheckpointError(
                f"{source} holds the state of {about['class']}, {what} of the task is "
                f"{type(optimizer).__name__}; resume with the former, or begin a new run with "
                "load_weights(task, ...)"
            )
        groups = _matched(_names(optimizer, task), about["names"], f"{source}: {what}")
        state = _ordered(saved[number], groups)
        optimizer_values.check(optimizer, state, f"{source}: {what}")
        for index, (there, _) in enumerate(groups):
            group = state["param_groups"][index]
            here = optimizer.param_groups[index]
            group |= {name: here[name] for name in _COMPUTED if name in here}
            more = _given_otherwise(group, about["given"][there], at_start[number][index])
            name = what if len(groups) == 1 else f"{what}, group {index}"
            _check_state(more, f"{source}: {name}")
            told += given.told(name, more)
        states.append(state)
    return states, told


def _names(optimizer: Optimizer, task: nn.Module) -> list[list[str]]:
    """The names of the parameters of each group; those that are not the task's by their place."""
    known = {id(parameter): name for name, parameter in task.named_parameters()}
    return [
        [known.get(id(p), f"parameter {i} of group {g}") for i, p in enumerate(group["params"])]
        for g, group in enumerate(optimizer.param_groups)
    ]


def _matched(
    here: list[list[str]], there: list[list[str]], what: str
) -> list[tuple[int, list[int]]]:
    """For each group here the group that it was, and where its parameters stood in the state."""
    places: dict[str, tuple[int, int]] = {}
    for index, names in enumerate(there):
        for name in names:
            places[name] = (index, len(places))
    new = [name for names in here for name in names if name not in places]
    gone = sorted(set(places) - {name for names in here for name in names})
    if new or gone:
        lines = [f"only in the task: {name}" for name in new]
        lines += [f"only in the checkpoint: {name}" for name in gone]
        raise CheckpointError(
            f"{what} has other parameters than it had:\n  " + "\n  ".join(lines[:20])
        )
    groups: list[tuple[int, list[int]]] = []
    for names in here:
        before = sorted({places[name][0] for name in names})
        if len(before) > 1 or (names and len(names) != len(there[before[0]])):
            raise CheckpointError(
                f"{what} has groups of {[len(each) for each in here]} parameters, the checkpoint "
                f"of {[len(each) for each in there]}, with others in them"
            )
        groups.append((before[0] if before else len(groups), [places[name][1] for name in names]))
    return groups


def _ordered(saved: dict[str, Any], groups: list[tuple[int, list[int]]]) -> dict[str, Any]:
    """A saved state with its groups and parameters in another order."""
    state: dict[int, Any] = {}
    made: list[dict[str, Any]] = []
    count = 0
    for there, places in groups:
        indices = list(range(count, count + len(places)))
        count += len(places)
        made.append({**saved["param_groups"][there], "params": indices})
        for index, place in zip(indices, places, strict=True):
            if place in saved["state"]:
                state[index] = saved["state"][place]
    return {**saved, "state": state, "param_groups": made}


def _check_state(changes: list[given.Change], what: str) -> None:
    """Raise `CheckpointError` for an option that needs what was not gathered without it."""
    for key, then, now, _ in changes:
        if key in ("amsgrad", "centered") and now and not then:
            raise CheckpointError(
                f"{what}: {key} was given as {then!r} and is given as {now!r} now, for which the "
                "checkpoint has no state; give what was given then, or begin a new run with "
                "load_weights(task, ...)"
            )


def _given_otherwise(
    group: dict[str, Any], then: Mapping[str, Any], now: Mapping[str, Any]
) -> list[given.Change]:
    """Use what is given otherwise now, where training has not changed it."""
    changes: list[given.Change] = []
    for key, value in now.items():
        if key not in then or key not in group or given.same(then[key], value):
            continue
        if given.same(group[key], then[key]):
            group[key] = tuple(value) if isinstance(group[key], tuple) else value
        if key == "lr" and "initial_lr" in group and given.same(group["initial_lr"], then[key]):
            group["initial_lr"] = value
        changes.append((key, then[key], value, group[key]))
    return changes
