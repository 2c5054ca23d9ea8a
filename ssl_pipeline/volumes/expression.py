"""Arithmetic expressions over the parts of a file's name, such as `(id + 1) // 2`, without `eval`.

The text is parsed by Python's own parser and walked here; anything but numbers, strings, names,
arithmetic, comparison, `a if b else c` and `str()` is refused, so a study file can run no code.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse(text: str) -> ast.expr:
    """The parsed expression. Raises ValueError, one sentence, for anything but arithmetic."""
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        raise ValueError(
            f"`{text}` is not an expression; write one such as `(id + 1) // 2`"
        ) from None
    for node in ast.walk(tree):
        if not _allowed(node):
            raise ValueError(
                f"`{text}` may hold numbers, names, + - * / // %, comparisons, `a if b else c` and"
                f" str(), but not `{ast.unparse(node) if isinstance(node, ast.expr) else node}`"
            )
    return tree


def variable_names(tree: ast.expr) -> set[str]:
    """The names whose values the expression needs."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"str"}


def evaluate(tree: ast.expr, values: Mapping[str, int | str]) -> Any:
    """The value of a parsed expression. Raises TypeError, ZeroDivisionError as Python does."""
    match tree:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.BinOp(left=left, op=sign, right=right):
            return OPERATORS[type(sign)](evaluate(left, values), evaluate(right, values))
        case ast.Compare(left=left, ops=[sign], comparators=[right]):
            return OPERATORS[type(sign)](evaluate(left, values), evaluate(right, values))
        case ast.UnaryOp(operand=operand):
            return -evaluate(operand, values)
        case ast.IfExp(test=asked, body=body, orelse=other):
            return evaluate(body if evaluate(asked, values) else other, values)
        case ast.Call(args=[inner]):
            return str(evaluate(inner, values))
    raise TypeError(f"`{ast.unparse(tree)}` cannot be computed")


def _allowed(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float | str)
        case ast.Compare(ops=signs):
            return len(signs) == 1
        case ast.Call(func=ast.Name(id="str"), args=[_], keywords=[]):
            return True
    plain = (ast.BinOp, ast.UnaryOp, ast.USub, ast.IfExp, ast.Name, ast.Load)
    return isinstance(node, plain) or type(node) in OPERATORS
