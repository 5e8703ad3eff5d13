"""Simplifies expressions without changing what they compute.

Constants that meet are folded, and operations that undo or repeat each other are removed, so
that what evolution leaves behind reads as a person would have written it.
"""

from __future__ import annotations

from evolve.expressions import Node, transform
from evolve.number_ranges import signal_range
from evolve.profiles import LAYER_TYPES

#: Functions that keep the order of layers, which is all that a ranking looks at.
_INCREASING = ("log", "sqrt", "exp", "rank")
#: (outer, inner) operations whose numbers fold, and whether they multiply or divide.
_FOLDS = {
    ("multiply", "multiply"): lambda outer, inner: inner * outer,
    ("divide", "divide"): lambda outer, inner: inner * outer,
    ("add", "add"): lambda outer, inner: inner + outer,
    ("subtract", "subtract"): lambda outer, inner: inner + outer,
}


def simplify(node: Node) -> Node:
    """Return an expression of the same value at every layer, with no more nodes."""
    while True:
        simpler = transform(node, _simplify_once)
        if simpler == node:
            return node
        node = simpler


def _simplify_once(node: Node) -> Node:
    match node.operation:
        case "not":
            return _simplify_not(node)
        case "and" | "or":
            return _simplify_logical(node)
        case "where":
            return _simplify_where(node)
        case "log" | "exp":
            (inner,) = node.children
            if inner.operation in ("log", "exp") and inner.operation != node.operation:
                return inner.children[0]
        case "rank":
            (inner,) = node.children
            if inner.operation in _INCREASING and inner.type == "score":
                return node.with_children(inner.children)
        case "share_below":
            weights, score = node.children
            if score.operation in _INCREASING:
                return node.with_children((weights, score.children[0]))
        case "total" | "mean" | "largest":
            (inner,) = node.children
            if node.operation != "total" and inner.operation in ("total", "mean", "largest", "fraction"):
                return inner
        case "multiply" | "divide" | "add" | "subtract":
            return _fold(node)
    return node


def _simplify_not(node: Node) -> Node:
    (inner,) = node.children
    if inner.operation == "not":
        return inner.children[0]
    if inner.operation == "is_type":
        assert isinstance(inner.value, tuple)
        others = tuple(each for each in LAYER_TYPES if each not in inner.value)
        if 0 < len(others) < len(inner.value):
            return Node("is_type", value=others)
    return node


def _simplify_logical(node: Node) -> Node:
    first, second = node.children
    if first == second:
        return first
    if first.operation == second.operation == "is_type":
        assert isinstance(first.value, tuple)
        assert isinstance(second.value, tuple)
        either = node.operation == "or"
        kept = tuple(
            each
            for each in LAYER_TYPES
            if (
                each in first.value or each in second.value
                if either
                else each in first.value and each in second.value
            )
        )
        if kept:
            return Node("is_type", value=kept)
    # Absorption: a or (a and b) is a; a and (a or b) is a.
    opposite = "and" if node.operation == "or" else "or"
    for one, other in ((first, second), (second, first)):
        if other.operation == opposite and one in other.children:
            return one
    return node


def _simplify_where(node: Node) -> Node:
    mask, chosen, otherwise = node.children
    if chosen == otherwise and chosen.type == "score":
        return chosen
    if mask.operation == "not":
        return node.with_children((mask.children[0], otherwise, chosen))
    # Asked again under the same mask, the answer is known.
    if chosen.operation == "where" and chosen.children[0] == mask:
        return node.with_children((mask, chosen.children[1], otherwise))
    if otherwise.operation == "where" and otherwise.children[0] == mask:
        return node.with_children((mask, chosen, otherwise.children[2]))
    return node


def _fold(node: Node) -> Node:
    """Fold (x ∘ a) ∘ b to x ∘ c, and a · (x · b) likewise."""
    first, second = node.children
    commutes = node.operation in ("multiply", "add")
    if commutes and first.operation == "number":
        first, second = second, first
    if second.operation != "number" or (node.operation, first.operation) not in _FOLDS:
        return node
    inner, constant = first.children
    if commutes and inner.operation == "number":
        inner, constant = constant, inner
    if constant.operation != "number" or inner.operation == "number":
        return node
    assert isinstance(second.value, float)
    assert isinstance(constant.value, float)
    folded = _FOLDS[node.operation, first.operation](second.value, constant.value)
    bounds = signal_range(None)
    if not bounds.low <= folded <= bounds.high:
        return node
    return Node(node.operation, (inner, Node("number", value=folded)))
