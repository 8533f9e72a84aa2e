"""Block: one part of an item, and all that follows from what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainbus_data.errors import DataError, message
from trainbus_data.transforms import Kinds, Parts, Transform

Metric = Any  # a function of (output, target), or an object with update, compute and reset


class Block:
    """One part of an item: what it is, how it is read, batched, shown and, as a target, learned.

    Your own block needs `kind` and `encode`; a target also `loss` and, if the number is known,
    `outputs`. `options` are the JSON values that its constructor takes. That a state can name it,
    an installed distribution lists its class in the entry point group `trainbus.recipes`.
    """

    #: What transforms go by: "image", "mask", "points", "boxes", or anything else.
    kind: str = "value"
    #: Whether it is read from a file, whose name a column of a table may have.
    is_file: bool = False
    #: How the names of such files end; None for any.
    endings: tuple[str, ...] | None = None
    #: Whether it lies in the picture of the input: it is drawn onto it, and moves with it.
    in_picture: bool = False
    #: Whether target and prediction are drawn into one picture, or side by side.
    overlays: bool = False
    #: What to do where items of a batch differ in shape, for messages.
    shape_hint: str = ""
    #: Of a target, after `setup`: how many numbers a model has to give for one item.
    outputs: int | None = None

    # --- from what was given to a tensor, and back ---------------------------------------------

    def setup(self, raws: Iterable[Any]) -> None:
        """Learn from the training part alone (a vocabulary, for example)."""

    def problem(self, raw: Any) -> str | None:
        """What is wrong with this value, as far as can be said without reading a file."""
        return None

    def prepare(self) -> None:
        """Import what `encode` needs: called before worker processes are made."""

    def encode(self, raw: Any) -> Tensor:
        """The tensor of one part of one item."""
        raise NotImplementedError(f"{type(self).__name__} has no encode, which reads an item")

    def encode_all(self, raws: Any) -> Tensor:
        """The tensor of many items at once, for data in memory: N x the shape of one."""
        values = []
        for index, raw in enumerate(raws):
            try:
                values.append(self.encode(raw))
            except Exception as error:
                raise DataError(f"item {index}: {message(error)}") from error
        if not self.same_shape(values):
            raise DataError(f"the {self.kind} has not the same shape in all items")
        return self.batch(values)

    def batch(self, values: Sequence[Tensor]) -> Tensor:
        """A batch of encoded values, which are of one shape."""
        return torch.utils.data.default_collate(list(values))  # type: ignore[no-any-return]

    def same_shape(self, values: Sequence[Tensor]) -> bool:
        """Whether these go into one batch."""
        return all(value.shape == values[0].shape for value in values)

    def see(self, parts: Parts, kinds: Kinds) -> None:
        """Learn from a batch, as validation has it: the size of its images, for example."""

    def misfit(self, value: Tensor, parts: Parts, kinds: Kinds) -> str | None:
        """Why an encoded value cannot belong to the other parts of its item, or of its batch."""
        return None

    def sized(self, size: Any) -> Transform:
        """The transform that brings items with this as their first part to one size."""
        raise DataError(
            f"size={size!r}: {type(self).__name__} has no size that it can be brought to"
        )

    def sized_whole(self, size: Any, kinds: Kinds) -> Transform:
        """As `sized`, with nothing cut off: for targets that lie in the input.

        Args:
            size: as in `sized`.
            kinds: of all parts of an item.
        """
        return self.sized(size)

    def tally(self, value: Tensor, parts: Parts, kinds: Kinds) -> dict[str, int]:
        """How much of an encoded target counts, and how much does not, by why."""
        return {}

    def decode(self, value: Tensor) -> Any:
        """What a person is shown for an encoded value."""
        return value.tolist()

    def corners(self, value: Tensor) -> Tensor | None:
        """Where an encoded input begins and ends in itself, (x, y) each: what transforms move."""
        return None

    def restored(self, value: Tensor, corners: Tensor, size: tuple[float, float]) -> Any:
        """What `decode` gives, in places of the input before the transforms.

        Args:
            value: in places of what a model sees.
            corners: where the corners of the input have come to lie in it.
            size: of the input: its width and height.
        """
        return self.decode(value)

    def write(self, label: Any, path: Path) -> Path | None:
        """Write what `decode` gives to a file, and return its path; None if a line of text has it.

        Args:
            label: of one item.
            path: where; its ending is replaced by that of the format.
        """
        return None

    def draw(self, axes: Any, value: Any, color: str | None = None) -> None:
        """Draw a value, encoded or decoded, onto matplotlib axes."""
        shown = self.decode(value) if isinstance(value, Tensor) else value
        add_title(axes, str(shown), color)

    # --- as a target ---------------------------------------------------------------------------

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss, a function of (output, target)."""
        raise DataError(f"{type(self).__name__} as a target has no loss of its own; give loss=...")

    def metrics(self) -> dict[str, Metric]:
        """New metrics by name: functions of (output, target), or objects with update/compute."""
        return {}

    def activation(self, output: Tensor) -> Tensor:
        """Probabilities, or values, from what a model gives."""
        return output

    def read(self, probabilities: Tensor) -> Tensor:
        """A prediction shaped like the target, from what `activation` gave."""
        return probabilities

    def needs(self) -> str:
        """In words: which outputs a model has to give for this target."""
        return "any number of outputs" if self.outputs is None else f"{self.outputs} outputs"

    def check_output(self, output: Tensor, of: str = "the model") -> None:
        """Refuse a model's output for a batch (N x outputs x ...) that cannot fit the target.

        Raises:
            DataError: it has another number of outputs than the target needs.
        """
        given = output.shape[1] if output.ndim > 1 else 1
        if self.outputs is not None and given != self.outputs:
            raise DataError(
                f"{of} gives {given} outputs (shape {tuple(output.shape)}), but the target, "
                f"{type(self).__name__}, needs {self.needs()}"
            )

    def together(self, others: Sequence[Block]) -> Block:
        """The one target that this is with the targets behind it: by default the last of them."""
        return others[-1] if others else self

    def legend(self, values: Sequence[Any]) -> list[tuple[str, Any]]:
        """What colours mean in drawn values, as (text, colour); nothing where they mean nothing."""
        return []

    def draw_both(self, axes: Any, target: Any, given: Any) -> None:
        """Draw a target in green, and what is predicted in red, into one picture."""
        self.draw(axes, target, "tab:green")
        self.draw(axes, given, "tab:red")

    def fitted(self, target: Any, inputs: Sequence[Any]) -> Any:
        """The targets of a batch for the loss and the metrics, where they depend on its inputs."""
        return target

    # --- to keep -------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """JSON values that make an equal block of the constructor."""
        return {}

    def state(self) -> dict[str, Any]:
        """JSON values: enough to encode and decode in a fresh process."""
        return {"block": type(self).__name__, **self.options()}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={shortened(value)}" for name, value in self.options().items())
        return f"{type(self).__name__}({given})"


def shortened(value: Any, most: int = 60) -> str:
    """As `repr`, of a list only as many values as fit, and how many there are."""
    text = repr(value)
    if len(text) <= most or not isinstance(value, (list, tuple)):
        return text if len(text) <= most else f"{text[: most - 3]}..."
    shown: list[str] = []
    for each in value:
        if sum(len(word) + 2 for word in (*shown, repr(each))) > most - 10:
            break
        shown.append(repr(each))
    return f"[{', '.join(shown)}, ... {len(value)} in all]"


def add_title(axes: Any, text: str, color: str | None) -> None:
    """Write text above the axes, in a further line if there is a title already."""
    before = axes.get_title()
    colored = {} if color is None else {"color": color}
    axes.set_title(f"{before}\n{text}" if before else text, fontsize=9, **colored)
