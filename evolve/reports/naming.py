"""Names the parts of a rule after what they are: ``rates``, ``edge_distance_limit``, ``loss_factor``.

A part that has a meaning of its own is named by it; any other by what it does in the value it is part of.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence

from evolve.profiles import LAYER_TYPES

#: Longer names say no more.
_MOST = 30
#: Names of numbers that say nothing of what they are for.
_EMPTY_WORDS = ("weight", "threshold")
_JOINED = {ast.Div: "per", ast.Mult: "times", ast.Add: "plus", ast.Sub: "minus"}
_BEFORE = {"total": "total", "mean": "mean", "largest": "largest", "log": "log", "sqrt": "root", "exp": "exp"}
_AFTER = {"rank": "rank", "quantile": "quantile", "fraction": "fraction"}
#: What an argument of a call is to the call's value, by the argument's place.
_ARGUMENTS = {
    "total": ("summed",),
    "mean": ("averaged",),
    "largest": ("compared",),
    "rank": ("ranked",),
    "quantile": ("values", "place"),
    "share_below": ("amounts", "order"),
    "running_total": ("amounts", "order"),
    "exp": ("exponent",),
    "log": ("argument",),
    "sqrt": ("square",),
    "cheapest": ("cost",),
    "narrowest": ("allowed",),
    "pick": ("table", "choices"),
}


def part_name(part: ast.expr, above: Sequence[ast.expr], whole: str, taken: Collection[str]) -> str:
    """Return a free name for a part of an expression.

    Args:
        part: The part.
        above: What it stands in, the innermost first.
        whole: The name of the value that all of it computes.
        taken: Names that mean something else already.
    """
    if is_numbers(part):
        name = _number_name(part, above, whole)
    else:
        name = noun(part) or _within(whole, _role(part, above))
        if _is_rate(above):
            name = _within(whole, "rate") if _is_rate(above[:1]) else "rate_term"
    if len(name) > _MOST:
        name = _role(part, above)
    return _free(name, taken)


def _within(whole: str, role: str) -> str:
    return whole if whole.endswith(f"_{role}") else f"{whole}_{role}"


def _free(name: str, taken: Collection[str]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free


def called(node: ast.expr) -> str:
    """Return the name of the function of numpy or the model that is called; empty if it is no call."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("np" | "model"), name)):
            return name
    return ""


def is_numbers(node: ast.expr) -> bool:
    """Tell whether a part only chooses among the rule's numbers."""
    match node:
        case ast.Attribute(ast.Name("p")):
            return True
        case ast.Call(args=[_, yes, no]) if called(node) == "where":
            return is_numbers(yes) and is_numbers(no)
    return called(node) == "by_type"


def noun(node: ast.expr) -> str:
    """Return a short name for a quantity or a mask; empty if it has none."""
    text = _noun(node)
    return text if len(text) <= _MOST else ""


def _noun(node: ast.expr) -> str:
    match node:
        case ast.Name(name) | ast.Attribute(ast.Name("model"), name):
            return name
        case ast.Attribute(ast.Name("p"), name):
            return re.sub(r"_\d+$", "", name)
        case ast.Call(args=[ast.Constant(str(name))]) if called(node) == "sensitivity":
            return f"sensitivity_{name.lower()}"
        case ast.Call(args=[argument, *_]) if called(node) in _BEFORE:
            return _around(f"{_BEFORE[called(node)]}_", argument, "")
        case ast.Call(args=[argument, *_]) if called(node) in _AFTER:
            return _around("", argument, f"_{_AFTER[called(node)]}")
        case ast.Call(args=[_, order]) if called(node) in ("share_below", "running_total"):
            return _around("share_by_" if called(node) == "share_below" else "total_by_", order, "")
        case ast.UnaryOp(ast.USub(), inner):
            return _around("minus_", inner, "")
        case ast.BinOp(left, operator, right) if type(operator) in _JOINED:
            return _joined(left, _JOINED[type(operator)], right)
    return _mask_name(node)


def _around(before: str, inner: ast.expr, after: str) -> str:
    name = noun(inner)
    return f"{before}{name}{after}" if name else ""


def _joined(left: ast.expr, word: str, right: ast.expr) -> str:
    if isinstance(left, ast.Constant) or isinstance(right, ast.Constant):
        return ""
    for number, other in ((left, right), (right, left)):
        if is_numbers(number) and not isinstance(number, ast.Call):
            return _around("shifted_" if word in ("plus", "minus") else "scaled_", other, "")
    first, second = noun(left), noun(right)
    return f"{first}_{word}_{second}" if first and second and f"_{word}_" not in first + second else ""


def _mask_name(node: ast.expr) -> str:
    match node:
        case ast.Call(args=names) if called(node) == "is_type":
            types = [str(each.value).lower() for each in names if isinstance(each, ast.Constant)]
            return "_or_".join(types) if len(types) <= 2 else "chosen_types"
        case ast.UnaryOp(ast.Invert(), inner):
            return _around("not_", inner, "")
        case ast.Compare(left, [ast.Lt() | ast.LtE()], [_]):
            return _around("low_", left, "")
        case ast.Compare(left, [ast.Gt() | ast.GtE()], [_]):
            return _around("high_", left, "")
        case ast.BinOp(_, ast.BitAnd(), _):
            return "both"
        case ast.BinOp(_, ast.BitOr(), _):
            return "either"
    return ""


def _sibling(node: ast.expr, parent: ast.expr) -> ast.expr | None:
    """Return the other operand of an operation of two."""
    match parent:
        case ast.BinOp(left, _, right) | ast.Compare(left, _, [right]):
            return right if left is node else left
    return None


def _number_name(part: ast.expr, above: Sequence[ast.expr], whole: str) -> str:
    """Name numbers after the first of them, or what they are put to; several by type are plural."""
    first = part
    while isinstance(first, ast.Call):
        first = first.args[1 if called(first) == "where" else 0]
    base = noun(first)
    for each in LAYER_TYPES:
        base = base.removesuffix(f"_{each.lower()}")
    other = _sibling(part, above[0]) if above else None
    beside = noun(other) if isinstance(other, ast.Attribute | ast.Name) else ""
    if above and isinstance(above[0], ast.Compare):
        name = f"{beside or base}_limit"
    elif _is_rate(above):
        name = "rate"
    elif above and called(above[0]) == "where":
        name = _within(whole if base in _EMPTY_WORDS else base, _role(part, above))
    elif base not in _EMPTY_WORDS:
        name = base
    elif beside and isinstance(above[0], ast.BinOp) and isinstance(above[0].op, ast.Mult | ast.Div):
        name = f"{beside}_factor"
    elif above and called(above[0]):
        name = "number"
    else:
        name = _within(whole, _role(part, above))
    return _plural(name) if called(part) == "by_type" else name


def _plural(name: str) -> str:
    if name.endswith(("s", "otherwise")) or "_if_" in name:
        return name
    return f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


def _is_rate(above: Sequence[ast.expr]) -> bool:
    """Tell whether a part is multiplied with the bits: a rate at which something falls or grows with them."""
    for each in above:
        match each:
            case ast.BinOp(_, ast.Mult(), right):
                return _noun(right) == "bits"
            case ast.UnaryOp() | ast.BinOp(_, ast.Add() | ast.Sub(), _):
                continue
        break
    return False


def _role(part: ast.expr, above: Sequence[ast.expr]) -> str:
    """Say what a part is to the operation it stands in."""
    if not above:
        return "value"
    parent = above[0]
    match parent:
        case ast.UnaryOp():
            return _role(parent, above[1:])
        case ast.Compare(left):
            return "compared" if left is part else "limit"
        case ast.BinOp(_, ast.Mult()):
            return "factor"
        case ast.BinOp(left, ast.Div()):
            return "factor" if left is part else "divisor"
        case ast.BinOp(_, ast.Add() | ast.Sub()):
            return "term"
        case ast.Call(args=[mask, yes, _]) if called(parent) == "where":
            if mask is part:
                return "mask"
            return f"if_{noun(mask) or 'so'}" if yes is part else "otherwise"
        case ast.Call(args=arguments) if part in arguments:
            words = _ARGUMENTS.get(called(parent), ())
            place = arguments.index(part)
            return words[place] if place < len(words) else "part"
    return "part"
