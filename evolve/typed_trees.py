"""Mutation and crossover of expressions, on deap's strongly typed genetic programming.

Typed trees follow Montana (1995), "Strongly Typed Genetic Programming". Everything here draws from
Python's global generator; call it within `grammar.seeded`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from deap import gp

from evolve.expressions import OPERATIONS, Node, Type, replace_at
from evolve.grammar import Vocabulary, draw_numbers, undrawn_number

#: How many octaves numbers by type are at most from the one that they stand for, one of these: near enough to
#: leave the rule good, and far enough to change what some layer gets, for what allocates alike is not tried.
_APART = (0.1, 0.2, 0.4)

#: Expressions above this size are not made: nobody would read them.
MAX_SIZE = 25


class _Leaf(gp.Terminal):  # type: ignore[misc]
    """A leaf of an expression as a deap terminal."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        super().__init__(str(node.value), True, node.type)
        self.node = node


def _leaf_factory(name: str, draw: Callable[[], Node], type_: Type) -> Any:
    """Make what deap calls an ephemeral constant: a terminal whose value is drawn when it is placed."""
    factory = gp.MetaEphemeral(name, draw, type_)

    def initialise(self: Any) -> None:
        self.node = draw()
        self.value = self.name = str(self.node.value)

    factory.__init__ = initialise
    return factory


@cache
def _primitives(words: Vocabulary) -> Any:
    """Return the deap primitive set of all operations and leaves."""
    made = gp.PrimitiveSetTyped("rule", [], "mask")
    for operation in OPERATIONS:
        primitive = gp.Primitive(operation.name, list(operation.arguments), operation.result)
        made.primitives[operation.result].append(primitive)
    made.terminals["mask"].append(_leaf_factory("types", words.random_types, "mask"))
    made.terminals["number"].append(_leaf_factory("number", undrawn_number, "number"))
    made.terminals["score"] += [_Leaf(node) for node in words.quantities]
    made.terminals["table"] += [_Leaf(node) for node in words.tables]
    return made


def _walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it; numbers by type, however many there are, are one leaf to deap."""
    yield node
    for child in () if node.operation == "by_type" else node.children:
        yield from _walk(child)


def to_deap(node: Node) -> Any:
    """Return an expression as a deap ``PrimitiveTree`` (operations in prefix order)."""
    elements: list[Any] = []
    for each in _walk(node):
        if each.children and each.operation != "by_type":
            types = [child.type for child in each.children]
            elements.append(gp.Primitive(each.operation, types, each.type))
        else:
            elements.append(_Leaf(each))
    return gp.PrimitiveTree(elements)


def from_deap(tree: Any) -> Node:
    """Return a deap ``PrimitiveTree`` as an expression: the inverse of `to_deap`."""
    elements = iter(tree)

    def build() -> Node:
        element = next(elements)
        if element.arity == 0:
            node: Node = element.node
            return node
        return Node(element.name, tuple(build() for _ in range(element.arity)))

    return build()


#: How often each mutation of an expression is tried.
_MUTATIONS: Mapping[str, float] = {
    "leaf": 2.0,
    "uniform": 2.0,
    "insert": 1.0,
    "replace": 1.0,
    "shrink": 1.0,
    "hoist": 1.0,
    "split": 2.0,
    "types": 3.0,
    "weigh": 2.0,
}


def mutate_expression(node: Node, words: Vocabulary) -> Node:
    """Vary an expression, keeping its type; call within `seeded`.

    By one of deap's mutations a branch is grown anew, replaced by one of its own branches, put
    below a new operation, or one operation is exchanged for another of the same types. Beside
    these, a leaf is exchanged for one like it, a branch for one of its arguments, a constant is
    split in two by a mask or in one for each layer type, or a branch gets a factor that is.
    """
    (move,) = random.choices(list(_MUTATIONS), list(_MUTATIONS.values()))
    match move:
        case "split":
            varied = _split_number(node, words)
        case "types":
            varied = _number_by_type(node, words)
        case "weigh":
            varied = _weigh(node, words)
        case "hoist":
            varied = _hoist(node)
        case _:
            varied = _mutate_by_deap(node, move, words)
    varied = draw_numbers(varied)
    fits = varied.well_typed and varied.type == node.type and varied.size <= MAX_SIZE
    return varied if fits else node


def _split_number(node: Node, words: Vocabulary) -> Node:
    """Let a constant be one thing where a mask holds and another, near it, elsewhere."""
    places = [place for place, each in enumerate(node.walk()) if each.operation == "number"]
    if not places:
        return node
    place = random.choice(places)
    old = list(node.walk())[place]
    near = Node("number", value=float(f"{_near(old, 2.0):.3g}"))
    mask = words.random_expression("mask", 0)
    return replace_at(node, place, Node("where", (mask, near, old)))


def _near(number: Node, octaves: float) -> float:
    assert isinstance(number.value, float)
    return number.value * float(2.0 ** random.uniform(-octaves, octaves))


def _number_by_type(node: Node, words: Vocabulary) -> Node:
    """Let a constant be a number for each layer type, all of them near it."""
    nodes = list(node.walk())
    places = [place for place, each in enumerate(nodes) if each.operation == "number"]
    if not places:
        return node
    place, octaves = random.choice(places), random.choice(_APART)
    return replace_at(node, place, words.numbers_by_type(lambda: _near(nodes[place], octaves)))


def _weigh(node: Node, words: Vocabulary) -> Node:
    """Multiply a branch by a factor that differs from layer to layer.

    By one a layer type, by one where a mask holds and another elsewhere, or by a score with a number
    added: the larger the number, the less the score weighs (linear scaling, Keijzer 2003).
    """
    nodes = list(node.walk())
    places = [place for place, each in enumerate(nodes) if each.type in ("score", "table")]
    if not places:
        return node
    place = random.choice(places)
    one = Node("number", value=1.0)
    match random.choice(("types", "mask", "score")):
        case "types":
            octaves = random.choice(_APART)
            factor = words.numbers_by_type(lambda: _near(one, octaves))
        case "mask":
            numbers = [Node("number", value=float(f"{_near(one, 2.0):.3g}")) for _ in range(2)]
            factor = Node("where", (words.random_expression("mask", 0), *numbers))
        case _:
            number = Node("number", value=float(f"{_near(one, 2.0):.3g}"))
            factor = Node("add", (words.random_expression("score", 0), number))
    return replace_at(node, place, Node("multiply", (nodes[place], factor)))


def _hoist(node: Node) -> Node:
    """Replace a branch by one of its arguments."""
    nodes = list(node.walk())
    place = random.choice([place for place, each in enumerate(nodes) if each.children] or [0])
    return replace_at(node, place, random.choice(nodes[place].children or (node,)))


def _mutate_by_deap(node: Node, move: str, words: Vocabulary) -> Node:
    tree = to_deap(node)

    def grow(pset: Any, type_: Type) -> Any:  # noqa: ARG001 - deap's signature
        return to_deap(words.random_expression(type_, 1))

    match move:
        case "leaf":
            leaves = [place for place, each in enumerate(tree) if each.arity == 0]
            # Numbers have operators of their own, and some leaves are the only one of their type.
            varied = [place for place in leaves if words.leaves_like(tree[place].ret) > 1]
            if varied:
                place = random.choice(varied)
                tree[place] = _Leaf(words.near_leaf(tree[place].node))
        case "uniform":
            (tree,) = gp.mutUniform(tree, grow, _primitives(words))
        case "shrink":
            (tree,) = gp.mutShrink(tree)
        case "insert":
            (tree,) = gp.mutInsert(tree, _primitives(words))
        case "replace":
            (tree,) = gp.mutNodeReplacement(tree, _primitives(words))
    return from_deap(tree)


def cross_expressions(first: Node, second: Node) -> Node:
    """Return the first expression with one of its branches taken from the second; call within `seeded`.

    One-point crossover of typed trees, as deap's ``cxOnePoint`` does it; that one draws the type
    from a set of texts, whose order differs from one Python process to the next.
    """
    tree, donor = to_deap(first), to_deap(second)
    shared = sorted({each.ret for each in tree} & {each.ret for each in donor})
    if not shared:
        return first
    type_ = random.choice(shared)
    place = random.choice([index for index, each in enumerate(tree) if each.ret == type_])
    source = random.choice([index for index, each in enumerate(donor) if each.ret == type_])
    tree[tree.searchSubtree(place)] = donor[donor.searchSubtree(source)]
    crossed = draw_numbers(from_deap(tree))
    return crossed if crossed.size <= MAX_SIZE else first
