"""Which modules of a model are compiled, and which of them share one piece of compiled code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trainbus import PluginError
from trainbus.errors import nearest

if TYPE_CHECKING:
    from torch import nn

#: The name of the model itself, as a region.
WHOLE = "."

#: Modules by the name of their region; those of one region share their code.
Regions = dict[str, list["nn.Module"]]


def find(model: nn.Module, wanted: str | Sequence[str] | None) -> Regions:
    """The modules to compile.

    Args:
        model: what is trained.
        wanted: None for each module with parameters that is an attribute of the model (or for the
            model, if there is none), "auto" for repeated blocks, or names, in which `*` stands for
            anything.

    Raises:
        PluginError: there are no repeated blocks, or a name fits no module.
    """
    if wanted is None:
        return _children(model)
    if wanted == "auto":
        return _repeated(model)
    return _named(model, [wanted] if isinstance(wanted, str) else wanted)


def _children(model: nn.Module) -> Regions:
    found: Regions = {}
    for child_name, child in model.named_children():
        for name, module in _callable(child_name, child):
            if next(module.parameters(), None) is not None:  # no loss, no metric
                found[name] = [module]
    return found or {WHOLE: [model]}


def _repeated(model: nn.Module) -> Regions:
    from torch import nn

    found: Regions = {}
    inside: set[nn.Module] = set()
    for name, container in model.named_modules():
        holds = isinstance(container, (nn.ModuleList, nn.ModuleDict, nn.Sequential))
        if container in inside or not holds:
            continue
        # A layer alone is no block.
        blocks = [each for each in container.children() if next(each.children(), None) is not None]
        kinds = [type(each) for each in blocks]
        for block, kind in zip(blocks, kinds, strict=True):
            if kinds.count(kind) > 1 and kind.forward is not nn.Module.forward:
                _add(found, name, block)
                inside.update(block.modules())
    if not found:
        raise PluginError(
            "plugin 'compile' (trainbus-compile): regions='auto' finds no repeated blocks in "
            f"{type(model).__name__}: no ModuleList or Sequential has two modules of one class "
            f"with layers inside. Name regions, or leave the option out; there are {_listed(model)}"
        )
    return found


def _named(model: nn.Module, patterns: Sequence[str]) -> Regions:
    modules = {name or WHOLE: module for name, module in model.named_modules()}
    found: Regions = {}
    inside: set[nn.Module] = set()
    for pattern in patterns:
        fitting = [name for name in modules if name == pattern or fnmatchcase(name, pattern)]
        if not fitting:
            raise PluginError(
                f"plugin 'compile' (trainbus-compile): the region {pattern!r} is no module of "
                f"{type(model).__name__}{nearest(pattern, modules)} There are {_listed(model)}"
            )
        for name in fitting:
            for _, module in _callable(name, modules[name]):
                if module not in inside:
                    _add(found, pattern, module)
                    inside.update(module.modules())
    return found


def _add(found: Regions, name: str, module: nn.Module) -> None:
    """To the region of that name; to one of its own class, if that has another."""
    first = found.setdefault(name, [module])[0]
    if type(first) is not type(module):
        found.setdefault(f"{name}:{type(module).__name__}", []).append(module)
    elif first is not module:
        found[name].append(module)


def _callable(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The module, or what it holds if it cannot be called itself (ModuleList, ModuleDict)."""
    from torch import nn

    if type(module).forward is not nn.Module.forward:
        yield name, module
    else:
        for item_name, item in module.named_children():
            yield from _callable(f"{name}.{item_name}", item)


def _listed(model: nn.Module) -> str:
    """Names that could be given: those of the upper two levels."""
    names = [name for name, _ in model.named_modules() if name and name.count(".") < 2]
    return ", ".join([repr(WHOLE), *map(repr, names[:20])]) + (", ..." if names[20:] else "")
