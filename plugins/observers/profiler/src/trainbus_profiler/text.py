"""The profile as a table to read."""

from __future__ import annotations

from collections.abc import Iterator

from trainbus_profiler.report import Profile, Split
from trainbus_profiler.timeline import PARTS

_NAMES = {
    "data": "waiting for data",
    "transfer": "transfer to the device",
    "loop": "the loop, and everything else",
    "profiler": "the profiler itself",
}
_SECTIONS = {
    "first": "the first batch",
    "observed": "steps looked at closely",
    "waited": "steps that waited for the device",
    "validation": "validation",
    "between": "between the passes",
}
#: Listeners below this share of a step are told of together.
_SMALL = 0.005


def table(profile: Profile, advice: str) -> str:
    """Where the time of a step went, what else took time, the speed, the memory, the sentence."""
    usual = profile.of(profile.usual)
    if not usual.batches:
        return "profile: no batch was measured"
    section = profile.timeline.sections[profile.usual]
    lines = [f"{f'of {usual.batches} batches':<44}{'ms/batch':>10}{'share':>8}"]
    lines += [_row(name, seconds, usual) for name, seconds in _rows(usual)]
    lines += [_row("a batch", usual.seconds, usual), *_waited(profile), ""]
    lines += [*_sections(profile), *_speed(profile.speed(section)), *_memory(profile)]
    if profile.trace:
        lines.append(f"trace: {profile.trace} (opens in ui.perfetto.dev)")
    return "\n".join([*lines, "", advice])


def _row(name: str, seconds: float, split: Split) -> str:
    each = seconds / split.batches * 1e3
    return f"{name:<44}{each:>10.3f}{seconds / split.seconds:>8.1%}"


def _rows(split: Split) -> Iterator[tuple[str, float]]:
    for part in PARTS:
        yield _NAMES.get(part, part), split.parts[part]
    rest = split.parts["listeners"]
    for (plugin, hook), seconds in split.listeners.items():
        if seconds / split.seconds < _SMALL:
            break
        rest -= seconds
        yield f"{plugin}, {hook}", seconds
    yield "other listeners", max(0.0, rest)
    yield _NAMES["loop"], split.parts["loop"]
    yield _NAMES["profiler"], split.parts["profiler"]


def _waited(profile: Profile) -> Iterator[str]:
    """On a device that works by itself: what the host sees, and what the device needs."""
    if profile.device == "cpu":
        return
    yield "These are times of the host, which does not wait for the device."
    waited = profile.of("waited")
    if waited.batches:
        each = (
            f"{part} {waited.parts[part] / waited.batches * 1e3:.3f}"
            for part in PARTS
            if part != "data"
        )
        yield f"Of the device, in {waited.batches} batches, ms: {', '.join(each)}."


def _sections(profile: Profile) -> Iterator[str]:
    wall = profile.timeline.seconds
    yield f"{'of the whole fit':<44}{'s':>10}{'share':>8}"
    for name, section in profile.timeline.sections.items():
        if section.seconds and (name in ("steps", "between") or section.seconds / wall > _SMALL):
            label = _SECTIONS.get(name, "the batches above")
            yield f"{label:<44}{section.seconds:>10.2f}{section.seconds / wall:>8.1%}"
            for (plugin, hook), seconds in profile.of(name).listeners.items():
                if name == "between" and seconds / wall > _SMALL:
                    yield f"{f'  {plugin}, {hook}':<44}{seconds:>10.2f}{seconds / wall:>8.1%}"
    yield f"{'wall time':<44}{wall:>10.2f}"


def _speed(rates: dict[str, float]) -> Iterator[str]:
    parts = [f"{rates['samples_per_second']:,.0f} samples/s"]
    if "tokens_per_second" in rates:
        parts.append(f"{rates['tokens_per_second']:,.0f} tokens/s")
    if "flops_per_second" in rates:
        parts.append(f"{rates['flops_per_second'] / 1e9:,.2f} GFLOP/s")
    if "utilisation" in rates:
        parts.append(f"{rates['utilisation']:.1%} of the device's peak")
    yield f"speed: {', '.join(parts)}"


def _memory(profile: Profile) -> Iterator[str]:
    if profile.memory:
        each = (f"{name} {size / 1e6:,.1f}" for name, size in profile.memory.items())
        yield f"memory, MB: {', '.join(each)}"
    if profile.allocations:
        yield "most memory is allocated in"
        yield profile.allocations
