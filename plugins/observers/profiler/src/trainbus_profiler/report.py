"""What was measured, as numbers by name: for the table, the metrics and the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainbus_profiler.timeline import PARTS, Section, Timeline

#: Events inside the step; a task that steps by itself has them in its forward pass.
_INSIDE = frozenset(
    {
        "on_after_loss",
        "on_after_backward",
        "on_before_optimizer_step",
        "on_after_optimizer_step",
    }
)


@dataclass(frozen=True)
class Split:
    """Where the time of one section went; the parts add up to `seconds`."""

    seconds: float
    batches: int
    #: Seconds by part: those of a step, `listeners` of other plugins, `profiler`, and `loop`.
    parts: dict[str, float]
    #: Seconds by plugin and hook, the most expensive first.
    listeners: dict[tuple[str, str], float]

    def share(self, part: str) -> float:
        """Of the whole, 0 to 1."""
        return self.parts[part] / self.seconds if self.seconds else 0.0


def split(section: Section, kinds: dict[str, str], mine: str) -> Split:
    """Tell listeners from the parts that they ran in.

    Args:
        section: what was measured.
        kinds: each hook's kind.
        mine: the name of the profiler among the plugins.
    """
    replaced = {
        hook for _, hook in section.listeners if ("core", hook) not in section.listeners
    }  # an action that another plugin did: its time is that of the part
    listeners = {
        (plugin, hook): seconds
        for (plugin, hook), seconds in section.listeners.items()
        if plugin not in ("core", mine)
        and (kinds.get(hook) in ("event", "record") or hook not in replaced)
    }
    own = sum(seconds for (plugin, _), seconds in section.listeners.items() if plugin == mine)
    parts: dict[str, float] = {part: section.parts[part] for part in PARTS}
    if section.nested:
        parts["forward"] -= sum(s for (_, hook), s in listeners.items() if hook in _INSIDE)
    parts = {part: max(0.0, seconds) for part, seconds in parts.items()}
    parts |= {"listeners": sum(listeners.values()), "profiler": own}
    parts["loop"] = max(0.0, section.seconds - sum(parts.values()))
    most_expensive = sorted(listeners.items(), key=lambda each: -each[1])
    return Split(section.seconds, section.batches, parts, dict(most_expensive))


@dataclass
class Profile:
    """All that was measured in a fit."""

    timeline: Timeline
    kinds: dict[str, str]
    mine: str
    device: str = "cpu"
    #: Floating-point operations of a batch, and those that the device could make in a second.
    flops: int | None = None
    peak: float | None = None
    #: Bytes by name, at the end.
    memory: dict[str, int] = field(default_factory=dict)
    #: The operators that allocate most, as text; and where the trace is.
    allocations: str = ""
    trace: str = ""

    def of(self, name: str) -> Split:
        """Where the time of a section went."""
        return split(self.timeline.sections[name], self.kinds, self.mine)

    @property
    def usual(self) -> str:
        """The section that the step is told of: the first batch only where there is no other."""
        sections = self.timeline.sections
        for name in ("steps", "first", "observed"):
            if sections[name].batches:
                return name
        return "steps"

    def speed(self, section: Section) -> dict[str, float]:
        """Samples, tokens and operations per second, and the share of what the device can."""
        if not section.seconds or not section.batches:
            return {}
        rates = {
            "step_seconds": section.seconds / section.batches,
            "samples_per_second": section.samples / section.seconds,
        }
        if section.tokens:
            rates["tokens_per_second"] = section.tokens / section.seconds
        if self.flops:
            rates["flops_per_second"] = self.flops * section.batches / section.seconds
            if self.peak:
                rates["utilisation"] = rates["flops_per_second"] / self.peak
        return rates

    def metrics(self, section: Section) -> dict[str, float]:
        """The shares of the parts of a step, and the speed, as metrics."""
        if not section.batches:
            return {}
        told = split(section, self.kinds, self.mine)
        shares = {part: told.share(part) for part in told.parts}
        return {f"profile/{name}": value for name, value in (shares | self.speed(section)).items()}

    def parts(self) -> dict[str, float]:
        """Seconds of the whole fit by part; they add up to its wall time."""
        seconds = dict(self.of("steps").parts)
        names = {"first": "first_batch", "observed": "closer_look", "waited": "waited_steps"}
        for name, section in self.timeline.sections.items():
            if name not in ("steps", "between"):
                seconds[names.get(name, name)] = section.seconds
        between = self.of("between")
        seconds["epoch_listeners"] = between.parts["listeners"]
        seconds["between_passes"] = between.seconds - between.parts["listeners"]
        return seconds

    def plain(self, advice: str) -> dict[str, Any]:
        """All of it as plain values, for a file."""
        usual = self.of(self.usual)
        section = self.timeline.sections[self.usual]
        return {
            "bottleneck": advice,
            "device": self.device,
            "wall_seconds": self.timeline.seconds,
            "parts": self.parts(),
            "steps_in": self.usual,
            "batches": usual.batches,
            "speed": self.speed(section),
            "flops_per_batch": self.flops,
            "peak_flops": self.peak,
            "listeners": [
                {"section": name, "plugin": plugin, "hook": hook, "seconds": seconds}
                for name in self.timeline.sections
                for (plugin, hook), seconds in self.of(name).listeners.items()
            ],
            "waited": dict(self.of("waited").parts) | {"batches": self.of("waited").batches},
            "memory": self.memory,
            "allocations": self.allocations,
            "trace": self.trace,
        }
