"""Which metrics a learner measures: what was asked for, or what suits its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainbus import UsageError
from trainbus.errors import nearest
from trainbus_data import metrics as measures
from trainbus_learner.ignoring import ignored
from trainbus_learner.plain import PlainTarget
from trainbus_learner.task import name_of

Metrics = Mapping[str, Any] | Sequence[Any]

#: What may be asked for by name, for each kind of target, by the index that does not count.
NAMED: dict[str, dict[str, Callable[[int | None], Any]]] = {
    "category": {
        "accuracy": measures.Accuracy,
        "error_rate": measures.ErrorRate,
        "top_5": lambda ignore: measures.Accuracy(ignore, best=5),
        "f1": measures.MacroF1,
    },
    "mask": {"accuracy": measures.Accuracy, "error_rate": measures.ErrorRate},
    "categories": {"accuracy": lambda _: measures.labels_accuracy()},
    "number": {
        "mae": lambda _: measures.mean_absolute_error,
        "mse": lambda _: measures.mean_squared_error,
        "rmse": lambda _: measures.RootMeanSquare(),
    },
}
#: What is measured where nothing was asked for, with plain loaders.
_USUAL = {"category": ["accuracy"], "categories": ["accuracy"], "number": []}


def chosen(asked: Metrics | None, target: Any, loss: Any = None) -> tuple[dict[str, Any], str]:
    """The metrics by name, and why it is these.

    Args:
        asked: a mapping; a list of names, functions and objects; None for what suits the target.
        target: the block of the target.
        loss: what it leaves out does not count in those that are known by name.

    Raises:
        UsageError: a name that is not known for such targets.
    """
    is_guessed = isinstance(target, PlainTarget)
    own = {} if is_guessed else dict(target.metrics())
    leave_out = ignored(loss, target)
    named = {name: make(leave_out) for name, make in NAMED.get(target.kind, {}).items()}
    if target.kind == "category":
        own = {name: named.get(name, metric) for name, metric in own.items()}
    known = {**named, **own}
    if asked is None:
        if is_guessed:
            names = _USUAL[target.kind]
            return {name: known[name] for name in names}, f"usual for a {target.kind} target"
        return own, f"usual for {type(target).__name__}"
    if isinstance(asked, Mapping):
        return dict(asked), "given"
    if isinstance(asked, str) or not isinstance(asked, Sequence):
        raise UsageError(f"metrics={asked!r:.80}: give a list of names, or a mapping by name")
    found: dict[str, Any] = {}
    for each in asked:
        if not isinstance(each, str):
            found[name_of(each).lower() if hasattr(each, "compute") else name_of(each)] = each
        elif each in known:
            found[each] = known[each]
        else:
            raise UsageError(
                f"metrics: there is no {each!r} for a {target.kind} target{nearest(each, known)} "
                f"By name there are {', '.join(known) or 'none'}; give functions as "
                "{'name': function of (output, target)}"
            )
    return found, "given"
