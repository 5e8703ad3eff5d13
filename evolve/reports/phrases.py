"""Phrases for the parts of a rule: its masks ("of type Conv") and its quantities ("the predicted loss").

The parts are syntax trees in which named values stand for themselves no more: the model is called
``model`` and parameters are constants. What has no phrase is quoted as code.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence

from evolve.reports.syntax import number_of, operands, quoted, types_merged, types_of
from evolve.signals import ALL_SIGNALS, MEASURED_TABLES

MEANINGS = {name: each.meaning for name, each in ALL_SIGNALS.items()} | {
    **{name: each.meaning for name, each in MEASURED_TABLES.items()},
    "bits": "number of bits per weight",
    "loss": "predicted loss",
}
_SHARES = ("relative_position", "edge_distance", "param_fraction", "rank", "fraction", "share_below")
_IS = {"Lt": "below", "LtE": "at most", "Gt": "above", "GtE": "at least", "Eq": "equal to", "NotEq": "not"}
_AMOUNTS = _IS | {"Lt": "less than", "Gt": "more than"}
_NEGATED = {"Lt": "GtE", "LtE": "Gt", "Gt": "LtE", "GtE": "Lt", "Eq": "NotEq", "NotEq": "Eq"}
_FLIPPED = {"Lt": "Gt", "LtE": "GtE", "Gt": "Lt", "GtE": "LtE", "Eq": "Eq", "NotEq": "NotEq"}
_ARITHMETIC = {"Add": "plus", "Sub": "minus", "Mult": "times", "Div": "divided by", "Pow": "to the power of"}
_FUNCTIONS = {"log": "the logarithm", "sqrt": "the square root", "exp": "the exponential", "abs": "the size"}
_EXTREMES = {"minimum": "the smaller of", "maximum": "the larger of"}
#: How firmly a phrase holds together; what is looser than its place asks for is put in parentheses.
#: For each operation: what it asks of its left and its right, and how firm it is itself.
_POWER, _FUNCTION, _SUM, _RATIO, _PRODUCT, _FIRM = range(6)
_NEEDS = {
    "Add": (_SUM, _SUM, _SUM),
    "Sub": (_SUM, _RATIO, _SUM),
    "Mult": (_PRODUCT, _PRODUCT, _PRODUCT),
    "Div": (_PRODUCT, _FIRM, _RATIO),
    "Pow": (_FIRM, _FIRM, _POWER),
}


def which(node: ast.expr, negated: bool = False, inside: bool = False) -> str:
    """Return a mask as a phrase to follow "layers": "of type Conv", "whose mean weight is above 0.5".

    Args:
        node: The mask.
        negated: Whether the layers outside it are meant.
        inside: Whether the phrase stands in another one, and must say where it begins.
    """
    connective = ""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return which(node.operand, not negated, inside)
    if operands(node, ast.BitAnd):
        connective, parts = ("or" if negated else "and"), operands(node, ast.BitAnd)
    elif operands(node, ast.BitOr):
        connective, parts = ("and" if negated else "or"), operands(node, ast.BitOr)
    if not connective:
        return _test(node, negated)
    if negated == (connective == "and"):
        parts = types_merged(parts)
    phrases = list(dict.fromkeys(which(each, negated, True) for each in parts))
    if connective == "or":
        phrases = _ends_merged(phrases)
    text = listed(phrases, connective)
    if inside and len(phrases) > 1:
        text = f"{'either' if connective == 'or' else 'both' if len(phrases) == 2 else 'all of'} {text}"
    return text


def listed(phrases: Sequence[str], connective: str) -> str:
    """Return phrases as a list in a sentence: "a, b or c"."""
    if any(mark in each for each in phrases for mark in (" or ", " and ", ",")):
        return f", {connective} ".join(phrases)
    *most, last = phrases
    return f"{', '.join(most)} {connective} {last}" if most else last


def _ends_merged(phrases: list[str]) -> list[str]:
    for first in phrases:
        last = first.replace("within the first ", "within the last ", 1)
        if first != last and last in phrases:
            both = first.replace("within the first ", "within the first or last ", 1)
            return [both if each == first else each for each in phrases if each != last]
    return phrases


def _test(node: ast.expr, negated: bool) -> str:
    types = types_of(node)
    if types:
        return f"{'not ' if negated else ''}of type {listed(types, 'or')}"
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right, sign = node.left, node.comparators[0], type(node.ops[0]).__name__
        if sign in _IS:
            if number_of(left) is not None:
                left, right, sign = right, left, _FLIPPED[sign]
            return _comparison(left, _NEGATED[sign] if negated else sign, right)
    return f"for which {quoted(node)} {'does not hold' if negated else 'holds'}"


def _comparison(left: ast.expr, sign: str, right: ast.expr) -> str:
    limit = number_of(right)
    special = "" if limit is None else _special_comparison(left, sign, limit)
    if special:
        return special
    subject, firmness = _quantity(left)
    bound = quantity(right)
    if limit is not None and _is_share(left) and 0 <= limit <= 1:
        bound = _percent(limit)
    start = "for which "
    if firmness == _FIRM:
        for article, whose in (("the model's ", "in models whose "), ("the ", "whose ")):
            if subject.startswith(article):
                start, subject = whose, subject.removeprefix(article)
    return f"{start}{subject} is {_IS[sign]} {bound}"


def _is_share(node: ast.expr) -> bool:
    match node:
        case ast.Attribute(ast.Name("model"), name) | ast.Call(ast.Attribute(ast.Name("model"), name)):
            return name in _SHARES
    return False


def _special_comparison(left: ast.expr, sign: str, limit: float) -> str:
    """Return how people say some comparisons with a number; empty for the others."""
    low, high = sign in ("Lt", "LtE"), sign in ("Gt", "GtE")
    # Above a limit are those that are not among the layers up to it.
    group = f"{'' if low else 'not '}among the model's layers of lowest"
    amount = "less than" if sign in ("Lt", "GtE") else "at most"
    match left:
        case ast.Attribute(ast.Name("model"), "depth") if low or high:
            return f"in models of {_AMOUNTS[sign].replace('less', 'fewer')} {_number(limit)} layers"
        case ast.Attribute(ast.Name("model"), "loss") if limit >= 0 and (low or high):
            # The loss is -log(1 - sensitivity); people think in shares.
            return f"that alone costs {_AMOUNTS[sign]} {_percent(-math.expm1(-limit))} of the accuracy"
        case ast.Call(ast.Attribute(ast.Name("model"), "running_total"), [values, score], []) if low or high:
            return f"{group} {_bare(score)} whose {_bare(values)} adds up to {amount} {_number(limit)}"
    if not 0 <= limit <= 1 or not (low or high):
        return ""
    share, rest = _percent(limit), _percent(1 - limit)
    match left:
        case ast.Attribute(ast.Name("model"), "edge_distance"):
            return f"{'within the first or' if low else 'outside the first and'} last {share} of the model"
        case ast.Attribute(ast.Name("model"), "relative_position"):
            return f"within the {f'first {share}' if low else f'last {rest}'} of the model"
        case ast.Call(ast.Attribute(ast.Name("model"), "rank"), [score], []):
            part = f"{share if low else rest} of the model's layers"
            return f"among the {part} with the {'lowest' if low else 'highest'} {_bare(score)}"
        case ast.Call(ast.Attribute(ast.Name("model"), "fraction"), [mask], []):
            return f"in models where layers {which(mask)} are {_AMOUNTS[sign]} {share} of all layers"
        case ast.Call(ast.Attribute(ast.Name("model"), "share_below"), [weights, score], []):
            return f"{group} {_bare(score)} that together make up {amount} {share} of {_whole(weights)}"
    return ""


def quantity(node: ast.expr) -> str:
    """Return a quantity as a noun phrase: "100 times the predicted loss"."""
    return _quantity(node)[0]


def _quantity(node: ast.expr) -> tuple[str, int]:
    """Return a quantity as a noun phrase, and how firmly it holds together."""
    value = number_of(node)
    if value is not None:
        return _number(value), _FIRM
    # Names with a space stand for what an earlier pass chose.
    match node:
        case ast.Attribute(ast.Name("model"), name) if name in MEANINGS:
            return f"the {MEANINGS[name]}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "sensitivity"), [ast.Constant(str(name))], []):
            return f"the {name} sensitivity", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "total" | "mean" | "largest" as name), [score], []):
            return f"the model's {name} {_bare(score)}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "rank"), [score], []):
            return f"the rank by {_bare(score)}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "fraction"), [mask], []):
            return f"the model's fraction of layers {which(mask)}", _FUNCTION
        case ast.Call(ast.Attribute(ast.Name("model"), "share_below"), [weights, score], []):
            return f"the share of {_whole(weights)} up to the layer's {_bare(score)}", _FUNCTION
        case ast.Call(ast.Attribute(ast.Name("model"), "running_total"), [values, score], []):
            return f"the total {_bare(values)} of the layers up to its {_bare(score)}", _FUNCTION
        case ast.Call(ast.Attribute(ast.Name("model"), "quantile"), [score, place], []):
            share = number_of(place)
            start = f"{quantity(place)} quantile" if share is None else _quantile(share)
            return f"the model's {start} of {quantity(score)}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "bits_of"), [ast.Name(when)], []) if " " in when:
            return f"the number of bits per weight in the {when}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("model"), "pick"), [table, ast.Name(when)], []) if " " in when:
            return f"{_operand(table, _FIRM)} in the {when}", _FIRM
        case ast.Call(ast.Attribute(ast.Name("np"), name), [inner], []) if name in _FUNCTIONS:
            return f"{_FUNCTIONS[name]} of {_argument(inner)}", _FUNCTION
        case ast.Call(ast.Attribute(ast.Name("np"), name), [one, two], []) if name in _EXTREMES:
            return f"{_EXTREMES[name]} {_argument(one)} and {_argument(two)}", _FUNCTION
        case ast.Call(ast.Attribute(ast.Name("np"), "where"), [mask, yes, no], []):
            return _depending(mask, yes, no)
        case ast.Call(ast.Attribute(ast.Name("model"), "by_type"), [otherwise], keywords):
            named = [f"{quantity(each.value)} for {each.arg}" for each in keywords]
            return f"({', '.join(named)}, {quantity(otherwise)} for others)", _FIRM
        case ast.BinOp(left, ast.Mult(), right) if _is_mask(right):
            return _depending(right, left, ast.Constant(0))
        case ast.BinOp(left, ast.Mult(), right) if _is_mask(left):
            return _depending(left, right, ast.Constant(0))
        case ast.BinOp(left, operator, right) if type(operator).__name__ in _ARITHMETIC:
            name = type(operator).__name__
            first, second, result = _NEEDS[name]
            return f"{_operand(left, first)} {_ARITHMETIC[name]} {_operand(right, second)}", result
        case ast.UnaryOp(ast.USub(), inner):
            return f"minus {_operand(inner, _FIRM)}", _FUNCTION
    if _is_mask(node):
        return _depending(node, ast.Constant(1), ast.Constant(0))
    return quoted(node), _FIRM


def _depending(mask: ast.expr, yes: ast.expr, no: ast.expr) -> tuple[str, int]:
    return f"({quantity(yes)} for layers {which(mask)}, {quantity(no)} for others)", _FIRM


def _is_mask(node: ast.expr) -> bool:
    match node:
        case ast.BinOp(left, ast.BitAnd() | ast.BitOr(), _) | ast.UnaryOp(ast.Invert(), left):
            return _is_mask(left)
    return isinstance(node, ast.Compare) or bool(types_of(node))


def _operand(node: ast.expr, least: int) -> str:
    text, firmness = _quantity(node)
    return text if firmness >= least else f"({text})"


def _argument(node: ast.expr) -> str:
    text, firmness = _quantity(node)
    return text if firmness in (_FUNCTION, _FIRM) else f"({text})"


def _bare(node: ast.expr) -> str:
    """Return a quantity without its article, to follow "mean" or "lowest"."""
    text, firmness = _quantity(node)
    if firmness == _FIRM and text.startswith("the ") and not text.startswith("the model's "):
        return text.removeprefix("the ")
    return f"value of {_operand(node, _FIRM)}"


def _whole(weights: ast.expr) -> str:
    match weights:
        case ast.Attribute(ast.Name("model"), "num_params" | "param_fraction"):
            return "the weights"
    return f"the model's total {_bare(weights)}"


def _number(value: float) -> str:
    short = f"{value:.4g}"
    if value and not 1e-6 <= abs(value) < 1e15:
        return short
    return f"{float(short):,.10f}".rstrip("0").rstrip(".")


def _quantile(place: float) -> str:
    share = min(1.0, max(0.0, place))
    return {0.0: "least", 0.5: "median", 1.0: "largest"}.get(share, f"{_percent(share)} quantile")


def _percent(share: float) -> str:
    return f"{_number(100 * share)} %"
