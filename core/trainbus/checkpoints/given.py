"""What a user gave, beside what training made of it.

What was given is configuration, what training makes is state. A state is saved with what was given
at the start; when another run goes on from it, what is given otherwise now is used, and told.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any

import torch
from torch import Tensor

from trainbus.checkpoints import sections
from trainbus.errors import CheckpointError, TrainbusError
from trainbus.storage.untrusted import mapping, text

#: Where it stands, what was given then, what is given now, what is used.
Change = tuple[str, Any, Any, Any]


def plain(value: Any) -> Any:
    """A state without functions, which the next object of the kind brings, in plain containers."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if not callable(item)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.detach().clone() if isinstance(value, Tensor) else value


def merged(fresh: Any, given: Any, saved: Any, where: str = "") -> tuple[Any, list[Change]]:
    """A saved state for an object made anew, in the containers that it has.

    Args:
        fresh: the state of the object as it was made now.
        given: that of the object of before as it was made, in plain containers.
        saved: that of the object of before when it was saved.
        where: the name of the place, for changes.

    Returns:
        The saved state with what is given otherwise now; and what that is.
    """
    if isinstance(fresh, dict) and isinstance(saved, dict) and not isinstance(fresh, Counter):
        given = given if isinstance(given, dict) else {}
        result: dict[Any, Any] = {}
        changes: list[Change] = []
        for key in {**saved, **fresh}:
            if key not in fresh or key not in saved:
                result[key] = saved.get(key, fresh.get(key))
                continue
            name = f"{where}.{key}" if where else str(key)
            result[key], more = merged(fresh[key], given.get(key, fresh[key]), saved[key], name)
            changes += more
        return result, changes
    if isinstance(fresh, list) and isinstance(saved, list) and len(fresh) == len(saved):
        pairs = zip(fresh, given if _same_size(given, fresh) else fresh, saved, strict=True)
        items = [merged(*each, where) for each in pairs]
        return [item for item, _ in items], [change for _, more in items for change in more]
    if not same(fresh, given):
        now = plain(fresh)
        return fresh, [(where, given, now, now)]
    return (Counter(saved) if isinstance(fresh, Counter) else saved), []


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, whatever container they are in."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
            return False
        return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def put(owner: Any, state: Any, what: str) -> None:
    """Have an object take up a state of a file: values, and nothing in place of what it can do.

    Raises:
        CheckpointError: the state names a method, or is that of something else.
    """
    for name in state if isinstance(state, dict) else ():
        if callable(getattr(type(owner), str(name), None)) or str(name).startswith("__"):
            raise CheckpointError(f"{what}: the state of the checkpoint has a value for {name!r}")
    take_up(owner, state, what)


def take_up(owner: Any, state: Any, what: str) -> None:
    """Have an object load a state. Raises `CheckpointError` where it is that of something else."""
    try:
        owner.load_state_dict(state)
    except TrainbusError:
        raise
    except Exception as error:  # of any kind: it expects what it wrote itself
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{what} cannot read its state: {reason}") from error


def put_attributes(metric: Any, state: Any, what: str) -> None:
    """Give a metric object the attributes that a file keeps of it: values, and no methods.

    Raises:
        CheckpointError: the state names a method, or is none.
    """
    sections.check(state, mapping(key=text(form=r"(?!__)\w+")), what)
    for name, value in state.items():
        fresh = getattr(metric, name, None)
        if callable(fresh) or callable(getattr(type(metric), name, None)):
            raise CheckpointError(f"{what}: the state of the checkpoint has a value for {name!r}")
        if isinstance(fresh, torch.Tensor) and isinstance(value, torch.Tensor):
            value = value.to(fresh.device)
        elif hasattr(fresh, "__array__") and isinstance(value, torch.Tensor):
            value = value.numpy()
        elif isinstance(fresh, defaultdict):
            fresh.clear()
            fresh.update(value)
            continue
        elif isinstance(fresh, (dict, set, frozenset, deque, tuple)) and value is not None:
            value = type(fresh)(value)
        setattr(metric, name, value)


def told(what: str, changes: list[Change]) -> list[str]:
    """Each change as a sentence."""
    return [
        f"{what}: {name} was given as {then!r:.60} and is given as {now!r:.60} now; "
        f"{used!r:.60} is used"
        for name, then, now, used in changes
        if not any(part.startswith("_") for part in name.split("."))
    ]


def _same_size(one: Any, other: Any) -> bool:
    return isinstance(one, (list, tuple)) and len(one) == len(other)
