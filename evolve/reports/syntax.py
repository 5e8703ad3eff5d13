"""Reads what reports tell of a rule off its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence


def number_of(node: ast.expr) -> float | None:
    """Return the value of a constant number; None of anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    return None


def written_out(arguments: Iterable[ast.expr]) -> list[ast.expr]:
    """Return the arguments of a call with ``*(a, b)`` written out."""
    found = []
    for each in arguments:
        match each:
            case ast.Starred(ast.Tuple(inner) | ast.List(inner)):
                found += inner
            case _:
                found.append(each)
    return found


def operands(node: ast.expr, kind: type[ast.operator]) -> list[ast.expr]:
    """Return the operands of ``a & b & c`` (or ``|``), none if the node is something else."""
    match node:
        case ast.BinOp(left, operator, right) if isinstance(operator, kind):
            return [*(operands(left, kind) or [left]), *(operands(right, kind) or [right])]
        case ast.Compare(first, [one, two], [middle, last]) if kind is ast.BitAnd:
            return [ast.Compare(first, [one], [middle]), ast.Compare(middle, [two], [last])]
    return []


def types_of(node: ast.expr) -> list[str]:
    """Return the types that ``model.is_type(...)`` asks for; none if the node is something else."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("model"), "is_type"), names, []):
            return [str(each.value) for each in written_out(names) if isinstance(each, ast.Constant)]
    return []


def types_merged(parts: Sequence[ast.expr]) -> list[ast.expr]:
    """Return the operands with all tests of the layer type as one, in the place of the first."""
    types = dict.fromkeys(name for each in parts for name in types_of(each))
    merged: list[ast.expr] = []
    for each in parts:
        if not types_of(each):
            merged.append(each)
        elif types:
            is_type = ast.Attribute(ast.Name("model"), "is_type")
            merged.append(ast.Call(is_type, [ast.Constant(name) for name in types], []))
            types = {}
    return merged


def quoted(node: ast.AST) -> str:
    """Return code on one line, in backticks, shortened if it is long."""
    text = ast.unparse(node).replace("'", '"').replace("\n", "; ")
    return f"`{text if len(text) <= 160 else text[:157] + '...'}`"
