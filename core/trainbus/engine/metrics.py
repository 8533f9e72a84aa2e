"""Logged numbers: kept on their device, fetched in one transfer, averaged over a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import time
from typing import Any, Literal

import torch
from torch import Tensor

from trainbus.devices.accelerator import Accelerator
from trainbus.devices.peers import Peers
from trainbus.engine.reduction import together
from trainbus.errors import UsageError

#: Name, value, whether it is a tensor, stage, step, weight, whether it is a part of the mean of the
#: pass, when it was logged. A plain tuple, since one is made for each value that is logged; what
#: can be found out later, where many are looked at together, is not found out here.
Pending = tuple[str, Any, bool, str, int, int, bool, float]
#: What a pass makes of the values of a name, in place of their mean.
Reduce = Literal["max", "min", "sum", "last"]
_REDUCTIONS: dict[str, Callable[[float, float], float]] = {
    "max": max,
    "min": min,
    "sum": lambda one, other: one + other,
    "last": lambda _, other: other,
}
#: What is handed out: the step, values by full name, when they were logged.
Row = tuple[int, dict[str, float], float]


_Pass = tuple[dict[str, list[float]], dict[str, Any], list[Pending]]


class MetricBuffer:
    """The numbers of a run on their way from the training step to the loggers.

    `add` keeps a copy of a tensor on its device and returns at once; `fetch` brings everything that
    is pending to the host, in one transfer per device and type.

    Args:
        accelerator: fetches what lies on its device.
        every: optimizer steps between those whose values are handed out.
        peers: processes that read other parts of the data: a mean over a pass is that of all.
    """

    def __init__(self, accelerator: Accelerator, every: int, peers: Peers | None = None) -> None:
        #: The newest value of each metric that was fetched so far.
        self.latest: dict[str, float] = {}
        #: How often each was measured.
        self.measured: dict[str, int] = {}
        #: What is not fetched yet.
        self.pending: list[Pending] = []
        #: What is logged now belongs to this optimizer step, and has this in front: the stage, or
        #: that and the loader at work, where there are several.
        self.step = 0
        self.prefix = "train"
        #: It is a part of the mean over a pass, with this weight; None while nobody asked for it.
        self.averaging = False
        self.weight: int | None = None
        self._accelerator = accelerator
        self._peers = peers if peers is not None and peers.world_size > 1 else None
        self._fetched = 0
        #: Where what the present batch logged begins in `pending`.
        self.batch_start = 0
        #: Pending numbers are fetched when there are so many, or the oldest has waited so long.
        self.max_pending = 1000
        self.max_seconds = 1.0
        #: When the oldest has waited long enough, on the monotonic clock.
        self.due_time = 0.0
        self._every = every
        self._full_names: dict[tuple[str, str], str] = {}
        self._sums: dict[str, list[float]] = {}
        self._meters: dict[str, Any] = {}
        #: Means over several loaders that are made of those of each.
        self._of_parts: set[str] = set()
        #: Names whose values a pass makes no mean of.
        self._reductions: dict[str, Callable[[float, float], float]] = {}
        #: What meters gave that is no number: tables and pictures to be.
        self.arrays: dict[str, Any] = {}
        #: Sums, meters and pending values of the passes around this one, the outermost first.
        self._outer: list[_Pass] = []

    def add(
        self, name: str, value: Any, stage: str, step: int, weight: int, averaged: bool, now: float
    ) -> None:
        """Take a value: a number, a tensor of one element, or an object with `compute` and `reset`.

        `Run.log` puts numbers of the host into `pending` itself.

        Args:
            name: without a slash it gets the stage in front.
            value: what was logged.
            stage: the stage at work.
            step: the optimizer step that it belongs to.
            weight: samples that it stands for.
            averaged: whether it is a part of the mean over the present pass.
            now: when it was logged, in seconds since the epoch.
        """
        away = False
        if isinstance(value, Tensor):
            # A copy, since `loss *= 2` after the call would change what was logged.
            value = _scalar(_full(name, stage), value).detach().clone()
            away = True
        elif hasattr(value, "compute") and hasattr(value, "reset"):
            self._meters[_full(name, stage)] = value
            return
        elif isinstance(value, Mapping):
            for key, each in value.items():
                self.add(f"{_full(name, stage)}/{key}", each, stage, step, weight, averaged, now)
            return
        else:
            value = _number(_full(name, stage), value)
        self.pending.append((name, value, away, stage, step, weight, averaged, now))

    def reduce(self, how: str, names: Iterable[str], stage: str) -> None:
        """Let passes make something else than a mean of the values of these names."""
        if how not in _REDUCTIONS:
            raise UsageError(
                f"run.log(reduce={how!r:.80}): give one of {', '.join(map(repr, _REDUCTIONS))}; a "
                "metric of this name is logged as run.log({'reduce': 0.5})"
            )
        for name in names:
            self._reductions[_full(name, stage)] = _REDUCTIONS[how]

    def mark(self) -> int:
        """Where the records stand, for `retract`."""
        return self._fetched + len(self.pending)

    def retract(self, mark: int) -> None:
        """Forget what was added since a mark, but for what was fetched in between."""
        del self.pending[max(0, mark - self._fetched) :]

    def drop_batch(self) -> None:
        """Forget what a batch logged that is skipped."""
        del self.pending[self.batch_start :]

    def drop_step(self) -> None:
        """Forget what the batches of a step logged that is not made."""
        step = self.step
        self.pending = [item for item in self.pending if item[4] != step or item[3] != "train"]

    def fetch(self, open_step: int | None = None) -> list[Row]:
        """Bring all pending values to the host; returns those that are to be handed out, by step.

        Args:
            open_step: a step that is not complete: its values stay, to make one value with those
                to come.

        The loop below runs once for each value that was ever logged: no call in it.
        """
        if not self.pending:
            return []
        pending, self.pending = self.pending, []
        self._accelerator.step_boundary("log")
        numbers = self._numbers(pending)
        open_values: dict[str, float] = {}
        if open_step is not None:
            pending, numbers, open_values = self._keep(pending, numbers, open_step)
            if not pending:
                self.latest.update(open_values)
                return []
        self._fetched += len(pending)
        sums, latest, full_names, every = self._sums, self.latest, self._full_names, self._every
        measured, reductions = self.measured, self._reductions
        rows: list[Row] = []
        values: dict[str, float] = {}
        weights: dict[str, float] = {}
        present, since = pending[0][4], pending[0][7]
        for item, number in zip(pending, numbers, strict=True):
            short, _, _, stage, step, weight, averaged, now = item
            try:
                name = full_names[short, stage]
            except KeyError:
                name = full_names[short, stage] = _full(short, stage)
            if averaged:
                if reductions and name in reductions:
                    sofar = sums[name][0] if name in sums else number
                    sums[name] = [reductions[name](sofar, number) if name in sums else number, 1]
                elif name in sums:
                    total = sums[name]
                    total[0] += number * weight
                    total[1] += weight
                else:
                    sums[name] = [number * weight, weight]
                if stage != "train" or step % every:
                    continue
            if step != present:
                if values:
                    rows.append((present, values, since))
                values = {}
                present, since = step, now
            if name in values:  # the micro-batches of one step become one value, their mean
                weights[name] += weight
                values[name] += (number - values[name]) * weight / (weights[name] or 1)
            else:
                values[name] = number
                weights[name] = weight
                measured[name] = measured[name] + 1 if name in measured else 1
            latest[name] = values[name]
        latest.update(open_values)
        if values:
            rows.append((present, values, since))
        return rows

    def _keep(
        self, pending: list[Pending], numbers: list[float], step: int
    ) -> tuple[list[Pending], list[float], dict[str, float]]:
        """Keep the values of an open step as numbers; returns the others, and its means so far."""
        totals: dict[str, list[float]] = {}
        others: list[Pending] = []
        theirs: list[float] = []
        before = 0
        for index, (item, number) in enumerate(zip(pending, numbers, strict=True)):
            if item[4] != step or item[3] != "train":
                others.append(item)
                theirs.append(number)
                continue
            before += index < self.batch_start
            self.pending.append((item[0], number, False, *item[3:]))
            total = totals.setdefault(_full(item[0], "train"), [0.0, 0])
            total[0] += number * item[5]
            total[1] += item[5]
        self.batch_start = before
        return others, theirs, {name: total / (n or 1) for name, (total, n) in totals.items()}

    def _numbers(self, pending: list[Pending]) -> list[float]:
        """The pending values as numbers, with one transfer for each device and type of tensor."""
        numbers = [item[1] for item in pending]
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, item in enumerate(pending):
            if item[2]:
                key = (item[1].device, item[1].dtype)
                if key in groups:
                    groups[key].append(i)
                else:
                    groups[key] = [i]
        for (device, _), indices in groups.items():
            tensors = [numbers[i] for i in indices]
            if self._accelerator.device.type == device.type:
                fetched = self._accelerator.fetch(tensors)
            else:
                fetched = torch.stack(tensors).tolist()
            for i, number in zip(indices, fetched, strict=True):
                numbers[i] = number
        return numbers

    def end_pass(self, step: int, suffix: str = "") -> list[Row]:
        """End a pass over data: fetch, and add each metric's mean, weighted by samples."""
        rows = self.fetch()
        if self._peers is not None:
            self._sums = self._of_all()
        means = {
            name + suffix: total / weight for name, (total, weight) in self._sums.items() if weight
        }
        self._sums.clear()
        means.update(self._measured_by_meters())
        if means:
            self._set(means)
            rows.append((step, means, time()))
        return rows

    def _of_all(self) -> dict[str, list[float]]:
        """The sums of all processes; those of several loaders were added up with each part."""
        assert self._peers is not None
        parts, own = self._of_parts, {}
        for name, total in self._sums.items():
            if name not in parts:
                own[name] = total
        whole = together(self._peers, own, self._reductions, list(self._meters))
        self._of_parts = set()
        return {**{name: self._sums[name] for name in parts}, **whole}

    def end_part(self, step: int, stage: str) -> list[Row]:
        """End one of several loaders: its means, which also count in those of the whole pass."""
        rows = self.fetch()
        start = f"{self.prefix}/"
        sums = {name: self._sums.pop(name) for name in list(self._sums) if name.startswith(start)}
        if self._peers is not None:
            sums = together(self._peers, sums, self._reductions, list(self._meters))
        most = max((weight for _, weight in sums.values()), default=1.0)
        for name, number in self._measured_by_meters().items():
            sums[name] = [number * most, most]
        means = {name: total / weight for name, (total, weight) in sums.items() if weight}
        for name, (total, weight) in sums.items():
            all_of_it = f"{stage}/{name.removeprefix(start)}"
            self._of_parts.add(all_of_it)
            whole = self._sums.setdefault(all_of_it, [0.0, 0])
            if (how := self._reductions.get(name)) is not None:
                self._sums[all_of_it] = [how(whole[0], total) if whole[1] else total, 1]
            else:
                whole[0] += total
                whole[1] += weight
        if means:
            self._set(means)
            rows.append((step, means, time()))
        return rows

    def _measured_by_meters(self) -> dict[str, float]:
        meters, self._meters = self._meters, {}
        values: dict[str, float] = {}
        for name, meter in sorted(meters.items()):  # those of several processes meet
            for full, value in _flat(name, meter.compute()):
                if _is_array(value):
                    self.arrays[full] = value
                else:
                    values[full] = _number(full, value)
            meter.reset()
        return values

    def _set(self, means: dict[str, float]) -> None:
        self.latest.update(means)
        measured = self.measured
        for name in means:
            measured[name] = measured.get(name, 0) + 1

    def state_dict(self) -> dict[str, Any]:
        """What is known of the training pass, and the newest values; nothing may be pending."""
        # In a validation inside an epoch, the means to go on with are those of the epoch.
        present = self._outer[0][0] if self._outer else self._sums
        sums = {name: list(total) for name, total in present.items()}
        measured = dict(self.measured)
        return {"sums": sums, "latest": dict(self.latest), "measured": measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the means of a pass that was left."""
        self._sums = {name: list(total) for name, total in state["sums"].items()}
        self.latest.update(state["latest"])
        self.measured.update(state["measured"])

    def begin_pass(self) -> None:
        """Begin the means of a training pass; nothing may be pending."""
        self._sums, self._meters = {}, {}

    def begin_inner_pass(self) -> None:
        """Begin the means of a pass inside another one, whose means are kept."""
        self._outer.append((self._sums, self._meters, self.pending))
        self._sums, self._meters, self.pending = {}, {}, []

    def leave_inner_pass(self) -> None:
        """Forget what is unfinished of a pass, and go on with the one around it."""
        left = [item for item in self.pending if not item[6]]
        for meter in self._meters.values():
            meter.reset()
        self._sums, self._meters, self.pending = self._outer.pop()
        self.pending += left


def _full(name: str, stage: str) -> str:
    """The name with its stage; half a surrogate pair, which no file can hold, becomes `?`."""
    if not isinstance(name, str):
        raise UsageError(f"run.log: the name {name!r:.60} is no text")
    full = name if "/" in name else f"{stage}/{name}"
    return full.encode(errors="replace").decode()


def _scalar(name: str, value: Tensor) -> Tensor:
    if value.numel() != 1:
        raise UsageError(
            f"run.log({name}=...): a tensor of shape {tuple(value.shape)}; log one number, its "
            "mean for example"
        )
    if value.layout is not torch.strided:
        value = value.to_dense()
    return value.reshape(())


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UsageError(f"run.log({name}=...): {str(value)[:30]}... is too large") from None
    except (TypeError, ValueError):
        raise UsageError(
            f"run.log({name}=...): {type(value).__name__} {value!r:.60} is neither a number, nor a "
            "tensor of one element, nor an object with update, compute and reset"
        ) from None


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a meter gave, each value with its name."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, each in value.items():
        yield from _flat(f"{name}/{key}", each)


def _is_array(value: Any) -> bool:
    """Whether it is a vector, a matrix, or several of them."""
    if isinstance(value, (tuple, list)):
        return bool(value) and all(isinstance(each, Tensor) for each in value)
    return isinstance(value, Tensor) and value.numel() != 1
