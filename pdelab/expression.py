"""Formulas in the coordinates as text, read by a whitelist: nothing is ever evaluated as Python."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from pdelab.errors import InputError

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arctan": np.arctan,
}
CONSTANTS = {"pi": np.pi, "e": np.e}
LONGEST = 2000
"""Characters that a formula may have."""

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def evaluate(text: str, points: np.ndarray, names: tuple[str, ...] = ("x", "y", "z")) -> np.ndarray:
    """The values (n,) of a formula at points (n, d).

    Allowed are numbers, the first d of the names, pi, e, + - * / ** (also ^) with parentheses, and the `FUNCTIONS`.

    Raises:
        InputError: anything else in the text, or a value that is not finite.
    """
    if len(text) > LONGEST:
        raise InputError(f"formula: expected at most {LONGEST} characters, got {len(text)}")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"formula {text!r}: cannot be read; write it like exp(-50*((x-0.3)**2 + y**2))") from None
    known = {**CONSTANTS, **dict(zip(names, np.asarray(points, dtype=float).T, strict=False))}
    with np.errstate(all="ignore"):
        try:
            found = _value(tree.body, known, text)
        except RecursionError:
            raise InputError(f"formula {text[:60]!r}...: too deeply nested") from None
    values = np.broadcast_to(np.asarray(found, dtype=float), (len(points),)).copy()
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        place = ", ".join(f"{c:.6g}" for c in points[bad[0]])
        raise InputError(f"formula {text!r}: not finite at {len(bad)} of {len(values)} nodes, the first at ({place})")
    return values


def _value(node: ast.AST, known: dict[str, Any], text: str) -> Any:
    """The value of a part of the syntax tree; floats only, so that no power grows without bound."""
    match node:
        case ast.Constant(value=bool() | complex()):
            pass
        case ast.Constant(value=int() | float() as number):
            try:
                return np.float64(number)
            except OverflowError:
                raise InputError(f"formula {text[:60]!r}: the number {str(number)[:12]}... is too large") from None
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.Name(id=name):
            raise InputError(f"formula {text!r}: unknown name {name!r}; known: {', '.join([*known, *FUNCTIONS])}")
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand, known, text))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, known, text), _value(right, known, text))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_value(argument, known, text))
        case ast.Call(func=ast.Name(id=name), args=args) if name in FUNCTIONS:
            raise InputError(f"formula {text!r}: {name} takes one argument, got {len(args)}")
        case ast.Call(func=ast.Name(id=name)):
            raise InputError(f"formula {text!r}: unknown function {name!r}; known: {', '.join(FUNCTIONS)}")
    part = ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__
    raise InputError(f"formula {text!r}: {part!r} is not allowed; numbers, coordinates, + - * / ** and functions are")
