"""Within which bounds the numbers of an expression make sense, and what they are called.

Both follow from a number's place: what it is compared with, multiplied by, or chosen instead of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache

from evolve.expressions import COMPARISONS, Node
from evolve.parameters import Parameter
from evolve.signals import ALL_SIGNALS

_WEIGHT = Parameter("weight", 1.0, 1e-4, 1e4, "log")
_THRESHOLD = Parameter("threshold", 1.0, 1e-6, 1e3, "log")
_RATE = Parameter("rate", 0.5, 1e-2, 1e1, "log")


def signal_range(node: Node | None) -> Parameter:
    """Return the natural bounds of a number that is compared with this score."""
    if node is None:
        return _WEIGHT
    if node.operation == "signal":
        return ALL_SIGNALS[str(node.value)].threshold
    if node.operation == "sensitivity":
        return Parameter(f"sensitivity_{str(node.value).lower()}", 1e-3, 1e-5, 1.0, "log")
    if node.operation in ("rank", "fraction", "share_below"):
        return Parameter(node.operation, 0.5, 0.0, 1.0, "linear")
    return _THRESHOLD


def number_range(operation: str, sibling: Node | None) -> Parameter:
    """Return the natural bounds of a number that is an argument of an operation.

    Args:
        operation: What the number is an argument of.
        sibling: The other argument, where there are two.
    """
    if operation in COMPARISONS:
        return signal_range(sibling)
    if operation == "quantile":
        return Parameter("quantile", 0.5, 0.0, 1.0, "linear")
    if operation == "multiply" and sibling is not None and sibling.value == "bits":
        return _RATE
    return signal_range(None)


def sibling_of(node: Node, index: int) -> Node | None:
    """Return the other argument of an operation with two arguments."""
    return node.children[1 - index] if len(node.children) == 2 else None


@cache
def _named(parameter: Parameter, name: str) -> Parameter:
    return replace(parameter, name=name)


def argument_range(node: Node, index: int, outer: Parameter) -> Parameter:
    """Return the natural bounds of a number that is, or would be, an argument of this node.

    Args:
        node: An operation.
        index: Which argument.
        outer: The bounds of a number in the node's own place: what ``where`` or ``by_type`` chooses between
            has them too.
    """
    if node.operation == "where":
        return outer
    if node.operation == "by_type":
        assert isinstance(node.value, tuple)
        return _named(outer, f"{outer.name}_{node.value[index - 1].lower()}") if index else outer
    return number_range(node.operation, sibling_of(node, index))


def _number_ranges(node: Node, outer: Parameter) -> Iterator[Parameter]:
    """Yield, for each number of the tree in order, its bounds, scale and natural name."""
    for index, child in enumerate(node.children):
        natural = argument_range(node, index, outer)
        if child.operation == "number":
            yield natural
        else:
            yield from _number_ranges(child, natural)


def name_numbers(nodes: list[Node], taken: Mapping[str, Parameter]) -> tuple[list[Node], list[Parameter]]:
    """Name the numbers of several expressions after what they are compared with.

    Equal structures get equal names, whatever their history, so that candidates which
    differ only in numbers share one source. A number outside the bounds that its place
    gives it is brought to the nearest bound.

    Args:
        nodes: The expressions of one candidate, in the order of its slots.
        taken: The template's own parameters, whose names may not be used again.

    Returns:
        The expressions with names, and one `Parameter` a number, its default being the value.
    """
    used = dict(taken)
    parameters: list[Parameter] = []

    def rename(node: Node, ranges: Iterator[Parameter]) -> Node:
        if node.operation == "number":
            natural = next(ranges)
            name, count = natural.name, 1
            while name in used:
                count += 1
                name = f"{natural.name}_{count}"
            assert isinstance(node.value, float)
            value = min(natural.high, max(natural.low, node.value))
            parameter = Parameter(name, value, natural.low, natural.high, natural.scale)
            used[name] = parameter
            parameters.append(parameter)
            return Node("number", value=value, name=name)
        if not node.children:
            return node
        return node.with_children(tuple(rename(child, ranges) for child in node.children))

    return [rename(node, _number_ranges(node, signal_range(None))) for node in nodes], parameters
