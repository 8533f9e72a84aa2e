"""What a trainer was told, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from trainbus.arguments import is_number, is_whole
from trainbus.devices.accelerator import Accelerator
from trainbus.engine.cadence import Cadence
from trainbus.errors import UsageError


@dataclass(kw_only=True, eq=False, repr=False)
class Settings:
    """The engineering of a training, as `Trainer` takes it; plugins read it as `run.trainer`."""

    epochs: int | None = None
    max_steps: int | None = None
    max_time: float | timedelta | None = None
    plugins: Sequence[str | object] = ()
    accelerator: str | Accelerator = "auto"
    devices: int | str | Sequence[int] = "auto"
    precision: str | None = None
    seed: int | None = None
    deterministic: bool = False
    accumulate: int = 1
    clip_norm: float | None = None
    validate_every: int | float | str | timedelta = 1
    limit_batches: int | float | Mapping[str, int | float] | None = None
    min_epochs: int = 0
    min_steps: int = 0
    validate_first: bool = False
    sanity_batches: int = 0
    log_every: int = 1
    run_dir: str | Path = "runs"
    dry_run: int | None = None
    overfit: int | None = None

    def __init_subclass__(cls) -> None:
        # In messages about its arguments: nobody makes settings but by a trainer.
        cls.__init__.__qualname__ = cls.__name__

    def __post_init__(self) -> None:
        for name in ("epochs", "max_steps", "accumulate", "log_every", "dry_run", "overfit"):
            count = getattr(self, name)
            right = count is None or is_whole(count, 1)
            _require(right, name, count, "a whole number, at least 1")
        for name in ("min_epochs", "min_steps", "sanity_batches"):
            count = getattr(self, name)
            _require(is_whole(count, 0), name, count, "a whole number, at least 0")
        right = self.seed is None or is_whole(self.seed)
        _require(right, "seed", self.seed, "a whole number")
        for name in ("max_time", "clip_norm"):
            amount = getattr(self, name)
            seconds = amount.total_seconds() if isinstance(amount, timedelta) else amount
            right = amount is None or (is_number(seconds) and seconds > 0)
            _require(right, name, seconds, "a number greater than 0")
        #: Plugins that were switched off, and by whom.
        self.switched_off: dict[str, str] = {}
        self.cadence = Cadence.of(self.validate_every)
        _check_limit(self.limit_batches)
        if self.epochs is self.max_steps is self.max_time is None or self.dry_run is not None:
            self.epochs = 1
        if self.dry_run is not None:
            self.limit_batches = self.dry_run
        self.run_dir = Path(self.run_dir).expanduser()

    @property
    def max_seconds(self) -> float | None:
        """`max_time` in seconds."""
        limit = self.max_time
        return limit.total_seconds() if isinstance(limit, timedelta) else limit

    def limit(self, stage: str) -> int | float | None:
        """The batches that are used of a loader of this stage; None for all."""
        limits = self.limit_batches
        return limits.get(stage) if isinstance(limits, Mapping) else limits

    @property
    def device_index(self) -> int | None:
        """Which device `devices` means; None for the one that torch uses now."""
        if self.devices in ("auto", 1):
            return None
        if isinstance(self.devices, (list, tuple)) and len(self.devices) == 1:
            return int(self.devices[0])
        raise UsageError(
            f"devices={self.devices!r}: give 'auto', 1, or a list with one index; several devices "
            "need a plugin that starts one process for each, and none is active"
        )


_STAGES = ("train", "valid", "test", "predict")


def _check_limit(given: object) -> None:
    of_stages: Mapping[Any, Any] = given if isinstance(given, Mapping) else {"train": given}
    for stage, limit in of_stages.items():
        known = stage in _STAGES
        _require(known, "limit_batches", given, f"by stage, of {', '.join(_STAGES)}")
        right = limit is None or is_whole(limit, 1) or (is_number(limit) and 0 < limit <= 1)
        _require(right, "limit_batches", given, "a whole number, or a fraction up to 1")


def _require(right: bool, name: str, value: Any, what: str) -> None:
    if not right:
        raise UsageError(f"Trainer({name}={value!r}): {name} must be {what}")
