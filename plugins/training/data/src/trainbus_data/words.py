"""Arguments that there are not: an error that names the nearest right word.

Words of other libraries, which mean something that has another name here, are known.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from trainbus.errors import nearest
from trainbus_data.errors import DataError

P = ParamSpec("P")
R = TypeVar("R")

#: What an argument of fastai, Keras or Lightning is called here, and what else to do.
WORDS = {
    "after_batch": "batch_transforms", "after_item": "item_transforms", "base_lr": "lr",
    "batch_tfms": "batch_transforms, or augment= of the learner", "batchsize": "batch_size",
    "bs": "batch_size", "callbacks": "plugins", "cbs": "plugins", "cut": "arch, a module",
    "div_final": "final_div", "dl_type": "split, or a loader of yours", "dls": "data",
    "end_lr": "stop", "fn_col": "input", "freeze_epochs": "frozen_epochs", "get_items": "items",
    "get_x": "input", "get_y": "label", "item_tfms": "item_transforms, or size",
    "label_col": "label", "label_delim": "delimiter", "label_func": "label",
    "learning_rate": "lr", "loss_fn": "loss", "loss_func": "loss", "lr_max": "lr",
    "max_epochs": "epochs", "max_lr": "lr", "moms": "momentum", "n_epoch": "epochs",
    "n_out": "blocks, whose target has the outputs", "normalize": "arch: models normalize",
    "num_epochs": "epochs", "num_it": "steps", "opt_func": "optimizer", "pct_start": "warmup",
    "shuffle": "seed: training is shuffled", "shuffle_train": "seed: training is shuffled",
    "splitter": "split, or groups of the learner", "start_lr": "start", "suff": "suffix",
    "tfms": "item_transforms", "train_bs": "batch_size", "transform": "item_transforms",
    "transforms": "item_transforms", "val_bs": "batch_size", "valid": "split",
    "valid_col": "split", "valid_pct": "split: splits.random(0.2)",
    "validation_split": "split: splits.random(0.2)",
    "wd": "optimizer: partial(torch.optim.AdamW, weight_decay=0.1)", "workers": "num_workers",
    "x_names": "input", "y_names": "label",
}  # fmt: skip


def instead(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a name that there is not: what it is called here."""
    known = list(known)
    word = WORDS.get(name.lower())
    if word is not None and word.split(",")[0].split(":")[0] in known:
        return f"; here it is {word}"
    return nearest(name, known)


def names_checked(*also: Callable[..., object]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function that refuses arguments which neither it has nor one of `also`, to which it
    passes them on.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        known: dict[str, None] = {}
        for each in (function, *also):
            own = inspect.signature(each).parameters.values()
            named = (p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
            known |= dict.fromkeys(named)
        for name in ("self", "cls", "source"):
            known.pop(name, None)

        @functools.wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            for name in options:
                if name not in known and name != "source":
                    raise DataError(
                        f"{function.__qualname__}({name}=...): there is no such argument"
                        f"{instead(name, known)}"
                    )
            return function(*args, **options)

        return checked

    return decorate
