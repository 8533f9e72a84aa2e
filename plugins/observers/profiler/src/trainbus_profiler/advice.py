"""The bottleneck in one sentence: the largest part that could be smaller, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainbus_profiler.report import Profile, Split
from trainbus_profiler.timeline import Part, Section

if TYPE_CHECKING:
    from trainbus import Run

#: A part is worth a change when it takes so much of a step. The optimizer and the loop have to do
#: some work in any case.
_WORTH = {"data": 0.1, "transfer": 0.1, "listener": 0.1, "optimizer": 0.25, "loop": 0.3}
#: Parts in which a device that works asynchronously is busy.
_BUSY: tuple[Part, ...] = ("transfer", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Setting:
    """What the mends depend on."""

    #: Worker processes of the loader; None for one that has no such option.
    workers: int | None
    pins: bool
    #: The optimizer's class, and whether it is fused already.
    optimizer: str
    fused: bool
    on_cpu: bool
    #: Plugins that can be switched off by name.
    named: frozenset[str]


def setting(run: Run) -> Setting:
    """Look at the loader, the optimizers, the device and the plugins of a run."""
    from trainbus.batches import innermost

    loader = innermost(run.loader)
    workers = getattr(loader, "num_workers", None)
    first = run.optimizers[0] if run.optimizers else None
    return Setting(
        workers=workers if isinstance(workers, int) else None,
        pins=bool(getattr(loader, "pin_memory", False)),
        optimizer=type(first).__name__,
        fused=bool(first is not None and first.defaults.get("fused")),
        on_cpu=run.device.type == "cpu",
        named=frozenset(each.name for each in run.loaded),
    )


def advise(profile: Profile, setting: Setting) -> str:
    """The sentence; empty where no batch was measured."""
    usual = profile.of(profile.usual)
    if not usual.batches:
        return ""
    wall = profile.timeline.seconds
    validation = profile.timeline.sections["validation"].seconds / wall
    if validation > 0.5:
        return (
            f"{validation:.0%} of the run is validation: validate less often (validate_every), or "
            "on less data"
        )
    shares = _shares(usual)
    waited = profile.timeline.sections["waited"]
    if waited.batches:
        shares = _while_idle(shares, usual, waited)
    worth = {part: share for part, share in shares.items() if share >= _WORTH[part]}
    if not worth:
        return _of_the_model(usual, waited, profile)
    part = max(worth, key=lambda part: worth[part])
    return f"{worth[part]:.0%} of each step {_mend(part, usual, setting)}"


def _shares(split: Split) -> dict[str, float]:
    """Of a step, by what could be smaller; of the listeners the most expensive."""
    most_expensive = max(split.listeners.values(), default=0.0)
    return {
        **{part: split.share(part) for part in ("data", "transfer", "optimizer", "loop")},
        "listener": most_expensive / split.seconds,
    }


def _busy(usual: Split, waited: Section) -> float:
    """The share of a usual step in which the device works, from the steps that waited for it."""
    busy = sum(waited.parts[part] for part in _BUSY) / waited.batches
    return min(1.0, busy / (usual.seconds / usual.batches))


def _while_idle(shares: dict[str, float], usual: Split, waited: Section) -> dict[str, float]:
    """What the host does while the device has work to do costs nothing: at most its idle time."""
    idle = 1 - _busy(usual, waited)
    of_host = {part: min(shares[part], idle) for part in ("data", "listener", "loop")}
    step = usual.seconds / usual.batches
    parts = {"transfer": waited.parts["transfer"], "optimizer": waited.parts["optimizer"]}
    return of_host | {part: spent / waited.batches / step for part, spent in parts.items()}


def _of_the_model(usual: Split, waited: Section, profile: Profile) -> str:
    if waited.batches:
        return (
            f"the device works {_busy(usual, waited):.0%} of each step: the model itself is the "
            "limit"
        )
    share = usual.share("forward") + usual.share("backward")
    return (
        f"the forward and backward passes take {share:.0%} of each step: the model itself is the "
        "limit"
    )


def _mend(part: str, usual: Split, setting: Setting) -> str:
    """What a share of the step is spent on, and what would make it smaller."""
    if part == "data":
        how = "read it with a DataLoader or trainbus.Loader, and raise num_workers"
        if setting.workers is not None:
            how = f"raise num_workers (it is {setting.workers})"
        if setting.workers:
            how += ", or make a sample cheaper to read"
        return f"waits for data: {how}"
    if part == "transfer":
        if setting.on_cpu:
            return "places the batch: look at the plugin that replaces place_batch"
        pinned = "send less" if setting.pins else "set pin_memory=True in the loader, or send less"
        return f"moves the batch to the device: {pinned}"
    if part == "listener":
        plugin, hook = next(iter(usual.listeners))
        off = f", or switch it off (-p no:{plugin})" if plugin in setting.named else ""
        return f"is spent in {plugin!r}, {hook}: call it less often, make it faster{off}"
    if part == "optimizer":
        how = "accumulate batches, or choose a cheaper one"
        if not setting.fused:
            how = f"try {setting.optimizer}(..., fused=True)"
        return f"is spent in the optimizer: {how}"
    return "is spent in Python between the parts: use larger batches, or compile the model"
