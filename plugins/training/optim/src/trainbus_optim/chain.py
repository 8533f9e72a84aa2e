"""The optimizer: a torch.optim.Optimizer made of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainbus.errors import UsageError
from trainbus_optim import report
from trainbus_optim.blocks import Block
from trainbus_optim.buckets import Bucket, Part, refuse
from trainbus_optim.building import kernel_of, together
from trainbus_optim.evaluating import Evaluated
from trainbus_optim.grouping import described_groups
from trainbus_optim.loading import blocks_of, fitted, restored_types
from trainbus_optim.recipe import Recipe
from trainbus_optim.stepping import guard, sum_up


class Chain(Evaluated, Optimizer):
    """An optimizer of blocks.

    Given a model, it does not decay biases, norms and the like (see `explain()`); given parameters
    or groups it takes them as they are, as torch.optim does.

    Args:
        params: a model, parameters, or groups of them.
        blocks: blocks and recipes, in order.
        lr: the learning rate.
        kernel: "auto" takes torch's fused kernel for chains that it has one for; "fused" insists
            on it; "foreach" never takes it, and chooses between "wide" (lists) and "deep" (tensor
            by tensor); "compiled" is torch.compile of the program.
        compile: short for `kernel="compiled"`.
        maximize: go up instead of down.
        decay_all: decay biases and norms as well.
        layer_decay: a factor below 1 by which each layer nearer to the input learns slower.
        width: for each matrix of a wider model than this the rate falls as in muP, see
            `grouping.by_width`.
        groups: values for parameters whose names match a pattern: `{"head.*": {"lr": 1e-2}}`.
        state_dtype: of the moments; by default that of the parameters.
        model: whose the parameters are, where groups of them are given.

    Raises:
        UsageError: the blocks, the values or the parameters cannot work.
    """

    def __init__(
        self,
        params: Any,
        *blocks: Block | Recipe,
        lr: float | Tensor | None = None,
        kernel: str = "auto",
        compile: bool = False,
        maximize: bool = False,
        decay_all: bool = False,
        layer_decay: float | None = None,
        width: int | None = None,
        groups: dict[str, dict[str, Any]] | None = None,
        state_dtype: torch.dtype | None = None,
        model: nn.Module | None = None,
        **flags: Any,
    ) -> None:
        kernel = kernel_of(kernel, compile, flags)
        self.recipe = together(blocks, lr)
        self._kernel = kernel
        self._state_dtype = state_dtype
        self._maximize = maximize
        self._parts: dict[str, Part] = {}
        self._buckets: list[Bucket] | None = None
        self._key: list[Any] = []
        #: The numbers of the last step that blocks offer to be logged, tensors on the device.
        self.watched: dict[str, list[Tensor]] = {}
        self._adding = False
        made, self._about = described_groups(
            params, self.recipe, model, decay_all=decay_all, layer_decay=layer_decay, width=width,
            by_name=groups or {},
        )  # fmt: skip
        defaults = {**self.recipe.defaults, "maximize": maximize}
        super().__init__(made, defaults)
        if kernel == "fused":
            self._insist_on_fused()

    # --- groups --------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with values of their own, also after steps."""
        if "params" not in param_group:
            raise UsageError("a group of parameters is a dictionary with 'params'")
        params = param_group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        if not params:
            raise UsageError(
                f"group {len(self.param_groups)} has no parameters; leave it out, or look at what "
                "chose its parameters"
            )
        names = [self._about.names.get(id(each), "") for each in params]
        twice = next((n for n, p in enumerate(params) if any(p is q for q in params[:n])), None)
        if twice is not None:
            raise UsageError(
                f"{names[twice] or f'parameter {twice}'} is twice in a group; give each parameter "
                "once (tied weights are one parameter)"
            )
        known = {id(p) for group in self.param_groups for p in group["params"]}
        again = next((n for n, p in enumerate(params) if id(p) in known), None)
        if again is not None:
            raise UsageError(
                f"{names[again] or f'parameter {again} of the group'} is in another group already; "
                "give each parameter to one group"
            )
        recipe = self._recipe_of(param_group)
        given = {**recipe.defaults, "maximize": self._maximize, **param_group, "params": params}
        recipe.check_group(given)
        for each, name in zip(params, names, strict=True):
            if recipe.takes is not None and not recipe.takes(name, None, each):
                raise UsageError(
                    f"{recipe.name} is for matrices, and {name or 'a parameter'} has the shape "
                    f"{tuple(each.shape)}; give it to others=adamw(...), or the model instead of "
                    "parameters, and it goes there by itself"
                )
        super().add_param_group(given)
        self._buckets = None

    def _recipe_of(self, group: dict[str, Any]) -> Recipe:
        others = self.recipe.others
        name = group.get("chain", self.recipe.name)
        return others if others is not None and name == others.name else self.recipe

    def _part_of(self, group: dict[str, Any]) -> Part:
        recipe = self._recipe_of(group)
        if recipe.name not in self._parts:
            self._parts[recipe.name] = Part(recipe)
        return self._parts[recipe.name]

    def _kind_of(self, group: dict[str, Any]) -> tuple[str, str]:
        """How a group runs, and why not by a fused kernel: what a state began with, it keeps."""
        part = self._part_of(group)
        kind, why = part.kind_for(group["params"], self._kernel, self._state_dtype)
        before = group.get("kernel") or kind
        if before == kind or self._kernel != "auto":
            return kind, why
        kept, why = part.kind_for(group["params"], before, self._state_dtype)
        return (kept, "as the state that was loaded") if kept == before else (kind, why)

    def _insist_on_fused(self) -> None:
        for group in self.param_groups:
            kind, why = self._part_of(group).kind_for(group["params"], "auto", self._state_dtype)
            if kind != "fused":
                raise UsageError(f"kernel='fused': {why}; kernel='auto' takes what there is")

    # --- a step --------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make a step with the gradients; a closure is called once, before, with gradients on."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        buckets = self._current()
        self.watched = {}
        scale, found = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        self._advance(buckets)
        for each in buckets:
            each.begin([p.grad for p in each.parameters])  # type: ignore[misc]
            if found is not None or scale is not None:
                guard(each, scale, found)
        for part in self._parts.values():
            self._run([each for each in buckets if each.part is part])
        for each in buckets:
            if found is not None and each.steps:
                torch._foreach_sub_(each.steps, [found.to(each.steps[0].device)] * len(each.steps))
            each.run.end()
        return loss

    def _advance(self, buckets: list[Bucket]) -> None:
        """Move the running values of each group on, once for all of its buckets."""
        done: set[int] = set()
        for each in buckets:
            if id(each.group) not in done:
                done.add(id(each.group))
                variant = each.part.variants.of(each.group, each.count)
                if variant.advance is not None:
                    variant.advance(each.group)

    def _run(self, buckets: list[Bucket]) -> None:
        """Run the programs of a recipe, with the sums over all tensors between their segments."""
        pieces = max((each.run.pieces for each in buckets), default=0)
        for index in range(pieces):
            for each in buckets:
                if index < each.run.pieces:
                    each.run.run(index)
            if index == pieces - 1:
                break
            for number, total in enumerate(buckets[0].run.totals(index)):
                sum_up(buckets, index, number, total.function)
        for each in buckets:
            watched = each.run.variant.program.watched  # type: ignore[union-attr]
            for name, register in watched.items():
                self.watched.setdefault(name, []).extend(each.run.value(register))

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether a GradScaler leaves unscaling and skipping to the step, without a host read."""
        return all(
            part.kernel is not None
            and part.kernel.start == 0
            and part.after is None
            and self._kind_of(group)[0] == "fused"
            for group in self.param_groups
            for part in [self._part_of(group)]
        )

    # --- buckets -------------------------------------------------------------------------------

    def _current(self) -> list[Bucket]:
        """The buckets for the parameters that have a gradient now."""
        key: list[Any] = []
        for group in self.param_groups:
            key += [p.grad is not None for p in group["params"]]
            key.append(id(group))
        if self._buckets is None or key != self._key or not self._same_states():
            self._buckets = self._made()
            self._key = key
        return self._buckets

    def _same_states(self) -> bool:
        assert self._buckets is not None
        get = self.state.get
        return all(
            get(p) is state
            for each in self._buckets
            for p, state in zip(each.parameters, each.states, strict=True)
        )

    def _made(self) -> list[Bucket]:
        """Put the parameters with a gradient together by group, device, type and count."""
        buckets = []
        for group in self.param_groups:
            part = self._part_of(group)
            kind, _ = self._kind_of(group)
            # The keys of torch's own classes, so that a state keeps its bits there.
            group.update(kernel=kind, fused=kind == "fused", foreach=kind == "foreach")
            parts: dict[Any, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                refuse(p, p.grad, self._about.names.get(id(p), "a parameter"), part.recipe)
                count = self._count(p, part, group)
                host = tuple(
                    float(self.state[p][each.name])
                    for each in part.variants.of(group, count).program.kept.values()
                    if each.host and each.name in self.state[p]
                )
                count = part.joint_count(group, count, kind)
                place = (p.device, p.dtype, p.grad.dtype, type(p.data), count, host)
                parts.setdefault(place, []).append(p)
            for place, members in parts.items():
                buckets.append(
                    Bucket(
                        part, group, members, [self.state[p] for p in members], place[4], kind,
                        self._kernel, self._state_dtype,
                    )
                )  # fmt: skip
        self._share(buckets)
        return buckets

    def _count(self, p: nn.Parameter, part: Part, group: dict[str, Any]) -> int:
        """How many steps a parameter has made; without a count, whether it has made one."""
        state = self.state[p]
        if "step" in state:
            return int(state["step"])
        kept = part.variants.of(group, 1).program.kept
        return int(bool(kept) and all(state.get(name) is not None for name in kept))

    def _share(self, buckets: list[Bucket]) -> None:
        """Make one tensor of what is shared by all parameters, also after it was loaded."""
        for each in buckets:
            first = next(b for b in buckets if b.part is each.part)
            for name, kept in each.kept.items():
                if kept.shared:
                    value = first.states[0][name]
                    for state in each.states:
                        state[name] = value
                    each.run.share(f"s_{name}", value)

    # --- state ---------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of this chain, or of torch's class with the same blocks.

        Raises:
            UsageError: it is of another chain; the message says what differs.
        """
        fitted(self, state_dict)
        super().load_state_dict(state_dict)
        restored_types(self, state_dict)
        for group in self.param_groups:
            group.pop("blocks", None)
            for key, value in self._recipe_of(group).defaults.items():
                group.setdefault(key, value)
            group.setdefault("kernel", "fused" if group.get("fused") else "foreach")
        self._buckets = None

    def __getstate__(self) -> dict[str, Any]:
        left_out = {"_buckets": None, "_parts": {}, "watched": {}, "_key": []}
        return {**self.__dict__, **left_out}

    def state_dict(self) -> dict[str, Any]:
        """The state, with the keys of torch's own classes where there is one with these blocks."""
        made: dict[str, Any] = super().state_dict()
        for group, packed in zip(self.param_groups, made["param_groups"], strict=True):
            packed["blocks"] = blocks_of(self._recipe_of(group))
        return made

    # --- for people ----------------------------------------------------------------------------

    def __repr__(self) -> str:
        return report.line(self)

    def explain(self) -> str:
        """Formula of each block; kernel, values, state and bytes of each group and parameter."""
        return report.explained(self)

    @property
    def names(self) -> dict[int, str]:
        """The names of the parameters, by id; empty where no model was given."""
        return self._about.names

    @property
    def reasons(self) -> dict[int, str]:
        """Why a parameter is in its group, by id."""
        return self._about.reasons

    def kernels(self) -> list[tuple[str, str]]:
        """For each group which kernel runs, and why not a fused one."""
        return [self._kind_of(group) for group in self.param_groups]

    def recipe_of(self, group: dict[str, Any]) -> Recipe:
        """The blocks of a group."""
        return self._recipe_of(group)
