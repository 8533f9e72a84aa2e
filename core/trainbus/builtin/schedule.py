"""Change the learning rate while a run goes on."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from trainbus.builtin.accumulate import Accumulate
from trainbus.builtin.monitor import SECTION as MONITOR, Monitor
from trainbus.checkpoints import sections
from trainbus.errors import CheckpointError, PluginError, UsageError
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import fields, listed, mapping, one_of, text

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")

_DIV, _FINAL_DIV, _MOMENTUM = 25.0, 1e5, (0.95, 0.85, 0.95)
#: The part of the run in which the learning rate rises, by the name of the schedule.
_WARMUP = {"one_cycle": 0.25, "warmup_cosine": 0.05}

_STATES = listed(mapping())
_SECTION = fields(
    {
        "kinds": listed(text()),
        "schedulers": _STATES,
        "given": _STATES,
        "moved": listed(one_of(bool)),
        "monitor": MONITOR,
    }
)


class Schedule:
    """Step a scheduler of torch for each optimizer, or one of two schedules by name.

    `Schedule(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10), per="epoch")` takes
    any scheduler of torch. `ReduceLROnPlateau` is stepped once per epoch, with `monitor`.

    The schedules by name take the optimizer's own learning rates as the highest, and last as long
    as the run is planned to: `max_steps`, or the steps of all epochs.

    `one_cycle` goes up and down once, and momentum (or the first beta) the other way round (Smith
    and Topin, 2017; Smith, 2018). The shape and the defaults are those of fastai: half cosines
    where the papers have straight lines, up from 1/25 in a quarter of the run, down to 1/100000,
    momentum 0.95, 0.85, 0.95.

    `warmup_cosine` goes up in a straight line (Goyal et al., 2017), by default for 5% of the run,
    about the 5 epochs of 90 of that paper; then down to 0 along half a cosine (Loshchilov and
    Hutter, 2017, without restarts).

    Args:
        make: makes the scheduler of an optimizer; called once for each.
        name: "one_cycle" or "warmup_cosine", in place of `make`.
        per: what the schedule counts: optimizer steps ("step") or epochs ("epoch").
        monitor: the metric for `ReduceLROnPlateau`.
        warmup: how long a schedule by name goes up: a part of the run below 1, or so many steps
            (epochs, with `per="epoch"`).
        div: one_cycle: the highest learning rate divided by the first.
        final_div: one_cycle: the highest learning rate divided by the last.
        momentum: one_cycle: momentum at the start, at the highest learning rate and at the end;
            None leaves it alone. SGD without momentum stays without.
    """

    def __init__(
        self,
        make: Callable[[Any], Any] | None = None,
        name: Literal["one_cycle", "warmup_cosine"] | None = None,
        per: Literal["step", "epoch"] = "step",
        monitor: str = "valid/loss",
        warmup: float | None = None,
        div: float = _DIV,
        final_div: float = _FINAL_DIV,
        momentum: tuple[float, float, float] | None = _MOMENTUM,
    ) -> None:
        if (make is None) == (name is None):
            raise PluginError("give either make=, which makes a scheduler, or name=")
        if make is not None and not callable(make):
            raise PluginError(
                f"make={make!r:.80}: give a function of the optimizer that makes its scheduler, "
                "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10) for example"
            )
        if name is not None and name not in _WARMUP:
            raise PluginError(f"name={name!r}: give {' or '.join(map(repr, _WARMUP))}")
        if per not in ("step", "epoch"):
            raise PluginError(f"per={per!r}: give 'step' or 'epoch'")
        if warmup is not None and name is None:
            raise PluginError(f"warmup={warmup} is for a schedule by name, not for make=")
        if warmup is not None and not (
            0 <= warmup < 1 or (warmup >= 1 and float(warmup).is_integer())
        ):
            raise PluginError(f"warmup={warmup}: give a part of the run below 1, or whole steps")
        if name != "one_cycle" and (div, final_div, momentum) != (_DIV, _FINAL_DIV, _MOMENTUM):
            raise PluginError("div, final_div and momentum are for name='one_cycle'")
        if not (div >= 1 and final_div >= 1):
            raise PluginError(f"div={div}, final_div={final_div}: give numbers of at least 1")
        if momentum is not None and not (
            len(momentum) == 3 and all(0 < value < 1 for value in momentum)
        ):
            raise PluginError(f"momentum={momentum}: give three numbers between 0 and 1, or None")
        self.make = make
        self.name = name
        self.per = per
        self.monitor = monitor
        self.warmup = warmup
        self.div = div
        self.final_div = final_div
        self.momentum = momentum
        self._monitor = Monitor(monitor)
        self._forget()

    def _forget(self) -> None:
        #: One for each optimizer of the run, in their order.
        self.schedulers: list[Any] = []
        #: By optimizer: what its scheduler counts; the names of its learning rates; whether it
        #: stepped in this epoch; the step of the run at which it stepped last.
        self._per: list[str] = []
        self._names: list[list[str]] = []
        self._moved: list[bool] = []
        self._last: list[int] = []
        self._saved: dict[str, Any] | None = None
        #: The state of each as it was made.
        self._given: list[Any] = []
        self._monitor.reset()

    # --- listening -----------------------------------------------------------------------------

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Begin again with each fit, before a checkpoint may bring what was."""
        if run.stage == "train":
            self._forget()

    @hookimpl
    def on_train_epoch_start(self, run: Run) -> None:
        """Make the schedulers, now that the length of a pass is known."""
        if not self.schedulers:
            self._make_all(run)

    @hookimpl
    def on_after_optimizer_step(self, run: Run) -> None:
        """Log the learning rates that were used, and go on to the next.

        Several steps of one optimizer within one step of the run count once.
        """
        for i, scheduler in enumerate(self.schedulers):
            optimizer = run.optimizers[i]
            if optimizer is run.optimizer and self._last[i] != run.global_step:
                self._last[i] = run.global_step
                self._moved[i] = True
                groups = zip(self._names[i], optimizer.param_groups, strict=False)
                run.log({name: group["lr"] for name, group in groups})
                if self._per[i] == "step":
                    _advance(scheduler)

    @hookimpl
    def on_epoch_end(self, run: Loop) -> None:
        """Go on with what counts epochs; an epoch that was cut short is not over."""
        if run.epochs_done <= run.epoch:
            return
        if not self.schedulers:  # a checkpoint stood behind the training pass
            self._make_all(run)
        for scheduler, per, moved in zip(self.schedulers, self._per, self._moved, strict=True):
            if moved and per == "epoch":
                _advance(scheduler)
            elif moved and per == "metric" and self._monitor.due(run):
                scheduler.step(self._monitor.value(run, "schedule"))
        self._moved = [False] * len(self.schedulers)

    # --- making --------------------------------------------------------------------------------

    def _make_all(self, run: Run) -> None:
        from trainbus.checkpoints import given

        optimizers = run.optimizers
        values = [_values(optimizer) for optimizer in optimizers]
        total = 0 if self.name is None else self._planned(run)
        self.schedulers = [self._made(optimizer, total) for optimizer in optimizers]
        self._given = [given.plain(each.state_dict()) for each in self.schedulers]
        self._per = ["metric" if _needs_metric(each) else self.per for each in self.schedulers]
        self._names = _names(optimizers)
        self._moved = [False] * len(optimizers)
        self._last = [-1] * len(optimizers)
        if self._saved is not None:
            self._restore(self._saved)
            # A new scheduler sets the first learning rate; those of the checkpoint come back.
            for optimizer, groups in zip(optimizers, values, strict=True):
                for group, before in zip(optimizer.param_groups, groups, strict=True):
                    group.update(before)

    def _made(self, optimizer: Optimizer, total: int) -> Any:
        if self.make is not None:
            from torch.optim.lr_scheduler import LRScheduler

            scheduler = self.make(optimizer)
            if not isinstance(scheduler, LRScheduler):
                raise UsageError(
                    f"schedule: make returned {type(scheduler).__name__}, not a scheduler of torch"
                )
            return scheduler
        from trainbus.builtin import curves

        assert self.name is not None
        warmup = _WARMUP[self.name] if self.warmup is None else self.warmup
        if self.name == "warmup_cosine":
            return curves.warmup_cosine(optimizer, total, warmup)
        return curves.one_cycle(optimizer, total, warmup, self.div, self.final_div, self.momentum)

    def _planned(self, run: Run) -> int:
        """The length of the run, in what the schedule counts."""
        epochs, batches, limit = run.epochs_planned, run.batches_in_pass, run.trainer.max_steps
        if self.per == "epoch":
            if epochs is None:
                raise UsageError(f"schedule {self.name!r} per epoch: {_NO_EPOCHS}")
            return epochs
        lengths = [] if limit is None else [limit]
        if epochs is not None and batches is not None:
            lengths.append(sum(math.ceil(batches / _window(run, e)) for e in range(epochs)))
        if not lengths:
            why = _NO_EPOCHS if epochs is None else "the training loader does not tell its length"
            raise UsageError(
                f"schedule {self.name!r} must know how many steps the run has, but {why}; "
                "Trainer(max_steps=...) says it, too"
            )
        return min(lengths)

    # --- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where each scheduler stands."""
        if not self.schedulers:
            return self._saved or {}
        from trainbus.checkpoints import given

        return {
            "kinds": [type(scheduler).__name__ for scheduler in self.schedulers],
            "schedulers": [given.plain(scheduler.state_dict()) for scheduler in self.schedulers],
            "given": self._given,
            "moved": list(self._moved),
            "monitor": self._monitor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; before the first epoch there are no schedulers yet, and it waits."""
        if not state:
            return
        sections.check(state, _SECTION, "schedule")
        if self.schedulers:
            self._restore(state)
        else:
            self._saved = state

    def _restore(self, state: dict[str, Any]) -> None:
        from trainbus.checkpoints import given

        kinds = [type(scheduler).__name__ for scheduler in self.schedulers]
        if state["kinds"] != kinds:
            raise CheckpointError(
                f"the checkpoint has the schedulers {state['kinds']}, this run {kinds}; give the "
                "schedule that it was written with"
            )
        counts = {len(state[name]) for name in ("kinds", "schedulers", "given", "moved")}
        if len(counts) > 1:
            raise CheckpointError("the section of schedule tells of other schedulers than it names")
        pairs = zip(self.schedulers, state["schedulers"], state["given"], strict=True)
        for scheduler, saved, before in pairs:
            values, changes = given.merged(scheduler.state_dict(), before, saved)
            given.put(scheduler, values, f"schedule: {type(scheduler).__name__}")
            for sentence in given.told(f"schedule: {type(scheduler).__name__}", changes):
                logger.warning("%s", sentence)
        self._moved = list(state["moved"])
        self._monitor.load_state_dict(state["monitor"])
        self._last = [-1] * len(self.schedulers)


_NO_EPOCHS = "the number of epochs is not known: give Trainer(epochs=...) or run.epochs(n)"


def _window(run: Run, epoch: int) -> int:
    """Batches that make a step in an epoch, also in one to come."""
    for plugin in run.bus.plugins.values():
        if isinstance(plugin, Accumulate):
            return plugin.window(epoch, run.trainer.accumulate)
    return run.accumulate


def _needs_metric(scheduler: Any) -> bool:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return isinstance(scheduler, ReduceLROnPlateau)


def _advance(scheduler: Any) -> None:
    """Step a scheduler; its optimizer has stepped, whatever torch could see of that."""
    if (
        getattr(scheduler, "last_epoch", 0) > 0
    ):  # torch looks at the order of the calls in the first one only
        scheduler.step()
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*optimizer\.step\(\)", UserWarning)
        scheduler.step()


def _names(optimizers: list[Optimizer]) -> list[list[str]]:
    """`lr`; of several groups `lr/NAME` or `lr/0`; of several optimizers `lr/0/NAME`.

    Groups that all have one name are one.
    """
    names = []
    for i, optimizer in enumerate(optimizers):
        groups = optimizer.param_groups
        first = ["lr"] if len(optimizers) == 1 else ["lr", str(i)]
        called = [str(group.get("name", j)) for j, group in enumerate(groups)]
        own = [[] if len(set(called)) == 1 else [name] for name in called]
        names.append(["/".join(first + last) for last in own])
    return names


def _values(optimizer: Optimizer) -> list[dict[str, Any]]:
    """What the groups of an optimizer say besides their parameters, as it is now."""
    return [
        {
            key: value.clone() if hasattr(value, "clone") else value
            for key, value in group.items()
            if key != "params"
        }
        for group in optimizer.param_groups
    ]
