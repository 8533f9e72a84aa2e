"""How often a fit validates, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from trainbus.arguments import is_number, is_whole
from trainbus.errors import UsageError

_WORDS = {
    "epoch": ("epoch", 1), "epochs": ("epoch", 1), "step": ("step", 1), "steps": ("step", 1),
    "s": ("second", 1), "second": ("second", 1), "seconds": ("second", 1),
    "min": ("second", 60), "minute": ("second", 60), "minutes": ("second", 60),
    "h": ("second", 3600), "hour": ("second", 3600), "hours": ("second", 3600),
}  # fmt: skip


@dataclass(frozen=True)
class Cadence:
    """Each so many epochs, parts of an epoch, optimizer steps or seconds."""

    unit: Literal["epoch", "part", "step", "second"]
    amount: float

    @classmethod
    def of(cls, given: object) -> Cadence:
        """Read `2` (epochs), `0.25` (of an epoch), `"500 steps"`, `"30 min"` or a `timedelta`.

        Raises:
            UsageError: it is none of these.
        """
        if isinstance(given, timedelta) and given > timedelta(0):
            return cls("second", given.total_seconds())
        if isinstance(given, str):
            number, word = _split(given)
            unit, factor = _WORDS.get(word, ("", 0))
            whole = number == int(number)
            if unit == "second" and number > 0:
                return cls("second", number * factor)
            if unit == "step" and whole and number >= 1:
                return cls("step", int(number))
            if unit == "epoch" and number > 0:
                return cls.of(int(number) if whole else number)
        elif is_whole(given, 1):
            return cls("epoch", int(given))  # type: ignore[call-overload]
        elif is_number(given):
            number = float(given)  # type: ignore[arg-type]
            if 0 < number < 1:
                return cls("part", number)
            if number >= 1 and number.is_integer():
                return cls("epoch", int(number))
        raise UsageError(
            f"Trainer(validate_every={given!r}): validate_every must be whole epochs, a fraction "
            "of an epoch below 1, or a text: '500 steps', '30 min', '2 epochs'"
        )


def _split(text: str) -> tuple[float, str]:
    """The number and the unit of `30 min`; 0 where it is no such text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    return (float(found[1]), found[2]) if found else (0.0, "")
