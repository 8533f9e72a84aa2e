"""Rehearsals: runs that leave nothing behind, and of which nobody hears who does not compute."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trainbus import Trainer, hookimpl
from trainbus.batches import Wrapped, set_epoch

if TYPE_CHECKING:
    from trainbus import Run

#: What a rehearsal says itself: how long it is, and that random states go on from where they are.
_OWN: dict[str, Any] = {
    "max_steps": None, "max_time": None, "overfit": None, "validate_every": 1, "seed": None,
    "min_epochs": 0, "min_steps": 0, "validate_first": False, "sanity_batches": 0,
}  # fmt: skip
#: Events that say how a run ended, or what it left.
_NEWS = frozenset(
    {"on_fit_end", "on_exception", "on_run_end", "on_checkpoint_saved", "on_checkpoint_loaded"}
)
#: A plugin that listens here changes the model or the device, and changes it back at the end.
_SET_UP = frozenset({"configure_model", "configure_optimizer", "provide_accelerator"})
_UNDOING = frozenset({"on_fit_end", "on_exception", "on_run_end"})


def rehearsing(
    plugins: Sequence[str | object], options: dict[str, Any], *more: Any, **changed: Any
) -> Trainer:
    """A trainer with those plugins that change what is computed, and no others.

    Such a plugin hears nothing of how the run ends, of checkpoints and of records. Only where it
    has to put back what it set up is the end of the run called: in a plugin that listens to a hook
    of the set-up (`configure_model` and the like), or whose class says `computes = True`.

    Args:
        plugins: of the learner.
        options: of its trainers.
        more: further plugins, with a `plugin_name`.
        changed: further options.
    """
    trainer = Trainer(plugins=plugins, **{**options, **_OWN, **changed})
    bus = trainer.bus
    # An accelerator that a plugin provides is used here as well.
    heard = bus.order()
    computing = {*bus.computing(), *heard.get("provide_accelerator", ())}
    news = _NEWS | {name for name, hook in bus.hooks.items() if hook.kind == "record"}
    for name, plugin in bus.plugins.items():
        if name == "core":
            continue
        if name not in computing:
            bus.unregister(name)
            continue
        sets_up = any(name in heard.get(hook, ()) for hook in _SET_UP)
        undoes = sets_up or getattr(plugin, "computes", False) is True
        bus.silence(name, news - _UNDOING if undoes else news)
    for each in (*more, _Randomness()):
        bus.register(each, each.plugin_name)
    return trainer


class _Randomness:
    """Puts back the random states of the process and the device when the run is over."""

    plugin_name = "learner_randomness"

    @hookimpl(tryfirst=True)
    def on_run_start(self, run: Run) -> None:
        """Remember them."""
        self._state = run.accelerator.random_state()

    @hookimpl(trylast=True)
    def on_run_end(self, run: Run) -> None:
        """Put them back."""
        run.accelerator.set_random_state(self._state)


class Cycled(Wrapped):
    """The first batches of a loader, which begins again where it is too short."""

    one_for_one = False

    def __init__(self, loader: Any, count: int) -> None:
        super().__init__(loader)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        given = epoch = 0
        while given < self.count:
            before = given
            for batch in self.loader:
                yield batch
                given += 1
                if given == self.count:
                    return
            if given == before:
                return  # it is empty, which the trainer reports
            epoch += 1
            set_epoch(self.loader, epoch)


class Repeated(Wrapped):
    """The same batch, several times, in place of what the loader gives that it is from."""

    one_for_one = False

    def __init__(self, loader: Any, batch: Any, count: int) -> None:
        super().__init__(loader)
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


@contextmanager
def silence() -> Iterator[None]:
    """Without the log of a run's header, which is of no run that anyone asked for."""
    logger = logging.getLogger("trainbus")
    level = logger.level
    if logger.getEffectiveLevel() <= logging.INFO:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
