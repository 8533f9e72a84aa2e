"""Train the head of a pretrained model first, then more and more of its body."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from trainbus.checkpoints import sections
from trainbus.errors import CheckpointError, PluginError, UsageError
from trainbus.events.markers import hookimpl
from trainbus.storage.untrusted import fields, listed, text, whole

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from trainbus.engine.run import Run

logger = logging.getLogger("trainbus")


@dataclass
class _Part:
    """What is unfrozen together; without an epoch, never."""

    epoch: int | None
    #: Those that get its learning rate, and those of them that are frozen until its epoch.
    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    frozen: dict[str, nn.Parameter] = field(default_factory=dict)
    #: Layers with running statistics that stand still until its epoch.
    norms: list[nn.Module] = field(default_factory=list)

    def is_frozen(self, epoch: int) -> bool:
        return self.epoch is None or epoch < self.epoch


class Finetune:
    """Freeze a part of the model, unfreeze it by a schedule, with smaller rates further down.

    Gradual unfreezing and discriminative learning rates come from Howard and Ruder (2018),
    "Universal Language Model Fine-tuning for Text Classification", who divide by 2.6 from layer
    to layer.

    Patterns are those of `fnmatch` (`*`, `?`, `[abc]`), compared with the names of the task's
    parameters and modules, as `task.named_parameters()` and `task.named_modules()` give them. A
    module stands for all that is inside it: `"model.encoder"`, `"model.layer[12]"`, `"*.bias"`.

    The optimizer has its final groups before the first step, those of the frozen parameters too. A
    parameter without a gradient is left alone by torch's optimizers, so nothing happens to it
    until it is unfrozen; schedules see every group from the start, and a checkpoint of any
    epoch has the same groups as a run that begins.

    Args:
        body: patterns of what is frozen when a fit begins.
        unfreeze_at: for an epoch, counted from 0, the patterns of what is unfrozen before it. What
            no epoch unfreezes stays frozen.
        lr_ratio: the learning rate of what is never frozen, divided by that of what is unfrozen
            last; what comes between has rates in equal ratios. None leaves the rates alone.
        train_norms: batch-norm and instance-norm layers are trained in a frozen body, too, their
            running statistics included. Otherwise these layers are frozen, statistics included.
    """

    #: It follows the epochs of a long run.
    computes = False

    def __init__(
        self,
        body: str | list[str],
        unfreeze_at: dict[int, str | list[str]] | None = None,
        lr_ratio: float | None = None,
        train_norms: bool = True,
    ) -> None:
        self.body = body
        self.unfreeze_at = unfreeze_at or {}
        self.lr_ratio = lr_ratio
        self.train_norms = train_norms
        if not _listed(body):
            raise PluginError(f"body={body!r}: give at least one pattern")
        if early := [epoch for epoch in self.unfreeze_at if epoch < 0]:
            raise PluginError(f"unfreeze_at: epoch {early[0]}: epochs are counted from 0")
        if lr_ratio is not None and lr_ratio <= 0:
            raise PluginError(f"lr_ratio={lr_ratio}: give a number greater than 0")
        self._parts: list[_Part] = []
        #: Parts that are unfrozen.
        self._open = 0
        #: What this plugin freezes and must unfreeze; what was frozen already stays so.
        self._parameters: list[nn.Parameter] = []
        self._norms: list[nn.Module] = []

    # Innermost: whoever looks at the optimizers sees their final groups.
    @hookimpl(wrapper=True, trylast=True)
    def configure_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        """Freeze the body and give each part of it its groups in the optimizers."""
        optimizers = yield
        self._parts = self._plan(run.task)
        frozen = [p for part in self._parts for p in part.frozen.values()]
        self._parameters = [parameter for parameter in frozen if parameter.requires_grad]
        self._norms = [norm for part in self._parts for norm in part.norms if norm.training]
        self._apply(0)
        if not any(parameter.requires_grad for parameter in run.task.parameters()):
            raise UsageError(f"finetune: body={self.body!r} freezes every parameter of the task")
        self._check_known(optimizers)
        if self.lr_ratio is not None:
            for optimizer in optimizers:
                self._regroup(optimizer, self.lr_ratio)
        total = sum(p.numel() for p in run.task.parameters())
        trained = sum(p.numel() for p in run.task.parameters() if p.requires_grad)
        run.header["finetune"] = f"{total - trained:,} of {total:,} parameters frozen at the start"
        return optimizers

    @hookimpl(tryfirst=True)
    def on_fit_start(self, run: Run) -> None:
        """Refuse your own loop that keeps its optimizer to itself."""
        if not run.optimizers:
            raise UsageError("finetune needs the optimizer: trainer.open(model, optimizer)")

    @hookimpl(tryfirst=True)
    def on_epoch_start(self, run: Run) -> None:
        """Unfreeze what is due."""
        before = self._open
        self._apply(run.epoch)
        for part in self._parts[before : self._open]:
            count = sum(parameter.numel() for parameter in part.parameters.values())
            logger.info("epoch %d: %s parameters are unfrozen", run.epoch, f"{count:,}")

    @hookimpl
    def on_run_end(self) -> None:
        """Leave no parameter frozen that was not, and no layer in another mode."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        for norm in self._norms:
            norm.training = True
        self._parameters, self._norms = [], []

    def _apply(self, epoch: int) -> None:
        """Freeze and unfreeze as it is at an epoch."""
        closed = [part for part in self._parts if part.is_frozen(epoch)]
        frozen = {id(parameter) for part in closed for parameter in part.frozen.values()}
        still = {id(norm) for part in closed for norm in part.norms}
        for parameter in self._parameters:
            parameter.requires_grad_(id(parameter) not in frozen)
            if id(parameter) in frozen:
                parameter.grad = None
        for norm in self._norms:
            norm.training = id(norm) not in still
        self._open = len(self._parts) - len(closed)

    # --- what the patterns mean ----------------------------------------------------------------

    def _plan(self, task: nn.Module) -> list[_Part]:
        """The parts of the body in the order of their epochs, what is never unfrozen last."""
        modules = dict(task.named_modules(remove_duplicate=False))
        parameters = dict(task.named_parameters(remove_duplicate=False))
        body = _matching(_listed(self.body), parameters, modules, "body")
        left = {id(_get(name, parameters, modules)) for name in body}
        parts = []
        for epoch, patterns in sorted(self.unfreeze_at.items()):
            where = f"unfreeze_at: epoch {epoch}"
            names = _matching(_listed(patterns), parameters, modules, where)
            part = self._part(epoch, names, left, parameters, modules)
            if not (part.parameters or part.norms):
                raise UsageError(
                    f"finetune: {where}: {patterns!r} matches nothing that is frozen at that time"
                )
            parts.append(part)
        return [*parts, self._part(None, body, left, parameters, modules)]

    def _part(
        self,
        epoch: int | None,
        names: Iterable[str],
        left: set[int],
        parameters: dict[str, nn.Parameter],
        modules: dict[str, nn.Module],
    ) -> _Part:
        """What of `names` is left; it is taken out of `left`."""
        part, kinds = _Part(epoch), _kinds_with_statistics()
        for name in names:
            thing = _get(name, parameters, modules)
            if id(thing) not in left:
                continue
            left.discard(id(thing))
            if name not in parameters:
                if isinstance(thing, kinds) and not self.train_norms:
                    part.norms.append(modules[name])
                continue
            part.parameters[name] = parameters[name]
            is_norm = isinstance(modules[name.rpartition(".")[0]], kinds)
            if not (is_norm and self.train_norms):
                part.frozen[name] = parameters[name]
        return part

    # --- learning rates ------------------------------------------------------------------------

    def _check_known(self, optimizers: list[Optimizer]) -> None:
        known = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        ours = {id(parameter) for parameter in self._parameters}
        for part in self._parts[:-1]:
            for name, parameter in part.frozen.items():
                if id(parameter) in ours - known:
                    raise UsageError(
                        f"finetune: {name} is unfrozen at epoch {part.epoch}, but no optimizer has "
                        "it; give all parameters to the optimizer, frozen ones too"
                    )

    def _regroup(self, optimizer: Optimizer, ratio: float) -> None:
        """Split each group by the parts of its parameters, and scale the rates."""
        stages = self._parts[:-1]
        number_of = {
            id(parameter): number
            for number, part in enumerate(stages, start=1)
            for parameter in part.parameters.values()
        }
        for group in list(optimizer.param_groups):
            names = group.get("param_names") or [None] * len(group["params"])
            buckets: dict[int, list[tuple[Any, Any]]] = {}
            for name, parameter in zip(names, group["params"], strict=True):
                buckets.setdefault(number_of.get(id(parameter), 0), []).append((name, parameter))
            options = {k: v for k, v in group.items() if k not in ("params", "param_names")}
            first = True
            for number, named in sorted(buckets.items()):
                factor = ratio ** (-number / len(stages)) if number else 1.0
                scaled = options | _rates(options, factor)
                if first:
                    group.update(scaled, params=[parameter for _, parameter in named])
                    if "param_names" in group:
                        group["param_names"] = [name for name, _ in named]
                elif "param_names" in group:
                    optimizer.add_param_group({**scaled, "params": named})
                else:
                    parameters = [parameter for _, parameter in named]
                    optimizer.add_param_group({**scaled, "params": parameters})
                first = False

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Which parameters belong together, and how many parts are unfrozen."""
        return {"parts": [list(part.parameters) for part in self._parts], "open": self._open}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Freeze as it was. Raises `CheckpointError` for a checkpoint of another schedule."""
        shape = fields({"parts": listed(listed(text())), "open": whole(0, len(self._parts))})
        if not self._parts:
            return
        sections.check(state, shape, "finetune")
        if state["parts"] != [list(part.parameters) for part in self._parts]:
            raise CheckpointError(
                "finetune: the checkpoint was written with another body or schedule; resume "
                "with the same, or begin a new run with its weights: run.load_weights(path)"
            )
        # The parts are in the order of their epochs, so their number tells the epoch.
        epochs = [part.epoch for part in self._parts if part.epoch is not None]
        self._apply(epochs[state["open"] - 1] if state["open"] else -1)


def _listed(patterns: str | list[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _get(
    name: str, parameters: dict[str, nn.Parameter], modules: dict[str, nn.Module]
) -> nn.Parameter | nn.Module:
    return parameters[name] if name in parameters else modules[name]


def _matching(
    patterns: list[str], parameters: Iterable[str], modules: Iterable[str], where: str
) -> list[str]:
    """The names that a pattern matches, or whose module it matches."""
    names = [name for name in (*parameters, *modules) if name]
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [name for name in names if any(fnmatchcase(n, pattern) for n in _upwards(name))]
        if not matched:
            near = get_close_matches(pattern, names, n=3, cutoff=0.4)
            near = near or [name for name in names if "." not in name][:5]
            raise UsageError(
                f"finetune: {where}: {pattern!r} matches no parameter and no module; the nearest "
                f"names are {', '.join(near)}"
            )
        found.update(dict.fromkeys(matched))
    return list(found)


def _upwards(name: str) -> list[str]:
    """A name and those of the modules around it."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _kinds_with_statistics() -> tuple[type[nn.Module], ...]:
    from torch import nn

    return (
        nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
        nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    )  # fmt: skip


def _rates(options: dict[str, Any], factor: float) -> dict[str, Any]:
    """The rates of a group, scaled; one that an earlier run scaled is scaled from its own."""
    change = factor / options.get("lr_factor", 1.0)
    scaled = ("lr", "initial_lr")
    rates: dict[str, Any] = {key: options[key] * change for key in scaled if key in options}
    return {**rates, "lr_factor": factor}
