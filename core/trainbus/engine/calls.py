"""How a model is called with a batch, and what of its output counts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from trainbus.errors import UsageError

logger = logging.getLogger("trainbus")

#: What the target is called in batches that are mappings.
TARGETS = ("labels", "label", "target", "targets", "y")


class Call:
    """How a model is called with a batch.

    A batch is (input, target); (input, input, target), which are so many arguments; or a mapping,
    whose target is one of `TARGETS` and whose rest are arguments by name, as Hugging Face has it.
    An input that is itself a mapping is arguments by name; one that is a sequence is several
    arguments where the model needs more than one, or takes any number.
    """

    def __init__(self, model: nn.Module) -> None:
        #: What the target was called in the newest batch that was a mapping.
        self.target = TARGETS[0]
        self._model = type(model).__name__
        try:
            parameters = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        kinds = {each.kind for each in parameters}
        in_order = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [
            each for each in parameters if each.kind in in_order and each.default is each.empty
        ]
        self._needed = len(needed)
        self._takes_several = self._needed > 1 or inspect.Parameter.VAR_POSITIONAL in kinds
        #: Names of its arguments; none where it takes any.
        takes_any = not parameters or inspect.Parameter.VAR_KEYWORD in kinds
        self._known = None if takes_any else {each.name for each in parameters}
        self._left_out: set[str] = set()

    def parts(self, batch: Any) -> tuple[Sequence[Any], dict[str, Any], Any]:
        """Arguments in order, arguments by name, and the target.

        Raises:
            UsageError: there is no target.
        """
        if isinstance(batch, Mapping):
            key = next((name for name in TARGETS if name in batch), None)
            if key is None:
                raise UsageError(
                    f"a batch of {', '.join(map(str, batch))} has no target: it is called one of "
                    f"{', '.join(TARGETS)}"
                )
            self.target = key
            return (), self._by_name(batch, key), batch[key]
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise UsageError(
                f"a batch is a {type(batch).__name__}{size}; Task.supervised takes (input, "
                "target), (input, input, target) or a mapping with a target; or write a Task"
            )
        *inputs, target = batch
        return *self._arguments(inputs), target

    def without_target(self, batch: Any) -> tuple[Sequence[Any], dict[str, Any]]:
        """Arguments in order and by name of a batch that may have a target."""
        if isinstance(batch, Mapping):
            key = next((name for name in TARGETS if name in batch), None)
            return (), self._by_name(batch, key)
        if not isinstance(batch, (tuple, list)):
            return (batch,), {}
        plain = not isinstance(batch[0], (tuple, list, Mapping))
        all_are_inputs = len(batch) == 1 or (plain and len(batch) == self._needed)
        return self._arguments(list(batch) if all_are_inputs else list(batch)[:-1])

    def _arguments(self, inputs: list[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        if len(inputs) > 1:
            return inputs, {}
        if isinstance(inputs[0], Mapping):
            return (), self._by_name(inputs[0], None)
        several = self._takes_several and isinstance(inputs[0], (tuple, list))
        return (inputs[0] if several else inputs), {}

    def _by_name(self, batch: Mapping[str, Any], target: str | None) -> dict[str, Any]:
        """What the model takes of a mapping; the rest is left out, which is said once."""
        named = {name: value for name, value in batch.items() if name != target}
        if self._known is None:
            return named
        if more := named.keys() - self._known - self._left_out:
            self._left_out |= more
            logger.warning(
                "%s takes no %s: left out of its batches", self._model, ", ".join(sorted(more))
            )
        return {name: value for name, value in named.items() if name in self._known}


def answer(output: Any) -> Any:
    """What a loss and metrics are computed of: of an output with several fields the logits."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output)


def loss_in(output: Any, model: nn.Module) -> Any:
    """The loss that a model gave with its output. Raises `UsageError` where it gave none."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise UsageError(
            f"loss=None takes the loss that the model gives, and {type(model).__name__} gives a "
            f"{type(output).__name__} without one; give loss="
        )
    return loss
