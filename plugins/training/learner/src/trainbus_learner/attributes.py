"""What may be set of a learner, and what other libraries call its verbs."""

from __future__ import annotations

import inspect
from typing import Any

from trainbus import Trainer, UsageError
from trainbus_data.words import instead

#: Attributes that are read wherever they are needed: another value has an effect.
_SETTABLE = ("data", "loss", "lr", "metrics", "model_description", "plugins", "pretrained")
#: What verbs and attributes of fastai, Keras or Lightning are called here.
WORDS = {
    "add_cb": "plugins", "create_opt": "optimizer= of the learner", "dls": "data",
    "eval": "validate", "evaluate": "validate", "fine_tuning": "fine_tune",
    "get_preds": "predictions", "loss_func": "loss", "lr_find": "find_lr",
    "lr_finder": "find_lr", "opt_func": "optimizer= of the learner", "plot_losses": "run.metrics",
    "plot_top_losses": "interpret().plot_worst", "recorder": "run",
    "remove_cb": "plugins", "show_preds": "show_results", "test": "validate('test')",
    "to_bf16": "precision='bf16' of the learner", "to_fp16": "precision='fp16' of the learner",
    "train": "fit", "wd": "optimizer= of the learner",
}  # fmt: skip


class Attributes:
    """Refuses to set what would change nothing, and names the right word for a wrong one."""

    #: Set when the learner is made.
    _is_made = False

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_made and name not in _SETTABLE and name in _fixed(type(self)):
            raise UsageError(
                f"learner.{name} = ... would change nothing: make another learner, with {name}= "
                f"(may be set: {', '.join(_SETTABLE)})"
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        here = WORDS.get(name)
        known = [each for each in (*dir(type(self)), *vars(self)) if not each.startswith("_")]
        end = f"; here it is {here}" if here else instead(name, known)
        raise AttributeError(f"{type(self).__name__} has no {name!r}{end}")


def _fixed(kind: type) -> set[str]:
    """The arguments of any learner and of its trainer, and what was made of them."""
    own = [each for each in kind.__mro__ if issubclass(each, Attributes) and each is not Attributes]
    first = next(each for each in reversed(own) if "__init__" in vars(each))
    names = {"groups", "task"}
    for each in (first, Trainer):
        names |= set(inspect.signature(each.__init__).parameters)  # type: ignore[misc]
    return names - {"self"}
