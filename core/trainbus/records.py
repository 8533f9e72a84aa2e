"""Numbers and things that a run tells: kept where they are, fetched together, handed to loggers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

import torch
from torch import Tensor

from trainbus.errors import UsageError

ArtifactKind = Literal["file", "figure", "image", "text", "table", "model"]
ARTIFACT_KINDS: tuple[ArtifactKind, ...] = ("file", "figure", "image", "text", "table", "model")

#: Pending numbers are fetched from the device when they are this many, or this old.
MAX_PENDING = 1000
MAX_AGE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something logged that is no number.

    `value` is, by kind: a path (file, model), a matplotlib figure, an image (a tensor of
    channels x height x width, floats in 0..1 or bytes, or a PIL image), a text (Markdown), or a
    table (a list of mappings with the same keys).
    """

    name: str
    kind: ArtifactKind
    value: Any
    step: int


@dataclass(slots=True)
class _Pending:
    name: str
    step: int
    value: Any
    weight: int
    #: Part of the mean over the present pass.
    averaged: bool
    #: Handed out at its own step, too.
    told: bool


class Records:
    """The numbers of a run on their way from the training step to the loggers.

    `add` keeps a copy of a tensor on its device and returns at once; `fetch` brings all that is
    pending to the host in one transfer per device and type.
    """

    def __init__(self, emit: Callable[[int, dict[str, float]], None]) -> None:
        #: The newest value of each metric that was fetched so far.
        self.latest: dict[str, float] = {}
        self._emit = emit
        self._pending: list[_Pending] = []
        self._fetch_at = 0.0
        self._sums: dict[str, list[float]] = {}
        self._meters: dict[str, Any] = {}

    def add(
        self, name: str, value: Any, step: int, weight: int, averaged: bool, told: bool
    ) -> None:
        """Take one value: a number, a tensor of one element, or an object with `compute`."""
        if isinstance(value, Tensor):
            if value.ndim:
                if value.numel() != 1:
                    raise UsageError(
                        f"run.log({name}=...): a tensor of shape {tuple(value.shape)}; "
                        "log one number, its mean for example"
                    )
                value = value.reshape(())
            # A copy, since `loss *= 2` after the call would change what was logged.
            value = value.detach().clone()
        elif not isinstance(value, (int, float)):
            if callable(getattr(value, "compute", None)) and callable(
                getattr(value, "reset", None)
            ):
                self._meters[name] = value
                return
            value = _number(name, value)
        if not self._pending:
            self._fetch_at = monotonic() + MAX_AGE_SECONDS
        self._pending.append(_Pending(name, step, value, weight, averaged, told))

    def fetch_if_due(self) -> None:
        """Fetch when enough is pending, or when it has waited for long enough."""
        pending = self._pending
        if pending and (len(pending) >= MAX_PENDING or monotonic() >= self._fetch_at):
            self.fetch()

    def fetch(self) -> None:
        """Bring all pending values to the host and hand them out, step by step."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        by_step: dict[int, dict[str, list[float]]] = {}
        for item, value in zip(pending, _to_host([item.value for item in pending]), strict=True):
            if item.averaged:
                _accumulate(self._sums, item.name, value, item.weight)
            if item.told:
                # The micro-batches of one step become one value.
                _accumulate(by_step.setdefault(item.step, {}), item.name, value, item.weight)
        for step, sums in by_step.items():
            self._tell(step, _means(sums))

    def end_pass(self, step: int, suffix: str = "") -> dict[str, float]:
        """End a pass over data: fetch, and hand out each metric's mean, weighted by samples."""
        self.fetch()
        means = {name + suffix: mean for name, mean in _means(self._sums).items()}
        self._sums.clear()
        meters, self._meters = self._meters, {}
        for name, meter in meters.items():
            means[name] = _number(name, meter.compute())
            meter.reset()
        if means:
            self._tell(step, means)
        return means

    def drop_pass(self) -> None:
        """Forget the unfinished means of a pass that was interrupted."""
        self._pending = [item for item in self._pending if item.told]
        self._sums.clear()
        for meter in self._meters.values():
            meter.reset()
        self._meters.clear()

    def _tell(self, step: int, metrics: dict[str, float]) -> None:
        self.latest.update(metrics)
        self._emit(step, metrics)


def _accumulate(sums: dict[str, list[float]], name: str, value: float, weight: int) -> None:
    total = sums.setdefault(name, [0.0, 0.0])
    total[0] += value * weight
    total[1] += weight


def _means(sums: dict[str, list[float]]) -> dict[str, float]:
    return {name: total / weight for name, (total, weight) in sums.items() if weight}


def _to_host(values: list[Any]) -> list[float]:
    """All values as Python numbers, with one transfer for each device and type of tensor."""
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            groups.setdefault((value.device, value.dtype), []).append(i)
    for indices in groups.values():
        fetched = torch.stack([values[i] for i in indices]).tolist()
        for i, number in zip(indices, fetched, strict=True):
            values[i] = number
    return [float(value) for value in values]


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UsageError(
            f"run.log({name}=...): {type(value).__name__} {value!r:.60} is neither a number, nor a "
            "tensor of one element, nor an object with update, compute and reset"
        ) from None
