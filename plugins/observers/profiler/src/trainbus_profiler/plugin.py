"""The events of a fit, as borders of the timeline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any

from trainbus import hookimpl
from trainbus.arguments import check_whole
from trainbus.storage.files import replacing
from trainbus_profiler.advice import advise, setting
from trainbus_profiler.report import Profile
from trainbus_profiler.speed import FlopCount, tokens_in
from trainbus_profiler.text import table
from trainbus_profiler.timeline import Section, Timeline

if TYPE_CHECKING:
    from trainbus import Run
    from trainbus_profiler.tracing import Trace

logger = logging.getLogger("trainbus")

#: The batch whose operations are counted, and the first one of the trace; counted from 0.
_COUNTED, _TRACED = 1, 4
#: Batches between two steps that wait for a device that works asynchronously.
_WAIT_EVERY = 20
#: Seconds between two looks at the memory.
_MEMORY_EVERY = 1.0
_NOTHING = nullcontext()


class Profiler:
    """Tell where the time of a fit goes, and what to mend first.

    Args:
        trace: steps that `torch.profiler` records, after the first five batches; 0 for none.
        memory: log the memory in use, and tell what allocates most in the steps of the trace.
        flops: count the floating-point operations of the second batch.
        tokens: the tensor of a batch whose elements are tokens; `input_ids` where there is one.
        show: print the table at the end.
    """

    observer = True

    def __init__(
        self,
        trace: int = 3,
        memory: bool = True,
        flops: bool = True,
        tokens: str | None = None,
        show: bool = True,
    ) -> None:
        check_whole(0, trace=trace)
        self.trace = trace
        self.memory = memory
        self.flops = flops
        self.tokens = tokens
        self.show = show
        #: What was measured in the last fit, and the table of it.
        self.profile: Profile | None = None
        self.text = ""
        self._timeline: Timeline | None = None
        self._trace: Trace | None = None
        #: The loader that is timed now, as it was.
        self._timed: Iterable[Any] | None = None
        self._disable: Callable[[], None] | None = None

    # --- the fit -------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def on_fit_start(self, run: Run) -> None:
        """Start the clock, that of each listener, too."""
        bus = run.bus
        self.profile, self.text, self._timed = None, "", None
        self._disable = bus.enable_timings()
        self._count = FlopCount()
        self._wants_trace = self.trace > 0 and run.rank == 0
        self._seen = 0
        self._memory_due = 0.0
        self._epoch = Section()
        self._asynchronous = run.device.type != "cpu"

        def listeners() -> dict[tuple[str, str], float]:
            return {(each.plugin, each.hook): each.seconds for each in bus.timings()}

        self._timeline = Timeline(listeners, run.accelerator.synchronize)
        name = next(name for name, plugin in bus.plugins.items() if plugin is self)
        kinds = {name: str(hook.kind) for name, hook in bus.hooks.items()}
        self.profile = Profile(self._timeline, kinds, name, run.device.type)

    @hookimpl(tryfirst=True)
    def on_fit_end(self, run: Run) -> None:
        """Stop the clock, and hand out what it told."""
        self._finish(run)
        if self.text and run.rank == 0:
            run.log_artifact("profile", self.text, "text")

    @hookimpl(trylast=True, after=["progress"])
    def on_run_end(self, run: Run) -> None:
        """Put back what was changed, and print the table: below a progress display."""
        if self._timeline is None:
            return
        try:
            if self._trace is not None:
                self._trace.close()
            self._finish(run)
        finally:
            self._trace = self._timeline = None
            if self._disable is not None:
                self._disable()
                self._disable = None
        if self.show and self.text and run.rank == 0:
            print(self.text)

    def _finish(self, run: Run) -> None:
        """Add up, once; write the table and the numbers into the run's directory."""
        profile, timeline = self.profile, self._timeline
        if profile is None or timeline is None or self.text:
            return
        timeline.stop()
        profile.flops = self._count.flops
        profile.peak = self._count.peak(run) if profile.flops else None
        if self.memory:
            profile.memory = run.accelerator.memory_stats()
        advice = advise(profile, setting(run))
        self.text = table(profile, advice)
        if run.rank == 0 and profile.of(profile.usual).batches:
            numbers = json.dumps(profile.plain(advice), indent=2)
            for name, text in (("profile.txt", self.text), ("profile.json", numbers)):
                with replacing(run.dir / name) as beside:
                    beside.write_text(text + "\n", "utf-8")

    # --- passes --------------------------------------------------------------------------------

    @hookimpl(trylast=True)
    def on_train_epoch_start(self, run: Run) -> None:
        """Wait for batches with the clock on."""
        from trainbus_profiler.timed_loader import TimedLoader

        timeline = self._clock
        timeline.enter(self._next_section())
        self._epoch = timeline.sections["steps"].copy()
        self._timed = run.loader
        run.loader = TimedLoader(run.loader, lambda: self._before_batch(run), timeline)

    @hookimpl(tryfirst=True)
    def on_train_epoch_end(self, run: Run) -> None:
        """Log the means of the pass."""
        if self._trace is not None:
            self._end_trace(run)
        if self._timed is not None:
            run.loader, self._timed = self._timed, None
        timeline, profile = self._clock, self.profile
        timeline.enter("between")
        assert profile is not None
        profile.flops = self._count.flops
        profile.peak = self._count.peak(run) if profile.flops else None
        run.log(profile.metrics(timeline.sections["steps"].since(self._epoch)))

    @hookimpl(tryfirst=True)
    def on_validation_start(self) -> None:
        """A section of its own, in a fit."""
        if self._timeline is not None:
            self._timeline.enter("validation")

    @hookimpl(trylast=True)
    def on_validation_end(self, run: Run) -> None:
        """Back to where it was called."""
        if self._timeline is not None:
            inside = "train_epoch" in run.open_events
            self._timeline.enter(self._next_section() if inside else "between")

    # --- batches -------------------------------------------------------------------------------

    @property
    def _clock(self) -> Timeline:
        assert self._timeline is not None
        return self._timeline

    def _next_section(self) -> str:
        """Where the coming batch belongs."""
        if self._seen == 0:
            return "first"
        if self._trace is not None or self._count.on:
            return "observed"
        if self._asynchronous and self._seen % _WAIT_EVERY == _WAIT_EVERY - 1:
            return "waited"
        return "steps"

    def _before_batch(self, run: Run) -> AbstractContextManager[Any]:
        """The loop asks for a batch: begin and end here what is for whole steps."""
        self._count.on = self.flops and self._seen == _COUNTED and self._count.flops is None
        if self._trace is not None and self._trace.step():
            self._end_trace(run)
        if self._wants_trace and self._seen >= _TRACED:
            self._wants_trace = False
            self._clock.enter("observed")
            self._begin_trace(run)
        self._clock.enter(self._next_section())
        return _NOTHING if self._trace is None else self._trace.range("waiting for data")

    def _begin_trace(self, run: Run) -> None:
        from trainbus_profiler.tracing import Trace

        if Trace.refused():
            logger.warning("profiler: no trace, as another profiler of torch is at work")
        else:
            self._trace = Trace(run, self.trace, self.memory)

    def _end_trace(self, run: Run) -> None:
        trace, profile = self._trace, self.profile
        assert trace is not None and profile is not None
        path = run.dir / "profile" / "trace.json.gz"
        profile.allocations = trace.write(path)
        if path.exists():
            profile.trace = str(path)
        self._trace = None

    @hookimpl(trylast=True)
    def on_train_batch_end(self, run: Run) -> None:
        """Count the batch; now and then look at the memory."""
        self._seen += 1
        self._clock.done(run.batch_size, tokens_in(run.batch, self.tokens))
        if self.memory and monotonic() >= self._memory_due:
            self._memory_due = monotonic() + _MEMORY_EVERY
            stats = run.accelerator.memory_stats()
            run.log({f"profile/memory_{name}": size for name, size in stats.items()})

    # --- the parts of a step -------------------------------------------------------------------

    def _counting(self, run: Run) -> AbstractContextManager[None]:
        return self._count.counting(run) if self._count.on else _NOTHING

    @hookimpl(wrapper=True, trylast=True)
    def place_batch(self, run: Run) -> Generator[None, Any, Any]:
        """The transfer."""
        if self._timeline is None or run.stage != "train":
            return (yield)
        self._timeline.begin("transfer")
        try:
            return (yield)
        finally:
            self._timeline.end()

    @hookimpl(wrapper=True, trylast=True)
    def training_step(self, run: Run) -> Generator[None, Any, Any]:
        """The forward pass."""
        if self._timeline is None:
            return (yield)
        self._timeline.begin("forward")
        try:
            with self._counting(run):
                return (yield)
        finally:
            self._timeline.end()

    @hookimpl(wrapper=True, trylast=True)
    def backward(self, run: Run) -> Generator[None, bool, bool]:
        """The backward pass."""
        if self._timeline is None:
            return (yield)
        self._timeline.begin("backward")
        try:
            with self._counting(run):
                return (yield)
        finally:
            self._timeline.end()

    @hookimpl(wrapper=True, trylast=True)
    def optimizer_step(self) -> Generator[None, bool, bool]:
        """The optimizer."""
        if self._timeline is None:
            return (yield)
        self._timeline.begin("optimizer")
        try:
            return (yield)
        finally:
            self._timeline.end()
