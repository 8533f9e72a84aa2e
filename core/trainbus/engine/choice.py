"""Which device a run uses, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from trainbus.devices.accelerator import Accelerator
from trainbus.errors import UsageError, nearest
from trainbus.plugins.discovery import Installed, known_distributions


class Current(Accelerator):
    """The accelerator that this build of torch is for, whatever it is, or the CPU."""

    priority = 10

    def __init__(self) -> None:
        found = torch.accelerator.current_accelerator()
        super().__init__(found.type if found is not None else "cpu")


def choose(wanted: str | Accelerator, offered: Sequence[Accelerator]) -> tuple[Accelerator, str]:
    """The accelerator that `wanted` means, and why it was taken.

    Args:
        wanted: an accelerator, its name, or "auto".
        offered: those of plugins; the CPU and what torch reports are always there.

    Raises:
        UsageError: unknown, not installed, not available, or offered by two plugins under one name.
    """
    candidates = _candidates(offered)
    if wanted == "cpu":  # to ask the others may wake a driver, with which no process can be forked
        return candidates["cpu"], "asked for by name"
    reasons = {name: each.unavailable() for name, each in candidates.items()}
    usable = [each for name, each in candidates.items() if reasons[name] is None]
    if isinstance(wanted, Accelerator):
        if reason := wanted.unavailable():
            raise UsageError(_unavailable(wanted.name, reason, usable))
        return wanted, "given as an object"
    if not isinstance(wanted, str):
        raise UsageError(f"accelerator={wanted!r}: give a name, 'auto', or an Accelerator")
    if wanted == "auto":
        return _best(usable, {each.name: reasons[each.name] for each in offered})
    if wanted not in candidates:
        raise UsageError(_unknown(wanted, candidates, usable))
    if reason := reasons[wanted]:
        raise UsageError(_unavailable(wanted, reason, usable))
    return candidates[wanted], "asked for by name"


def _candidates(offered: Sequence[Accelerator]) -> dict[str, Accelerator]:
    """All there is by name; what a plugin offers takes the place of the core's of that name."""
    candidates: dict[str, Accelerator] = {"cpu": Accelerator()}
    current = Current()
    candidates.setdefault(current.name, current)
    claimed: dict[str, Accelerator] = {}
    for each in offered:
        if not isinstance(each, Accelerator):
            raise UsageError(
                f"provide_accelerator returned {each!r:.80}; return a trainbus.Accelerator or None"
            )
        if other := claimed.get(each.name):
            raise UsageError(
                f"two plugins offer the accelerator {each.name!r}: "
                f"{_where(other)} and {_where(each)}; switch one off"
            )
        claimed[each.name] = candidates[each.name] = each
    return candidates


def _where(accelerator: Accelerator) -> str:
    return f"{type(accelerator).__module__}.{type(accelerator).__qualname__}"


def _best(
    usable: Sequence[Accelerator], offered: Mapping[str, str | None]
) -> tuple[Accelerator, str]:
    """The usable one of the highest priority, and why; others with why they are not available."""
    missing = [f"{name} is not available: {why}" for name, why in offered.items() if why]
    if not usable:  # a plugin took the place of the CPU
        raise UsageError(f"accelerator='auto': {'; '.join(missing)}")
    best = max(usable, key=lambda each: each.priority)
    others = [each.name for each in usable if each is not best]
    why = f"auto, before {', '.join(others)}" if others else "auto, the only one"
    return best, "; ".join([why, *missing])


def _unavailable(name: str, reason: str, usable: Sequence[Accelerator]) -> str:
    return f"accelerator={name!r} is not available: {reason}. {_listed(usable)}"


def _unknown(name: str, candidates: Mapping[str, object], usable: Sequence[Accelerator]) -> str:
    """The message for a name that nobody offers; a plugin of that name may be there for it."""
    what = f"accelerator={name!r} is not known here"
    if found := Installed().plugins.get(name):
        what += f"; the plugin of that name ({found.origin}) is not active: plugins=[{name!r}]."
    elif distribution := known_distributions().get(name):
        what += f"; for the plugin of that name, pip install {distribution}, plugins=[{name!r}]."
    else:
        what += nearest(name, candidates)
    return f"{what} {_listed(usable)}"


def _listed(usable: Sequence[Accelerator]) -> str:
    return f"Available: {', '.join(sorted(each.name for each in usable))}"
