"""Python of a segment of a program: for lists of tensors, or tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from trainbus_optim.instructions import Instruction, Program, Segment
from trainbus_optim.operations import OPERATIONS


@dataclass
class Piece:
    """A segment as a function.

    Args:
        run: for lists, `run(registers, numbers)`; by tensor, `run(items, numbers, totals, out)`.
        reads: the registers that have to be there before.
        gives: the registers that it leaves for others.
        slots: by tensor, how many scratch tensors an item has.
        whole: by tensor, whether items are whole tensors.
        text: the source.
    """

    run: Callable[..., None]
    reads: list[str]
    gives: list[str]
    slots: int
    whole: bool
    text: str


def needed_after(program: Program, index: int) -> set[str]:
    """The registers that are read after a segment, or by its sums."""
    names = set(program.results) | set(program.watched.values())
    for total in program.segments[index].totals:
        names |= set(total.sources)
    for segment in program.segments[index + 1 :]:
        for each in segment.code:
            names |= {each.target, *each.sources}
        for total in segment.totals:
            names |= set(total.sources)
    return names


def _reads(segment: Segment) -> list[str]:
    """The registers that a segment needs from outside, in order."""
    made: set[str] = set()
    names: list[str] = []
    for each in segment.code:
        new = each.operation == "call" or OPERATIONS[each.operation].makes
        for name in each.sources if new else (*each.sources, each.target):
            if name not in made and name not in names:
                names.append(name)
        made.add(each.target)
    return names


def _last_uses(code: list[Instruction]) -> dict[str, int]:
    return {name: index for index, each in enumerate(code) for name in (each.target, *each.sources)}


def _call(index: int, each: Instruction, kinds: dict[str, str], wide: bool) -> str:
    """The line of an instruction that calls plain tensor code."""
    numbers = [f"s[{number}]" for number in each.numbers]
    if not wide:
        return f"{each.target} = F{index}({', '.join([*each.sources, *numbers])})"
    loops = [name for name in each.sources if kinds.get(name) != "total"]
    arguments = [f"_{name}" if name in loops else name for name in each.sources]
    variables = ", ".join(f"_{name}" for name in loops)
    lists = ", ".join(loops)
    call = f"F{index}({', '.join([*arguments, *numbers])})"
    return f"{each.target} = [{call} for {variables}, in zip({lists})]"


def _compiled(text: str, segment: Segment) -> Callable[..., None]:
    space: dict[str, Any] = {"torch": torch}
    for index, each in enumerate(segment.code):
        if each.function is not None:
            space[f"F{index}"] = each.function
    exec(compile(text, "<optimizer program>", "exec"), space)
    return space["run"]  # type: ignore[no-any-return]


def _line(form: str, each: Instruction) -> str:
    a, b = (*each.sources, "", "")[:2]
    number = "" if each.number is None else f"s[{each.number}]"
    return form.format(t=each.target, a=a, b=b, s=number)


def for_lists(program: Program, index: int) -> Piece:
    """A segment as calls of torch's foreach functions; each list lives as long as it is read."""
    segment = program.segments[index]
    after = needed_after(program, index)
    reads = _reads(segment)
    lines = [f"{name} = R[{name!r}]" for name in reads]
    last = _last_uses(segment.code)
    made: set[str] = set()
    for place, each in enumerate(segment.code):
        if each.operation == "call":
            lines.append(_call(place, each, program.kinds, wide=True))
        else:
            lines.append(_line(OPERATIONS[each.operation].wide, each))
        made |= {each.target} - set(reads)
        dead = [n for n in made if last.get(n) == place and n not in after]
        if dead:
            lines.append(f"del {', '.join(sorted(dead))}")
            made -= set(dead)
    gives = sorted((made & after) - {"_"})
    lines += [f"R[{name!r}] = {name}" for name in gives]
    text = "def run(R, s):\n" + _indented(lines or ["pass"], 1)
    return Piece(_compiled(text, segment), reads, gives, 0, True, text)


def by_tensor(program: Program, index: int) -> Piece:
    """A segment as a loop over tensors, or pieces of them, with scratch tensors used again."""
    segment = program.segments[index]
    after = needed_after(program, index)
    reads = _reads(segment)
    slots, places = _places(program, segment, after)
    outputs: dict[str, None] = {}
    lines: list[str] = []
    for place, each in enumerate(segment.code):
        named = each._replace(
            target=places.get(each.target, each.target),
            sources=tuple(places.get(name, name) for name in each.sources),
        )
        operation = OPERATIONS.get(each.operation)
        if operation is None:
            lines.append(_call(place, named, program.kinds, wide=False))
        elif not operation.makes or each.target in places:
            lines.append(_line(operation.deep, named))
        elif program.kinds[each.target] == "tensor":
            lines += [f"{each.target} = torch.empty_like(p)", _line(operation.deep, named)]
        else:
            pure = operation.pure
            lines.append(_line(f"{{t}} = {pure}", named))
        if each.target in after and each.target not in reads and each.target != "_":
            outputs[each.target] = None
    gives = list(outputs)
    lines += [f"O[{name!r}].append({name})" for name in gives]
    own = ["p", *(name for name in reads if name != "p" and program.kinds[name] != "total")]
    head = [f"{name} = X[{name!r}]" for name in reads if program.kinds[name] == "total"]
    items = ", ".join([*own, *(f"w{slot}" for slot in range(slots))])
    body = f" for {items}, in items:\n" + _indented(lines or ["pass"], 2)
    text = "def run(items, s, X, O):\n" + _indented(head, 1) + body
    whole = segment.whole or bool(gives)
    return Piece(_compiled(text, segment), own, gives, slots, whole, text)


def _places(program: Program, segment: Segment, after: set[str]) -> tuple[int, dict[str, str]]:
    """A scratch tensor for each temporary; one that is not read any more is used again."""
    last = _last_uses(segment.code)
    free: list[int] = []
    count = 0
    places: dict[str, str] = {}
    for place, each in enumerate(segment.code):
        operation = OPERATIONS.get(each.operation)
        wanted = operation is not None and operation.makes and each.target not in after
        if wanted and program.kinds[each.target] == "tensor" and each.target not in places:
            if not free:
                free, count = [count], count + 1
            places[each.target] = f"w{free.pop()}"
        ended = {n for n in (each.target, *each.sources) if n in places and last[n] == place}
        free += [int(places[name][1:]) for name in ended]
    return count, places


def _indented(lines: Iterable[str], depth: int) -> str:
    return "".join(f"{' ' * depth}{line}\n" for line in lines)


def pure(program: Program, index: int) -> tuple[Callable[..., None], list[str]]:
    """A segment as a function of one flat tensor for each register, for a compiler."""
    segment = program.segments[index]
    names = ["p", *(name for name in _reads(segment) if name != "p")]
    lines = [f"{name} = I{name}" for name in names]
    changed: dict[str, None] = {}
    for each in segment.code:
        lines.append(_line(f"{{t}} = {OPERATIONS[each.operation].pure}", each))
        if each.target in names:
            changed[each.target] = None
    lines += [f"I{name}.copy_({name})" for name in changed]
    head = f"def run(s, {', '.join(f'I{name}' for name in names)}):\n"
    return _compiled(head + _indented(lines, 1), segment), names
