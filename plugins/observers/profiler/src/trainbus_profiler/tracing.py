"""A trace of a few steps by `torch.profiler`, with the hooks as named ranges."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from trainbus import hookimpl
from trainbus.storage.files import make_directory, replacing

if TYPE_CHECKING:
    import torch

    from trainbus import Bus, Run

_RANGES = "profiler_ranges"
#: Rows of the table of allocations.
_ROWS = 10


class Trace:
    """Records steps after one step of warm-up.

    While it records, a second plugin wraps each hook that anybody listens to in a range of the
    hook's name; it is registered and removed between two steps.

    Args:
        run: at work.
        steps: to record.
        memory: record allocations, too.
    """

    def __init__(self, run: Run, steps: int, memory: bool) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        kinds = {"cpu": ProfilerActivity.CPU, "cuda": ProfilerActivity.CUDA}
        kinds["xpu"] = ProfilerActivity.XPU
        wanted = {ProfilerActivity.CPU, kinds.get(run.device.type, ProfilerActivity.CPU)}
        self._memory = memory
        self._bus: Bus = run.bus
        self._left = steps + 1
        #: Steps that were recorded.
        self.recorded = 0
        self._profile: torch.profiler.profile | None = profile(
            activities=wanted & _supported(),
            schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
            profile_memory=memory,
        )
        self._profile.start()
        self._bus.register(_ranges(self._bus), _RANGES, "trainbus-profiler")

    @staticmethod
    def refused() -> bool:
        """Whether another profiler is at work in this thread: there can only be one."""
        import torch

        return bool(torch._C._autograd._profiler_enabled())

    def range(self, name: str) -> AbstractContextManager[Any]:
        """A range of that name."""
        return _range(name)

    def step(self) -> bool:
        """A step is over; True when it was the last one."""
        assert self._profile is not None
        self._left -= 1
        if self._left > 0:
            self._profile.step()
            self.recorded += 1
        return self._left <= 0

    def write(self, path: Path) -> str:
        """End it, write the trace, and return the operators that allocate most, as text.

        Without a recorded step nothing is written.
        """
        profile = self._end()
        if profile is None or not self.recorded:
            return ""
        make_directory(path.parent)
        with replacing(path) as beside:
            packed = beside.with_name(f"{beside.name}.gz")  # torch packs what is named so
            profile.export_chrome_trace(str(packed))
            packed.rename(beside)
        return _allocations(profile, self.recorded) if self._memory else ""

    def close(self) -> None:
        """End it, and write nothing; may be called again."""
        self._end()

    def _end(self) -> torch.profiler.profile | None:
        profile, self._profile = self._profile, None
        if profile is not None:
            if _RANGES in self._bus.plugins:
                self._bus.unregister(_RANGES)
            profile.stop()
        return profile


def _supported() -> set[torch.profiler.ProfilerActivity]:
    from torch.profiler import supported_activities

    return set(supported_activities())  # type: ignore[no-untyped-call]


def _range(name: str) -> AbstractContextManager[Any]:
    from torch.profiler import record_function

    return record_function(name)


def _ranges(bus: Bus) -> SimpleNamespace:
    """A plugin that wraps each hook with listeners in a range of its name."""
    kinds = {name: hook.kind for name, hook in bus.hooks.items()}
    listened = [name for name in bus.order() if kinds[name] != "contribution"]
    return SimpleNamespace(observer=True, **{name: _around(name) for name in listened})


def _around(name: str) -> Callable[[], Generator[None, Any, Any]]:
    @hookimpl(wrapper=True, tryfirst=True)
    def around() -> Generator[None, Any, Any]:
        with _range(name):
            return (yield)

    return around


def _allocations(profile: torch.profiler.profile, steps: int) -> str:
    """The operators that allocate most themselves, per step, the first being the greatest."""
    rows = []
    for event in profile.key_averages():
        own = max(event.self_cpu_memory_usage, event.self_device_memory_usage)
        if own > 0:
            rows.append((own / steps, event.count / steps, event.key))
    lines = [f"{'MB/step':>10}  {'calls/step':>10}  operator"]
    for size, calls, key in sorted(rows, reverse=True)[:_ROWS]:
        lines.append(f"{size / 1e6:>10.3f}  {calls:>10.1f}  {key}")
    return "\n".join(lines) if rows else ""
