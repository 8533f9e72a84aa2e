"""A recipe: a chain of blocks under a name, with its numbers, and what it needs of a model."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from trainbus.errors import UsageError, nearest
from trainbus_optim.blocks import Block
from trainbus_optim.checks import check_number, check_order
from trainbus_optim.instructions import Program
from trainbus_optim.numbers import Number
from trainbus_optim.program import Tracer
from trainbus_optim.update import Term, Update

#: Names that every group has, and no block.
_COMMON = ("lr", "maximize")
#: What a recipe or a chain takes beside the values of its blocks.
CHAIN_OPTIONS = (
    "kernel", "compile", "maximize", "decay_all", "layer_decay", "groups", "state_dtype",
    "fused", "foreach", "capturable", "differentiable", "model", "width",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Blocks under a name. Called with a model or with parameters it makes the optimizer.

    In a `Chain` it stands for its blocks.

    Args:
        name: as it is printed and kept in checkpoints.
        blocks: in order.
        lr: the learning rate where none is given.
        others: for the parameters that `takes` refuses.
        takes: tells by name, module and parameter whether the recipe is for it.
        options: of the chain.
    """

    name: str
    blocks: tuple[Block, ...]
    lr: float | None = None
    others: Recipe | None = None
    takes: Callable[[str, nn.Module | None, nn.Parameter], bool] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    #: The class of the optimizer; None for `Chain`.
    optimizer: Any = None
    #: Without a model there are no names: the core calls it with `model=`.
    takes_model: bool = True

    def __post_init__(self) -> None:
        check_order(self.blocks)

    def __call__(self, params: Any, *, model: nn.Module | None = None, **options: Any) -> Any:
        """The optimizer for a model, or for parameters or groups of them."""
        from trainbus_optim.chain import Chain

        given = {**self.options, **options}
        if model is not None:
            given["model"] = model
        return (self.optimizer or Chain)(params, self, **given)

    # --- the numbers of a group ----------------------------------------------------------------

    @functools.cached_property
    def keys(self) -> tuple[dict[str, str], ...]:
        """For each block the key in a group of each of its values."""
        taken: set[str] = set(_COMMON)
        made = []
        for each in self.blocks:
            own = {}
            for name in [*each.numbers, *each.options]:
                own[name] = name if name not in taken else f"{each.name}_{name}"
            taken |= set(own.values())
            made.append(own)
        return tuple(made)

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """The values of a group."""
        made: dict[str, Any] = {"lr": self.lr, "maximize": False}
        for each, keys in zip(self.blocks, self.keys, strict=True):
            for name, value in {**each.numbers, **each.options}.items():
                made[keys[name]] = value
        return made

    @functools.cached_property
    def number_keys(self) -> set[str]:
        """The keys of values that are numbers, and may change from step to step."""
        made = {"lr"}
        for each, keys in zip(self.blocks, self.keys, strict=True):
            made |= {keys[name] for name in each.numbers}
        return made

    @functools.cached_property
    def option_keys(self) -> tuple[str, ...]:
        """The keys of values that choose what is computed."""
        return tuple(
            keys[name]
            for each, keys in zip(self.blocks, self.keys, strict=True)
            for name in each.options
        )

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Refuse values of a group that no step can be made with. Raises `UsageError`."""
        if group.get("lr") is None:
            raise UsageError(
                f"the chain {', '.join(each.name for each in self.blocks)} has no learning rate: "
                "give lr=, the scale of a step"
            )
        for key in self.number_keys:
            check_number(key, group[key], self.name)
        strange = [
            key for key in group if key in NUMBERS and key not in self.defaults and group[key]
        ]
        for key in strange:
            raise UsageError(
                f"{self.name} has no {key!r}{nearest(key, list(self.defaults))}; its numbers are "
                f"{', '.join(sorted(self.number_keys))}"
            )

    def with_options(self, **options: Any) -> Recipe:
        """The same with other options of the chain."""
        return replace(self, options={**self.options, **options})

    # --- the program ---------------------------------------------------------------------------

    def traced(
        self, group: Mapping[str, Any], count: int, part: slice = slice(None), whole: bool = True
    ) -> tuple[Program, Tracer]:
        """The program for a group after `count` steps.

        Args:
            group: its values.
            count: the steps made.
            part: the blocks to trace, by default all.
            whole: whether the parameter is changed; else the update is the result.
        """
        tracer = Tracer(group, count)
        update = Update(tracer, [Term(tracer.gradient)])
        blocks = list(zip(self.blocks, self.keys, strict=True))[part]
        for each, keys in blocks:
            if each.role != "weights":
                update = Update.of(tracer, _called(each, keys, tracer, update, group))
        if not whole:
            return tracer.finish(update.direction()), tracer
        if any(each.role != "weights" for each, _ in blocks) or not blocks:
            tracer.enter("the step", {})
            update.finish()
        for each, keys in blocks:
            if each.role == "weights":
                _called(each, keys, tracer, update, group)
        return tracer.finish(), tracer


#: How often a tensor was changed in place.
_changes = operator.attrgetter("_version")

#: The numbers that blocks of this distribution have, to tell a typing error in a group.
NUMBERS = {
    "betas", "beta", "momentum", "dampening", "alpha", "rho", "eps", "weight_decay",
    "momentum_decay", "lr_decay", "initial_accumulator_value",
}  # fmt: skip


def _called(
    each: Block, keys: dict[str, str], tracer: Tracer, update: Update, group: Mapping[str, Any]
) -> Any:
    tracer.enter(each.name, keys)
    values: dict[str, Any] = {name: group[keys[name]] for name in each.options}
    for name, value in each.numbers.items():
        source = f"G[{keys[name]!r}]"
        values[name] = (
            tuple(Number(f"{source}[{index}]") for index in range(len(value)))
            if isinstance(value, (tuple, list))
            else Number(source)
        )
    if each.traced:
        return each.function(tracer, update, **values)
    return _plain(each, tracer, update, values)


def _plain(each: Block, tracer: Tracer, update: Update, values: dict[str, Any]) -> Any:
    """A block in plain tensor code: called once for each parameter at each step."""
    states = [tracer.state(name) for name in each.state]
    names = [name for name in each.numbers if not isinstance(values[name], tuple)]
    pairs = [name for name in each.numbers if isinstance(values[name], tuple)]
    numbers = [values[name] for name in names] + [n for name in pairs for n in values[name]]
    fixed = {name: values[name] for name in each.options}

    def run(u: Any, p: Any, *rest: Any) -> Any:
        kept = dict(zip(each.state, rest, strict=False))
        given = iter(rest[len(kept) :])
        arguments = {name: next(given) for name in names}
        for name in pairs:
            arguments[name] = tuple(next(given) for _ in values[name])
        before = _changes(u)
        made = each.function(u, p, kept, **arguments, **fixed)
        if _changes(u) != before:
            raise UsageError(
                f"block {each.name} changes the update that it is given, which may be the "
                "gradient; compute a new one (update * 2, update.clone())"
            )
        for name, tensor in zip(each.state, rest, strict=False):
            if kept[name] is not tensor:
                tensor.copy_(kept[name])
        return made

    direction = update.direction() if update.decay is None else update.tensor()
    return tracer.call(run, direction, tracer.parameter, *states, numbers=tuple(numbers))


def ready(
    *, name: str = "", needs: Sequence[str] = ()
) -> Callable[[Callable[..., Recipe]], Callable[..., Any]]:
    """Make a public optimizer of a function that gives a recipe.

    `f(model, lr=...)` gives the optimizer, `f(lr=...)` the recipe.
    """

    def decorate(function: Callable[..., Recipe]) -> Callable[..., Any]:
        title = name or function.__name__
        signature = inspect.signature(function)
        own = list(signature.parameters)

        @functools.wraps(function)
        def make(params: Any = None, *args: Any, **kwargs: Any) -> Any:
            if params is not None and isinstance(params, (int, float, Block, Recipe)):
                raise UsageError(
                    f"{title}({params!r:.60}): the first argument is a model or its parameters; "
                    f"write {title}(lr=...) for a recipe, in a Chain or as others="
                )
            options = {key: kwargs.pop(key) for key in CHAIN_OPTIONS if key in kwargs}
            wrong = [key for key in kwargs if key not in own]
            if wrong:
                raise UsageError(
                    f"{title} has no argument {wrong[0]!r}{nearest(wrong[0], own)}; it has "
                    f"{', '.join(own)}"
                )
            try:
                recipe = function(*args, **kwargs)
            except UsageError:
                raise
            except TypeError as error:
                raise UsageError(f"{title}: {error}") from error
            recipe = replace(recipe, name=title).with_options(**options)
            return recipe if params is None else recipe(params)

        make.takes_model = True  # type: ignore[attr-defined]
        READY[title] = make
        return make

    return decorate


#: All ready optimizers, by name.
READY: dict[str, Callable[..., Any]] = {}
