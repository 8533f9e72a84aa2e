"""Change the learning rate while a run goes on."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainbus.arguments import check_number, check_whole, is_number
from trainbus.builtin.accumulate import Accumulate
from trainbus.builtin.curve_options import NAMES, Name, Options
from trainbus.builtin.monitor import SECTION as MONITOR, Monitor
from trainbus.checkpoints import sections
from trainbus.engine.scheduled import Per, Scheduled, parted
from trainbus.errors import CheckpointError, PluginError, UsageError
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import fields, listed, mapping, one_of, text

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from trainbus.engine.loop import Loop
    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")

_DIV, _FINAL_DIV, _MOMENTUM = 25.0, 1e5, (0.95, 0.85, 0.95)

_STATES = listed(mapping())
_SECTION = fields(
    {
        "kinds": listed(text()),
        "schedulers": _STATES,
        "given": _STATES,
        "moved": listed(one_of(bool)),
        "monitors": listed(MONITOR),
    }
)


class Schedule:
    """Step schedulers of torch and others, or a schedule by name, for each optimizer.

    `Schedule(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10), per="epoch")` takes
    any scheduler. `ReduceLROnPlateau` is stepped each time that `monitor` was measured. Those that
    `configure_optimizer` returns are stepped by a plugin of this kind, too.

    The schedules by name take what the optimizer was made with as the highest, and last as long as
    the run is planned to: `max_steps`, or the steps of all epochs. All but `one_cycle` go up in a
    straight line first (Goyal et al., 2017), for `warmup`.

    - `one_cycle` goes up and down once, and momentum (or the first beta) the other way round (Smith
      and Topin, 2017; Smith, 2018). The shape and the defaults are those of fastai: half cosines
      where the papers have straight lines, up from 1/25 in a quarter of the run, down to 1/100000,
      momentum 0.95, 0.85, 0.95.
    - `warmup_cosine` goes down to `end` along half a cosine (Loshchilov and Hutter, 2017, without
      restarts); `warmup` is 5% of the run, about the 5 epochs of 90 of Goyal et al.
    - `cosine_restarts` goes down along `cycles` half cosines, each from the top.
    - `linear` and `polynomial` go down to `end`, straight or by a `power` of what is left.
    - `constant` stays.
    - `inverse_sqrt` goes down with the root of the steps (Vaswani et al., 2017), the more the
      longer it went up.
    - `wsd` goes up, stays, and goes down to `end` in the last `decay` of the run, by a root
      (Haegele et al., 2024).

    Args:
        make: makes the scheduler of an optimizer, or several; called once for each, with the
            number of steps of the run as well where it takes two arguments.
        name: of a schedule, in place of `make`.
        per: what the schedule counts: optimizer steps ("step"), epochs ("epoch") or, for `make`,
            validations ("validation").
        monitor: the metric for `ReduceLROnPlateau`.
        warmup: how long a schedule by name goes up: a part of the run below 1, or so many steps
            (epochs, with `per="epoch"`). A quarter for `one_cycle`, 5% for the others.
        div: one_cycle: the highest learning rate divided by the first.
        final_div: one_cycle: the highest learning rate divided by the last.
        momentum: one_cycle: momentum at the start, at the highest learning rate and at the end;
            None leaves it alone. SGD without momentum stays without.
        end: what a schedule by name ends with, as a part of the highest; not for one_cycle.
        power: polynomial: of what is left.
        cycles: cosine_restarts: how many.
        decay: wsd: the part of the run in which it goes down.
        of: what of the groups is scheduled by name: "lr", "weight_decay", "momentum" (the first of
            betas, where there are some), or another number.
    """

    def __init__(
        self,
        make: Callable[..., Any] | None = None,
        name: Name | None = None,
        per: Per = "step",
        monitor: str = "valid/loss",
        warmup: float | None = None,
        div: float = _DIV,
        final_div: float = _FINAL_DIV,
        momentum: tuple[float, float, float] | None = _MOMENTUM,
        end: float = 0.0,
        power: float = 1.0,
        cycles: int = 1,
        decay: float = 0.2,
        of: str = "lr",
    ) -> None:
        if (make is None) == (name is None):
            raise PluginError("give either make=, which makes a scheduler, or name=")
        if make is not None and not callable(make):
            raise PluginError(
                f"make={make!r:.80}: give a function of the optimizer that makes its scheduler, "
                "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10) for example"
            )
        if name is not None and name not in NAMES:
            raise PluginError(f"name={name!r}: give one of {', '.join(map(repr, NAMES))}")
        if per not in ("step", "epoch", *(["validation"] if make else [])):
            raise PluginError(f"per={per!r}: give 'step' or 'epoch'; 'validation' goes with make=")
        if warmup is not None and name is None:
            raise PluginError(f"warmup={warmup} is for a schedule by name, not for make=")
        if warmup is not None and not (
            is_number(warmup) and (0 <= warmup < 1 or (warmup >= 1 and float(warmup).is_integer()))
        ):
            raise PluginError(f"warmup={warmup}: give a part of the run below 1, or whole steps")
        if name != "one_cycle" and (div, final_div, momentum) != (_DIV, _FINAL_DIV, _MOMENTUM):
            raise PluginError("div, final_div and momentum are for name='one_cycle'")
        check_number(1, div=div, final_div=final_div)
        if momentum is not None and not (
            len(momentum) == 3 and all(0 < value < 1 for value in momentum)
        ):
            raise PluginError(f"momentum={momentum}: give three numbers between 0 and 1, or None")
        check_number(0, end=end)
        check_number(above=0, power=power)
        check_number(above=0, most=1, decay=decay)
        check_whole(1, cycles=cycles)
        if of != "lr" and name in (None, "one_cycle"):
            raise PluginError(f"of={of!r} goes with a schedule by name, and not with one_cycle")
        self.make = make
        self.name = name
        self.per: Per = per
        self.monitor = monitor
        self.warmup = warmup
        self.of = of
        self.options = Options(div, final_div, momentum, end, power, cycles, decay)
        self._forget()

    def _forget(self) -> None:
        #: All of the run's, in the order of its optimizers, each with when it is stepped.
        self._entries: list[Scheduled] = []
        #: Of each: the metric that it waits for, if it does.
        self._monitors: list[Monitor | None] = []
        #: By optimizer: the names of its learning rates; whether it stepped in this epoch; the
        #: step of the run at which it stepped last.
        self._names: list[list[str]] = []
        self._moved: list[bool] = []
        self._last: list[int] = []
        self._saved: dict[str, Any] | None = None
        #: The state of each as it was made.
        self._given: list[Any] = []

    @property
    def schedulers(self) -> list[Any]:
        """The schedulers of the run, in the order of its optimizers."""
        return [each.scheduler for each in self._entries]

    # --- listening -----------------------------------------------------------------------------

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Begin again with each fit, before a checkpoint may bring what was."""
        if run.stage == "train":
            self._forget()

    @hookimpl
    def on_train_epoch_start(self, run: Run) -> None:
        """Make the schedulers, now that the length of a pass is known."""
        if not self._entries:
            self._make_all(run)

    @hookimpl
    def on_after_optimizer_step(self, run: Run) -> None:
        """Log the learning rates that were used, and go on to the next.

        Several steps of one optimizer within one step of the run count once.
        """
        for i, optimizer in enumerate(run.optimizers if self._entries else ()):
            if optimizer is not run.optimizer or self._last[i] == run.global_step:
                continue
            self._last[i] = run.global_step
            self._moved[i] = True
            groups = zip(self._names[i], optimizer.param_groups, strict=False)
            run.log({name: group["lr"] for name, group in groups})
            for each in self._entries:
                own = each.per == "step" and each.scheduler.optimizer is optimizer
                if own and run.global_step % each.every == 0 and not _needs_metric(each.scheduler):
                    _advance(each.scheduler, run.global_step)

    @hookimpl(trylast=True)
    def on_validation_end(self, run: Loop) -> None:
        """Go on with what counts validations, or waits for a metric of them."""
        if "fit" not in run.open_events:
            return
        for each, monitor in zip(self._entries, self._monitors, strict=True):
            if monitor is None and each.per == "validation":
                _advance(each.scheduler, run.global_step)
        self._go_by_metrics(run, "valid/")

    @hookimpl
    def on_epoch_end(self, run: Loop) -> None:
        """Go on with what counts epochs; an epoch that was cut short is not over."""
        if run.epochs_done <= run.epoch:
            return
        if not self._entries:  # a checkpoint stood behind the training pass
            self._make_all(run)
        for each, monitor in zip(self._entries, self._monitors, strict=True):
            due = each.per == "epoch" and (run.epoch + 1) % each.every == 0
            if due and monitor is None and self._has_moved(run, each):
                _advance(each.scheduler, run.epoch + 1)
        self._go_by_metrics(run, "")
        self._moved = [False] * len(run.optimizers)

    def _go_by_metrics(self, run: Loop, start: str) -> None:
        for each, monitor in zip(self._entries, self._monitors, strict=True):
            if monitor is None or not monitor.metric.startswith(start):
                continue
            due = monitor.is_new(run) if start else monitor.due(run)
            if due and self._has_moved(run, each):
                each.scheduler.step(monitor.value(run, "schedule"))

    def _has_moved(self, run: Run, entry: Scheduled) -> bool:
        """Whether the optimizer of a scheduler stepped in this epoch."""
        own = entry.scheduler.optimizer
        pairs = zip(run.optimizers, self._moved, strict=True)
        return any(moved for optimizer, moved in pairs if optimizer is own)

    # --- making --------------------------------------------------------------------------------

    def _make_all(self, run: Run) -> None:
        from trainbus.checkpoints import given

        optimizers = run.optimizers
        values = [_values(optimizer) for optimizer in optimizers]
        self._entries = [each for one in optimizers for each in self._made(one, run)]
        self._monitors = [
            Monitor(each.monitor) if _needs_metric(each.scheduler) else None
            for each in self._entries
        ]
        self._given = [given.plain(each.state_dict()) for each in self.schedulers]
        self._names = _names(optimizers)
        self._moved = [False] * len(optimizers)
        self._last = [-1] * len(optimizers)
        if self._saved is not None:
            self._restore(self._saved)
            # A new scheduler sets the first learning rate; those of the checkpoint come back.
            for optimizer, groups in zip(optimizers, values, strict=True):
                for group, before in zip(optimizer.param_groups, groups, strict=True):
                    group.update(before)

    def _made(self, optimizer: Optimizer, run: Run) -> list[Scheduled]:
        if self.name is not None:
            from trainbus.builtin import curves

            total = self._planned(run)
            made = curves.named(self.name, optimizer, total, self.warmup, self.options, self.of)
            return [Scheduled(made, self.per)]
        assert self.make is not None
        made = (
            self.make(optimizer, self._planned(run))
            if _takes_total(self.make)
            else (self.make(optimizer))
        )
        others, entries = parted(made)
        if others or not (entries or isinstance(made, list)):
            kind = type(others[0] if others else made).__name__
            raise UsageError(f"schedule: make returned {kind}, not a scheduler")
        return [
            Scheduled(each.scheduler, self.per, self.monitor)
            if each == Scheduled(each.scheduler)
            else each
            for each in entries
        ]

    def _planned(self, run: Run) -> int:
        """The length of the run, in what the schedule counts."""
        epochs, batches, limit = run.epochs_planned, run.batches_in_pass, run.trainer.max_steps
        what = repr(self.name) if self.name else "of make="
        if self.per == "epoch":
            if epochs is None:
                raise UsageError(f"schedule {what} per epoch: {_NO_EPOCHS}")
            return epochs
        lengths = [] if limit is None else [limit]
        if epochs is not None and batches is not None:
            lengths.append(sum(math.ceil(batches / _window(run, e)) for e in range(epochs)))
        if not lengths:
            why = _NO_EPOCHS if epochs is None else "the training loader does not tell its length"
            raise UsageError(
                f"schedule {what} must know how many steps the run has, but {why}; "
                "Trainer(max_steps=...) says it, too"
            )
        return min(lengths)

    # --- state ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where each scheduler stands."""
        if not self._entries:
            return self._saved or {}
        from trainbus.checkpoints import given

        return {
            "kinds": [type(scheduler).__name__ for scheduler in self.schedulers],
            "schedulers": [given.plain(scheduler.state_dict()) for scheduler in self.schedulers],
            "given": self._given,
            "moved": list(self._moved),
            "monitors": [each.state_dict() for each in self._monitors if each is not None],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; before the first epoch there are no schedulers yet, and it waits."""
        if not state:
            return
        sections.check(state, _SECTION, "schedule")
        if self._entries:
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
        counts = {len(state[name]) for name in ("kinds", "schedulers", "given")}
        monitors = [each for each in self._monitors if each is not None]
        fits = len(state["monitors"]) == len(monitors) and len(state["moved"]) == len(self._moved)
        if len(counts) > 1 or not fits:
            raise CheckpointError("the section of schedule tells of other schedulers than it names")
        pairs = zip(self.schedulers, state["schedulers"], state["given"], strict=True)
        for scheduler, saved, before in pairs:
            values, changes = given.merged(scheduler.state_dict(), before, saved)
            given.put(scheduler, values, f"schedule: {type(scheduler).__name__}")
            for sentence in given.told(f"schedule: {type(scheduler).__name__}", changes):
                logger.warning("%s", sentence)
        self._moved = list(state["moved"])
        for monitor, saved in zip(monitors, state["monitors"], strict=True):
            monitor.load_state_dict(saved)
        self._last = [-1] * len(self._moved)


_NO_EPOCHS = "the number of epochs is not known: give Trainer(epochs=...) or run.epochs(n)"


def _window(run: Run, epoch: int) -> int:
    """Batches that make a step in an epoch, also in one to come."""
    for plugin in run.bus.plugins.values():
        if isinstance(plugin, Accumulate):
            return plugin.window(epoch, run.trainer.accumulate)
    return run.accumulate


def _is_torchs(scheduler: Any) -> bool:
    from torch.optim.lr_scheduler import LRScheduler

    return isinstance(scheduler, LRScheduler)


def _needs_metric(scheduler: Any) -> bool:
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return isinstance(scheduler, ReduceLROnPlateau)


def _takes_total(make: Callable[..., Any]) -> bool:
    """Whether it takes the number of steps as well."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [each for each in parameters if each.default is each.empty and each.kind in (0, 1)]
    return len(needed) == 2


def _advance(scheduler: Any, count: int) -> None:
    """Step a scheduler; its optimizer has stepped, whatever torch could see of that."""
    if not _is_torchs(scheduler):  # timm's are told what they count
        per_step = callable(getattr(scheduler, "step_update", None)) and not scheduler.t_in_epochs
        (scheduler.step_update if per_step else scheduler.step)(count)
        return
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
