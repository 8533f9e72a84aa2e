"""Signatures read from source, without importing it."""

from __future__ import annotations

import ast
import collections.abc
import datetime
import importlib.util
import inspect
import pathlib
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from trainbus.errors import UsageError, nearest
from trainbus.fit.signatures import EMPTY, Signature, Unread, documented, summary

_MODULES = {
    "typing": typing,
    "collections.abc": collections.abc,
    "pathlib": pathlib,
    "datetime": datetime,
}
_BUILTINS = {
    kind.__name__: kind
    for kind in (int, float, str, bool, bytes, list, tuple, dict, set, frozenset, object)
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


#: `@dataclass`, with or without settings that leave its `__init__` as it is.
_DATACLASS = re.compile(r"(dataclasses\.)?dataclass(\((?!.*init=False).*\))?")


class _Bound(NamedTuple):
    """What binds a name in a module, and whether it does so under no condition."""

    node: ast.stmt
    always: bool


class Sources:
    """Reads signatures from the source of modules; imports none of them.

    Args:
        local: the directories of the user's own modules, searched first.
        installed: those of all other modules.
    """

    def __init__(self, local: Sequence[str] = (), installed: Sequence[str] | None = None) -> None:
        self.local = list(local)
        self.search = [*local, *(sys.path if installed is None else installed)]
        self._modules: dict[Path, Module] = {}

    def read(self, target: str) -> Signature | None:
        """The signature of `module:Class`, `module:Class.method` or `file.py:Class`.

        Returns:
            None where the source alone does not tell it.

        Raises:
            UsageError: there is no such module, the module has no such name, or it has a mistake
                in its syntax.
        """
        place, _, attribute = target.rpartition(":")
        path = Path(place) if place.endswith(".py") else self._find(place)
        if path is None:
            return None
        if not path.is_file():
            raise UsageError(f"there is no file {str(path)!r}")
        parts = attribute.split(".")
        module = self.module(path)
        if not module.is_open and parts[0] not in module.names:
            raise UsageError(f"{path} has no {parts[0]!r}{nearest(parts[0], module.names)}")
        return self._of_name(path, parts, 5)

    def module(self, path: Path) -> Module:
        """The parsed file. Raises `UsageError` for a mistake in its syntax."""
        if path not in self._modules:
            self._modules[path] = Module(path)
        return self._modules[path]

    def _find(self, module: str) -> Path | None:
        first, *rest = module.split(".")
        spec = PathFinder.find_spec(first, self.search)
        if spec is None:
            # Editable installs and the like have finders of their own.
            try:
                found = importlib.util.find_spec(first)
            except (ImportError, ValueError):
                return None
            if found is None:
                raise UsageError(f"there is no module {first!r}{self._nearest_module(first)}")
            return None
        for number, _ in enumerate(rest, 2):
            if spec is None or spec.submodule_search_locations is None:
                return None
            name = ".".join(module.split(".")[:number])
            spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
        origin = spec.origin if spec is not None else None
        return Path(origin) if origin is not None and origin.endswith(".py") else None

    def _nearest_module(self, name: str) -> str:
        here = {path.stem for folder in self.local for path in Path(folder).glob("*.py")}
        where = ", ".join(self.local) or "sys.path"
        return f"{nearest(name, here)} Looked in {where}, and among what is installed"

    def _of_name(self, path: Path, parts: list[str], depth: int) -> Signature | None:
        module = self.module(path)
        node = module.bound(parts[0])
        if node is None or depth == 0:
            return None
        if isinstance(node, ast.ImportFrom):
            name = next(a.name for a in node.names if (a.asname or a.name) == parts[0])
            origin = self._imported(path, node)
            if origin is None:
                return None
            return self._of_name(origin, [name, *parts[1:]], depth - 1)
        if isinstance(node, ast.ClassDef):
            if len(parts) == 1:
                return self._of_class(module, node, depth)
            return _of_method(module, node, parts[1:])
        if isinstance(node, _Function) and len(parts) == 1 and not node.decorator_list:
            return _of_function(module, node, 0)
        return None

    def _imported(self, path: Path, node: ast.ImportFrom) -> Path | None:
        """The file that `from ... import` means, if it is a plain one."""
        if node.level == 0:
            try:
                return self._find(node.module or "")
            except UsageError:
                return None
        if node.module is None:
            return None
        place = path.parents[node.level - 1].joinpath(*node.module.split("."))
        candidates = (place.with_suffix(".py"), place / "__init__.py")
        return next((file for file in candidates if file.is_file()), None)

    def _of_class(self, module: Module, node: ast.ClassDef, depth: int) -> Signature | None:
        """By its `__init__`, its dataclass fields, or a base class."""
        made_by = [item.name for item in node.body if isinstance(item, _Function)]
        if node.keywords or "__new__" in made_by or depth == 0:
            return None
        if node.decorator_list and not _is_data(node):
            return None
        doc = ast.get_docstring(node) or ""
        if "__init__" in made_by:
            signature = _of_method(module, node, ["__init__"])
            if signature is None:
                return None
            docs = {**documented(doc), **signature.docs}
            return Signature(signature.parameters, summary(doc), signature.types, docs)
        inherited: Signature | None = Signature({})
        for base in node.bases:
            name = ast.unparse(base).partition("[")[0]
            if name in ("object", "Protocol", "Generic", "ABC"):
                continue
            bound = module.bound(name)
            if _is_data(node) and not (isinstance(bound, ast.ClassDef) and _is_data(bound)):
                return None  # only the fields of dataclasses are inherited
            inherited = self._of_name(module.path, [name], depth - 1)
            if inherited is None or inherited.parameters:
                break
        if inherited is None:
            return None
        own = _of_fields(module, node) if node.decorator_list else Signature({})
        return Signature(
            {**inherited.parameters, **own.parameters},
            summary(doc),
            {**inherited.types, **own.types},
            {**inherited.docs, **documented(doc)},
        )


class Module:
    """A parsed file: which names it binds, and what its annotations mean."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            text = error.msg if isinstance(error, SyntaxError) else error
            raise UsageError(f"{path}{line}: {text}") from None
        self.names: dict[str, list[_Bound]] = {}
        self.is_open = path.name == "__init__.py"
        for bound in _statements(self.tree.body, True):
            for name in _binds(bound.node):
                self.is_open |= name in ("*", "__getattr__")
                self.names.setdefault(name, []).append(bound)
        text = ast.dump(self.tree)
        self.is_open |= "id='globals'" in text or "id='exec'" in text

    def bound(self, name: str) -> ast.stmt | None:
        """What binds a name, if it is one thing."""
        found = self.names.get(name, [])
        if len(found) == 1 or all(bound.always for bound in found):
            return found[-1].node if found else None
        return None

    def meaning(self, node: ast.expr | None) -> Any:
        """The type that an annotation means, or `Any` where that takes an import to know."""
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                try:
                    return self.meaning(ast.parse(node.value, mode="eval").body)
                except SyntaxError:
                    return Any
            return None if node.value is None else Any
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.Attribute):
            for name, module in _MODULES.items():
                if ast.unparse(node.value) == name:
                    return getattr(module, node.attr, Any)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return _union([self.meaning(node.left), self.meaning(node.right)])
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        return Any

    def _named(self, name: str) -> Any:
        bound = self.names.get(name, [])
        if not bound:
            return _BUILTINS.get(name, Any)
        node = bound[-1].node
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in _MODULES:
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            return getattr(_MODULES[node.module], original, Any)
        return Any

    def _subscript(self, node: ast.Subscript) -> Any:
        base = self.meaning(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        try:
            if base is typing.Literal:
                return base[tuple(ast.literal_eval(item) for item in inner)]
            if base is typing.Annotated:
                return self.meaning(inner[0])
            if base in (typing.Optional, typing.Union):
                types = [self.meaning(item) for item in inner]
                return _union([*types, None] if base is typing.Optional else types)
            if base in (collections.abc.Callable, typing.Callable):
                return base
            types = [
                ... if isinstance(i, ast.Constant) and i.value is ... else self.meaning(i)
                for i in inner
            ]
            return Any if base is Any else base[tuple(types) if len(types) > 1 else types[0]]
        except (TypeError, ValueError):
            return Any


def _union(types: Sequence[Any]) -> Any:
    return Any if Any in types else typing.Union[tuple(types)]  # noqa: UP007


def _statements(body: Sequence[ast.stmt], always: bool) -> Iterator[_Bound]:
    """The statements that run when a module is imported, those in `if` and `try` too."""
    for node in body:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            continue
        yield _Bound(node, always)
        if not isinstance(node, (*typing.get_args(_Function), ast.ClassDef)):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(node, block, []), False)
            for handler in getattr(node, "handlers", []):
                yield from _statements(handler.body, False)


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.For)):
        targets = [node.target]
    elif isinstance(node, ast.With):
        targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
    names = [leaf for target in targets for leaf in ast.walk(target)]
    return [leaf.id for leaf in names if isinstance(leaf, ast.Name)]


def _is_data(node: ast.ClassDef) -> bool:
    texts = [ast.unparse(decorator) for decorator in node.decorator_list]
    return bool(texts) and all(_DATACLASS.fullmatch(text) for text in texts)


def _of_method(module: Module, node: ast.ClassDef, parts: list[str]) -> Signature | None:
    methods = [m for m in node.body if isinstance(m, _Function) and m.name == parts[0]]
    if len(parts) > 1 or not methods:
        return None
    method = methods[-1]  # those before are overloads
    decorators = [ast.unparse(decorator) for decorator in method.decorator_list]
    if decorators == ["staticmethod"]:
        return _of_function(module, method, 0)
    if decorators == ["classmethod"] or (parts[0] == "__init__" and not decorators):
        return _of_function(module, method, 1)
    return None if decorators else _of_function(module, method, 0)


def _of_function(module: Module, node: _Function, skip: int) -> Signature:
    given = node.args
    kinds = inspect.Parameter
    plain: list[tuple[ast.arg, Any]] = [(a, kinds.POSITIONAL_ONLY) for a in given.posonlyargs]
    plain += [(a, kinds.POSITIONAL_OR_KEYWORD) for a in given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    listed: list[tuple[ast.arg, Any, ast.expr | None]] = [
        (a, kind, d) for (a, kind), d in zip(plain, defaults, strict=True)
    ][skip:]
    if given.vararg:
        listed.append((given.vararg, kinds.VAR_POSITIONAL, None))
    keywords = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    listed += [(a, kinds.KEYWORD_ONLY, d) for a, d in keywords]
    if given.kwarg:
        listed.append((given.kwarg, kinds.VAR_KEYWORD, None))
    parameters = {
        a.arg: kinds(
            a.arg, kind, default=_default(module, d), annotation=_annotation(module, a.annotation)
        )
        for a, kind, d in listed
    }
    doc = ast.get_docstring(node) or ""
    types = {a.arg: ast.unparse(a.annotation) for a, _, _ in listed if a.annotation is not None}
    return Signature(parameters, summary(doc), types, documented(doc))


def _of_fields(module: Module, node: ast.ClassDef) -> Signature:
    parameters, types = {}, {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        name, type_text = item.target.id, ast.unparse(item.annotation)
        value = item.value
        is_field = isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field")
        if isinstance(value, ast.Call) and is_field:
            settings = {keyword.arg: keyword.value for keyword in value.keywords}
            if "init" in settings and ast.unparse(settings["init"]) == "False":
                continue
            value = settings.get("default", settings.get("default_factory"))
        if "ClassVar" in type_text or "KW_ONLY" in type_text:
            continue
        parameters[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(module, value),
            annotation=_annotation(module, item.annotation),
        )
        types[name] = type_text
    return Signature(parameters, types=types)


def _annotation(module: Module, node: ast.expr | None) -> Any:
    return EMPTY if node is None else module.meaning(node)


def _default(module: Module, node: ast.expr | None) -> Any:
    """The value of a default, or of the constant of the module that it names."""
    if node is None:
        return EMPTY
    if isinstance(node, ast.Name):
        bound = module.bound(node.id)
        if isinstance(bound, (ast.Assign, ast.AnnAssign)) and bound.value is not None:
            node = bound.value
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return Unread(ast.unparse(node))
