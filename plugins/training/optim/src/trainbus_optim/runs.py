"""How a program runs over the parameters of a bucket: by lists, by tensor, or by a fused kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainbus_optim import fused
from trainbus_optim.instructions import Total
from trainbus_optim.variants import Variant, Variants

#: Elements of a piece: 256 kB of float32 stay in a core's cache, and a call costs little beside it.
CHUNK = 65536


class Wide:
    """Each instruction on all tensors before the next one: right where a call is a kernel."""

    def __init__(self, variants: Variants, lists: dict[str, Any]) -> None:
        self._variants = variants
        self.lists = lists
        self.variant: Variant | None = None
        self.numbers: tuple[float, ...] = ()
        self.registers: dict[str, Any] = {}
        #: What a GradScaler found, for kernels that unscale and skip by themselves.
        self.scale: Tensor | None = None
        self.found_inf: Tensor | None = None

    def begin(
        self, gradients: list[Tensor], group: dict[str, Any], count: int, host: dict[str, float]
    ) -> Variant:
        """Look up the program and its numbers."""
        self.variant = self._variants.of(group, count)
        self.numbers = self.variant.evaluate(group, float(count + 1), host)
        self.registers = {**self.lists, "g": gradients}
        return self.variant

    @property
    def pieces(self) -> int:
        """How many segments there are."""
        assert self.variant is not None
        return len(self.variant.program.segments)

    def run(self, index: int) -> None:
        """Run a segment."""
        assert self.variant is not None
        self.variant.wide[index].run(self.registers, self.numbers)

    def totals(self, index: int) -> list[Total]:
        """The sums after a segment."""
        assert self.variant is not None
        return self.variant.program.segments[index].totals

    def value(self, name: str) -> Any:
        """What a register holds."""
        return self.registers[name]

    def number(self, index: int) -> float:
        """A number of the program."""
        return self.numbers[index]

    def place(self, name: str, value: Tensor) -> None:
        """Give a sum over all tensors."""
        self.registers[name] = value

    def share(self, name: str, value: Tensor) -> None:
        """Use one tensor for all parameters."""
        self.lists[name] = value

    def end(self) -> None:
        """Let go of gradients and of what was computed."""
        self.registers = {}
        self.scale = self.found_inf = None


class Deep(Wide):
    """All instructions on one tensor, or a piece of one, before the next: it stays in the cache."""

    def __init__(self, variants: Variants, lists: dict[str, Any]) -> None:
        super().__init__(variants, lists)
        self._scratch: dict[tuple[Any, ...], Tensor] = {}
        self._columns: dict[tuple[str, bool], list[Tensor]] = {}
        self._slots: dict[tuple[int, bool], list[list[Tensor]]] = {}
        self._addresses: list[int] = []

    def begin(
        self, gradients: list[Tensor], group: dict[str, Any], count: int, host: dict[str, float]
    ) -> Variant:
        """As in lists; parameters that got other memory (`model.to`) are looked up again."""
        addresses = [each.data_ptr() for each in self.lists["p"]]
        if addresses != self._addresses:
            self._columns, self._slots, self._addresses = {}, {}, addresses
        parameters = self.lists["p"]
        same = [
            g if g.stride() == p.stride() else torch.empty_like(p, dtype=g.dtype).copy_(g)
            for g, p in zip(gradients, parameters, strict=True)
        ]
        return super().begin(same, group, count, host)

    def run(self, index: int) -> None:
        """Run a segment."""
        assert self.variant is not None
        piece, kinds = self.variant.deep[index], self.variant.program.kinds
        columns = [self._column(name, piece.whole, kinds.get(name)) for name in piece.reads]
        columns += [self._slot(slot, piece.whole) for slot in range(piece.slots)]
        out: dict[str, list[Tensor]] = {name: [] for name in piece.gives}
        piece.run(zip(*columns, strict=True), self.numbers, self.registers, out)
        self.registers.update(out)

    def _column(self, name: str, whole: bool, kind: str | None) -> list[Tensor]:
        """The items of a register."""
        if kind == "scalar":
            return self._spread(self.registers[name], whole)
        if name not in self.lists:
            return self._cut(self.registers[name], whole)
        if (name, whole) not in self._columns:
            self._columns[name, whole] = self._cut(self.lists[name], whole)
        return self._columns[name, whole]

    def _cut(self, tensors: list[Tensor], whole: bool) -> list[Tensor]:
        if whole:
            return [None if each is None else each.detach() for each in tensors]  # type: ignore[misc]
        made: list[Tensor] = []
        for each in tensors:
            size = each.numel()
            flat = each.detach().as_strided((size,), (1,))
            if size > CHUNK:
                made += flat.split(CHUNK)
            else:
                made.append(flat)
        return made

    def _spread(self, numbers: list[Tensor], whole: bool) -> list[Tensor]:
        """One number of each tensor, for each of its pieces."""
        if whole:
            return numbers
        return [
            number
            for number, p in zip(numbers, self.lists["p"], strict=True)
            for _ in range(max(1, -(-p.numel() // CHUNK)))
        ]

    def _slot(self, slot: int, whole: bool) -> list[Tensor]:
        """Scratch tensors, as large as the items; all are views of one."""
        slots = self._slots.setdefault((0, whole), [])
        while len(slots) <= slot:
            likes = self._column("p", whole, "tensor")
            largest = max((each.numel() for each in likes), default=0)
            like = self.registers["g"][0]  # its type is that of the states
            space = torch.empty(largest, device=like.device, dtype=like.dtype)
            views: dict[Any, Tensor] = {}
            column = []
            for each in likes:
                key = (each.shape, each.stride())
                if key not in views:
                    views[key] = space.as_strided(each.shape, each.stride())
                column.append(views[key])
            slots.append(column)
        return slots[slot]


class Fused(Wide):
    """A fused kernel of torch, with what changes the gradient before it and the weights after it.

    Args:
        kernel: which kernel.
        keys: for each of its blocks the keys in the group.
        variants: of the blocks before it.
        after: the programs of the blocks after it; None without any.
        lists: parameters, states and steps.
    """

    def __init__(
        self, kernel: fused.Kernel, keys: Sequence[dict[str, str]], variants: Variants,
        after: Variants | None, lists: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__(variants, lists)
        self._kernel, self._keys, self._after = kernel, keys, after
        self._group: dict[str, Any] = {}
        self._count = 0

    def begin(
        self, gradients: list[Tensor], group: dict[str, Any], count: int, host: dict[str, float]
    ) -> Variant:
        """As in lists."""
        self._group, self._count = group, count
        return super().begin(gradients, group, count, host)

    def run(self, index: int) -> None:
        """Run a segment of what comes before; with the last one, the kernel and what follows."""
        super().run(index)
        assert self.variant is not None
        if index < self.pieces - 1:
            return
        result = self.variant.program.results[0]
        lists = {name.removeprefix("s_"): value for name, value in self.lists.items()}
        lists["g"] = self.registers[result]
        fused.run(
            self._kernel, self._group, self._keys, self._count == 0, lists, self.scale,
            self.found_inf,
        )  # fmt: skip
        if self._after is not None:
            after = Wide(self._after, self.lists)
            after.begin(self.registers["g"], self._group, self._count, {})
            after.run(0)
