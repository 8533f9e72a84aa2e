"""Groups by rule: what is decayed, which rate a layer has, which recipe a parameter goes to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from trainbus.errors import UsageError
from trainbus_optim.recipe import Recipe

_NORMS = re.compile(r"(Batch|Layer|Group|Instance|RMS|LocalResponse)Norm", re.IGNORECASE)
#: Parameters that are added to, or put beside, what a network computes.
_TOKENS = re.compile(
    r"(^|\.)(pos_embed|position_embedding|cls_token|dist_token|mask_token|logit_scale|"
    r"relative_position_bias_table)(\.|$)"
)
#: What a group without decay has in place of the usual values.
_PLAIN = {"weight_decay": 0.0, "trust": 0.0}


@dataclass
class About:
    """What is known of parameters, by id: their names, and why they are where they are."""

    names: dict[int, str] = field(default_factory=dict)
    modules: dict[int, nn.Module] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    #: The output head, which is no hidden matrix.
    head: int | None = None


def undecayed(model: nn.Module) -> dict[str, str]:
    """The parameters that are not to be decayed, by name, with the reason.

    Biases, norms and whatever else has at most one dimension: pulling them to zero does not
    regularize (He et al., "Bag of tricks", 2018, section 3.1). Position embeddings and class
    tokens; what a module names in `without_decay`, or in `no_weight_decay()` as timm's do.
    """
    found: dict[str, str] = {}
    listed = getattr(model, "no_weight_decay", None)
    told = set(listed()) if callable(listed) else set()
    for path, module in model.named_modules():
        norm = _NORMS.search(type(module).__name__)
        own = set(getattr(module, "without_decay", ()))
        for short, parameter in module.named_parameters(recurse=False):
            name = f"{path}.{short}" if path else short
            if norm:
                found[name] = f"of a {type(module).__name__}"
            elif short in own or name in told:
                found[name] = "the model says so"
            elif parameter.ndim < 2:
                found[name] = "a bias" if short == "bias" else f"has {parameter.ndim} dimensions"
            elif _TOKENS.search(name):
                found[name] = "a position or a token"
    return found


def described_groups(
    params: Any, recipe: Recipe, model: nn.Module | None, *, decay_all: bool,
    layer_decay: float | None, width: int | None, by_name: Mapping[str, Mapping[str, Any]],
) -> tuple[list[dict[str, Any]], About]:  # fmt: skip
    """The groups that an optimizer is made of, and what is known of their parameters.

    Raises:
        UsageError: there are no parameters, or what was given is none.
    """
    by_rule = isinstance(params, nn.Module)
    model = params if isinstance(params, nn.Module) else model
    about = _about(model)
    if not by_rule:
        for name, each in (("layer_decay", layer_decay), ("width", width), ("groups", by_name)):
            if each and model is None:
                raise UsageError(f"{name}= goes by the names of a model: give it, not parameters")
    groups = [{"params": list(model.parameters())}] if by_rule and model else _given(params)
    if by_rule and not decay_all:
        groups = _split_by_decay(groups, recipe, about, undecayed(params))
    if by_name:
        groups = _split_by_name(groups, about, by_name)
    if layer_decay is not None or width is not None:
        groups = _split_by_rate(groups, recipe, about, layer_decay, width)
    if recipe.others is not None:
        groups = _split_by_recipe(groups, recipe, about)
    return groups, about


def _given(params: Any) -> list[dict[str, Any]]:
    if isinstance(params, Tensor) or not isinstance(params, Iterable):
        raise UsageError(
            f"an optimizer takes a model, its parameters, or groups of them; this is a "
            f"{type(params).__name__}"
        )
    given = list(params)
    if not given:
        raise UsageError(
            "there are no parameters: is the iterator used up, or are the layers kept in a plain "
            "list (use nn.ModuleList)?"
        )
    if all(isinstance(each, dict) for each in given):
        return [dict(each) for each in given]
    if all(isinstance(each, tuple) for each in given):
        given = [each for _, each in given]
    wrong = next((each for each in given if not isinstance(each, Tensor)), None)
    if wrong is not None:
        raise UsageError(f"a parameter is a tensor, and this is a {type(wrong).__name__}")
    return [{"params": given}]


def _about(model: nn.Module | None) -> About:
    about = About()
    if model is None:
        return about
    about.names = {id(p): name for name, p in model.named_parameters()}
    linear = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            about.modules.setdefault(id(parameter), module)
        if isinstance(module, nn.Linear):
            linear.append(module)
    if len(linear) > 1:
        about.head = id(linear[-1].weight)
    return about


def _split_by_decay(
    groups: list[dict[str, Any]], recipe: Recipe, about: About, plain: Mapping[str, str]
) -> list[dict[str, Any]]:
    own = {key: value for key, value in _PLAIN.items() if key in recipe.defaults}
    for other in [recipe.others] if recipe.others else []:
        own |= {key: value for key, value in _PLAIN.items() if key in other.defaults}
    made = []
    for group in groups:
        halves: tuple[list[Any], list[Any]] = ([], [])
        for each in group["params"]:
            why = plain.get(about.names[id(each)])
            halves[why is not None].append(each)
            about.reasons[id(each)] = f"not decayed: {why}" if why else "decayed"
        if not own or not halves[1] or not halves[0]:
            made.append({**group, **(own if halves[1] else {})})
            if not own:
                about.reasons.clear()
            continue
        made += [{**group, "params": halves[0]}, {**group, "params": halves[1], **own}]
    return made


def _split_by_name(
    groups: list[dict[str, Any]], about: About, by_name: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Values for parameters whose whole name a pattern (`re`) matches."""
    used: set[str] = set()
    made = []
    for group in groups:
        parts: dict[str | None, list[Any]] = {}
        for each in group["params"]:
            name = about.names.get(id(each), "")
            found = [pattern for pattern in by_name if re.fullmatch(pattern, name)]
            if len(found) > 1:
                raise UsageError(
                    f"groups: {name} matches {found[0]!r} and {found[1]!r}; make one of them "
                    "narrower, so that each parameter is in one group"
                )
            used |= set(found)
            parts.setdefault(found[0] if found else None, []).append(each)
            if found:
                before = about.reasons.get(id(each), "")
                about.reasons[id(each)] = f"{before}; groups[{found[0]!r}]".lstrip("; ")
        for pattern, members in parts.items():
            values = {} if pattern is None else dict(by_name[pattern])
            made.append({**group, "params": members, **values})
    unused = [pattern for pattern in by_name if pattern not in used]
    if unused:
        names = list(about.names.values())
        raise UsageError(
            f"groups: no parameter is called {unused[0]!r}; a pattern has to match the whole name, "
            f"such as {names[0] if names else 'head.weight'!r}"
        )
    return made


def depths(names: Iterable[str]) -> dict[str, int]:
    """How deep each parameter is: by the longest list of layers in the model.

    `blocks.3.attn.weight` has the depth 4; what is before the list 0, what is behind it one more
    than its last layer.
    """
    names = list(names)
    counts: dict[str, set[int]] = {}
    for name in names:
        for found in re.finditer(r"(?:^|(?<=\.))(\d+)(?=\.)", name):
            counts.setdefault(name[: found.start()], set()).add(int(found[1]))
    if not counts:
        return {name: index for index, name in enumerate(names)}
    prefix = max(counts, key=lambda key: (len(counts[key]), -len(key)))
    order = {number: place for place, number in enumerate(sorted(counts[prefix]))}
    made, seen = {}, False
    for name in names:
        rest = name[len(prefix) :].split(".", 1)[0] if name.startswith(prefix) else ""
        if rest.isdigit():
            made[name], seen = order[int(rest)] + 1, True
        else:
            made[name] = len(order) + 1 if seen else 0
    return made


def _split_by_rate(
    groups: list[dict[str, Any]], recipe: Recipe, about: About, layer_decay: float | None,
    width: int | None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Rates by depth (Clark et al., ELECTRA, 2020; Bao et al., BEiT, 2021), and by width.

    By width the rate of a matrix is `width / inputs` of the usual one, but for embeddings and the
    first layer, whose inputs do not grow: the rule of muP for Adam (Yang et al., 2022).
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise UsageError(f"layer_decay={layer_decay}: give a factor above 0, up to 1")
    if width is not None and width < 1:
        raise UsageError(f"width={width}: give the width for which the rate was found")
    places = depths(about.names.values())
    deepest = max(places.values(), default=0)
    first = next((p for g in groups for p in g["params"] if p.ndim > 1), None)
    made = []
    for group in groups:
        lr = group.get("lr", recipe.lr)
        if lr is None:
            raise UsageError(f"{recipe.name} has no learning rate: give lr=, the scale of a step")
        parts: dict[float, list[Any]] = {}
        for each in group["params"]:
            factor = 1.0
            if layer_decay is not None:
                factor *= layer_decay ** (deepest - places[about.names[id(each)]])
            embeds = isinstance(about.modules.get(id(each)), nn.Embedding)
            if width is not None and each.ndim > 1 and each is not first and not embeds:
                factor *= width / each[0].numel()
            parts.setdefault(factor, []).append(each)
            if factor != 1:
                before = about.reasons.get(id(each), "")
                about.reasons[id(each)] = f"{before}; rate x {factor:.3g}".lstrip("; ")
        made += [{**group, "params": each, "lr": lr * factor} for factor, each in parts.items()]
    return made


def hidden_matrix(name: str, module: nn.Module | None, parameter: nn.Parameter) -> bool:
    """Whether it is a matrix between layers: no embedding, no vector, no depthwise kernel."""
    if isinstance(module, nn.Embedding) or parameter.ndim < 2 or _TOKENS.search(name):
        return False
    if not parameter.numel():
        return False
    return parameter.ndim == 2 or parameter[0].numel() > max(parameter.shape[2:], default=1) ** 2


def _split_by_recipe(
    groups: list[dict[str, Any]], recipe: Recipe, about: About
) -> list[dict[str, Any]]:
    """Each group in those that the recipe takes, and those that go to the others."""
    others = recipe.others
    assert others is not None and recipe.takes is not None
    made = []
    for group in groups:
        taken, left = [], []
        for each in group["params"]:
            name = about.names.get(id(each), "")
            mine = recipe.takes(name, about.modules.get(id(each)), each)
            mine = mine and id(each) != about.head
            (taken if mine else left).append(each)
            before = about.reasons.get(id(each), "")
            to = recipe.name if mine else f"{others.name}: the head"
            if not mine and id(each) != about.head:
                to = f"{others.name}: no hidden matrix"
            about.reasons[id(each)] = f"{before}; {to}".lstrip("; ")
        if taken:
            made.append({**group, "params": taken, "chain": recipe.name})
        if left:
            made.append({**_for_others(group, recipe, others), "params": left})
    return made


def _for_others(group: dict[str, Any], recipe: Recipe, others: Recipe) -> dict[str, Any]:
    """The values of a group for the other recipe: its rate in the same proportion."""
    values = {
        key: value
        for key, value in group.items()
        if key in others.defaults or key not in recipe.defaults
    }
    if "lr" in values and recipe.lr and others.lr:
        values["lr"] = others.lr * values["lr"] / recipe.lr
    return {**values, "chain": others.name}
