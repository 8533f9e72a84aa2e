"""Expressions of sizes in an exported program, which torch evaluates: of numbers and known names.

They are parsed, and never evaluated, here; what is not listed is refused.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from trainbus.storage.untrusted import Unfit, shown

#: The functions of sympy and torch.
_FUNCTIONS = frozenset((
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float",
    "FloatTrueDiv", "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "IntTrueDiv",
    "Integer", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing", "Mul", "Ne",
    "Not", "Or", "Pow", "PowByNatural", "PythonMod", "Rational", "RoundToInt",
    "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToInt", "Unequality",
    "Where",
))  # fmt: skip
_OPTIONS = frozenset((
    "evaluate", "integer", "negative", "nonnegative", "nonpositive",
    "nonzero", "positive", "precision", "real",
))  # fmt: skip
_SYMBOL = re.compile(r"(s|u|zuf|zf)\d+")
_NAMES = re.compile(rf"int_oo|oo|inf|{_SYMBOL.pattern}")
_NUMBER_TEXT = re.compile(r"-?\d{1,20}(\.\d{1,40})?(e[+-]?\d{1,3})?")
#: What guards call on numbers.
_BUILTIN = ("abs", "float", "int", "max", "min")
_CALLED = frozenset(
    [f"math.{name}" for name in ("ceil", "floor", "isnan", "sqrt", "trunc")]
    + [f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not", "sum")]
    + ["torch._sym_sqrt", "torch.sym_sqrt"]
)
#: What a guard asks of an input.
_ASKED = frozenset(("size", "stride", "storage_offset", "shape"))
_PLAIN = (
    ast.Expression, ast.IfExp, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Load,
    ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.keyword,
)  # fmt: skip
_LONGEST = 10_000


def check_size(value: Any, where: str) -> None:
    """Refuse a size that is not made of numbers, symbols and known functions. Raises `Unfit`."""
    _check(value, where, is_guard=False)


def check_guard(value: Any, where: str) -> None:
    """Refuse a guard that does more than compare the sizes of inputs. Raises `Unfit`."""
    _check(value, where, is_guard=True)


def _check(value: Any, where: str, is_guard: bool) -> None:
    refused = Unfit(f"{where} is the expression {shown(value)}")
    # It is put into a line of code: no end of the line, of a text or of the code.
    characters = r"[\w .,\[\]()'+\-*/%<>=!&|~]*" if is_guard else r"[\w .,()'+\-*/%<>=!&|~]*"
    if type(value) is not str or len(value) > _LONGEST or not re.fullmatch(characters, value):
        raise refused
    try:
        tree = ast.parse(value.strip(), mode="eval")
        fits = all(_fits(node, is_guard) for node in ast.walk(tree))
        fits = fits and _is_small(tree.body, powers=3)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise refused from None
    if not fits:
        raise refused


def _fits(node: ast.AST, is_guard: bool) -> bool:
    match node:
        case ast.Constant(value=bool() | int() | float() as number):
            return abs(number) < 2**64 or number in (float("inf"),)
        case ast.Constant(value=str() as word):
            named = is_guard and word.isidentifier()
            return bool(named or _SYMBOL.fullmatch(word) or _NUMBER_TEXT.fullmatch(word))
        case ast.Name(id=name):
            known = name in _FUNCTIONS or _NAMES.fullmatch(name)
            return bool(known or (is_guard and name in ("L", "math", "torch", *_BUILTIN)))
        case ast.Call(func=ast.Name(id=name), keywords=keywords):
            called = name in _FUNCTIONS or (is_guard and name in _BUILTIN)
            return called and all(each.arg in _OPTIONS for each in keywords)
        case ast.Call(func=ast.Attribute(attr=name), keywords=[], args=[]):
            return is_guard and name in _ASKED
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name), keywords=[]):
            return is_guard and f"{module}.{name}" in _CALLED
        case ast.Attribute(value=ast.Name(id="math" | "torch" as module), attr=name):
            return is_guard and f"{module}.{name}" in _CALLED | {"math.inf"}
        case ast.Attribute(attr=name):
            return is_guard and name in _ASKED
        case ast.Subscript(slice=ast.Constant()):
            return is_guard
    return isinstance(node, _PLAIN) and not isinstance(node, (ast.LShift, ast.MatMult))


def _is_small(node: ast.AST, powers: int) -> bool:
    """Whether its powers are of a number that can be held: small ones, and few in each other."""
    exponent = _exponent(node)
    if exponent is not None:
        powers -= 1
        inside = list(ast.walk(exponent))
        if powers < 0 or any(_is_large(each) or _exponent(each) is not None for each in inside):
            return False
    return all(_is_small(each, powers) for each in ast.iter_child_nodes(node))


def _exponent(node: ast.AST) -> ast.AST | None:
    match node:
        case ast.BinOp(op=ast.Pow(), right=exponent):
            return exponent
        case ast.Call(func=ast.Name(id="Pow" | "PowByNatural"), args=[_, exponent]):
            return exponent
        case ast.Call(func=ast.Name(id="Pow" | "PowByNatural")):
            return node
    return None


def _is_large(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) > 64
