"""Runs that leave nothing behind: no records, no files, no changed weights, no drawn numbers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainbus import Trainer, hookimpl

if TYPE_CHECKING:
    from trainbus import Run

#: What watches, writes or schedules; a measurement has no use for it.
_LEFT_OUT = (
    "checkpoint", "early_stopping", "ema", "finetune", "journal", "manifest", "nonfinite", "oom",
    "progress", "schedule", "summary",
)  # fmt: skip
#: Options of a trainer that say how long and how often.
_HOW_LONG = ("epochs", "max_steps", "max_time", "log_every", "validate_every", "dry_run", "overfit")


def quiet_trainer(
    plugins: Sequence[str | object], options: dict[str, Any], *more: object, **changed: Any
) -> Trainer:
    """A trainer with those plugins that change how training computes, and no others.

    Args:
        plugins: those of the learner.
        options: of its trainers.
        more: further plugins.
        changed: further options.
    """
    kept = {name: value for name, value in options.items() if name not in _HOW_LONG}
    kept.pop("seed", None)  # the random states go on from where they are, and are put back
    trainer = Trainer(plugins=[*plugins, *more, _Randomness()], **{**kept, **changed})
    bus = trainer.bus
    for name, plugin in bus.plugins.items():
        if name in _LEFT_OUT or name in bus.loggers or getattr(plugin, "observer", False):
            bus.unregister(name)
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


@contextmanager
def put_back(
    model: nn.Module, loaders: Iterable[Any] = (), plugins: Iterable[object] = ()
) -> Iterator[None]:
    """Put back, whatever happens: weights, buffers, gradients, modes, loaders and plugins' states.

    Copies are kept on the CPU, so that a measurement of the device's memory does not see them.

    Args:
        model: parameters and buffers get their values in place.
        loaders: counters of epochs and positions, and their random generators.
        plugins: those with `state_dict` and `load_state_dict` (a scaler of gradients, the
            generator of an augmentation).
    """
    # By name: buffers become other tensors when a module moves to another device.
    values = {name: each.detach().to("cpu", copy=True) for name, each in _tensors(model)}
    gradients = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    positions = [_position(part) for loader in loaders for part in _parts(loader)]
    states = [
        (plugin, copy.deepcopy(plugin.state_dict()))
        for plugin in plugins
        if hasattr(plugin, "state_dict") and hasattr(plugin, "load_state_dict")
    ]
    for parameter in model.parameters():  # those that are here belong to the caller
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in _tensors(model):
                tensor.copy_(values[name])
        for parameter, gradient, trained in gradients:
            parameter.requires_grad_(trained)
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode
        for part, counters, generator in positions:
            _set_position(part, counters, generator)
        for plugin, state in states:
            plugin.load_state_dict(state)


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _parts(loader: Any) -> list[Any]:
    """A loader, its samplers, and what they hold their order in."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    found = [
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(loader, "order", None),
    ]
    found.append(getattr(batch_sampler, "sampler", None))
    unique = {id(part): part for part in found if hasattr(part, "__dict__")}
    return list(unique.values())


def _position(part: Any) -> tuple[Any, dict[str, Any], Tensor | None]:
    counters = {name: value for name, value in vars(part).items() if type(value) is int}
    generator = getattr(part, "generator", None)
    state = generator.get_state() if isinstance(generator, torch.Generator) else None
    return part, counters, state


def _set_position(part: Any, counters: dict[str, int], generator: Tensor | None) -> None:
    for name, value in counters.items():
        if vars(part).get(name) != value:  # a DataLoader lets some be set once only
            setattr(part, name, value)
    if generator is not None:
        part.generator.set_state(generator)


class Cycled:
    """The first batches of a loader, which begins anew where it is too short.

    Everything else is asked of the loader itself.
    """

    def __init__(self, loader: Any, count: int) -> None:
        self._loader = loader
        self._count = count

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        given = epoch = 0
        while given < self._count:
            before = given
            for batch in self._loader:
                yield batch
                given += 1
                if given == self._count:
                    return
            if given == before:
                return  # it is empty, which the trainer tells
            epoch += 1
            if callable(tell := getattr(self._loader, "set_epoch", None)):
                tell(epoch)


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
