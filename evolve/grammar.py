"""Random expressions: what a slot may hold, drawn from what a run may read.

deap draws from Python's global generator `random`, and so does all that varies candidates:
`seeded` lends that generator out, seeded, and puts its state back afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property

from evolve.expressions import OPERATIONS, TABLES, Node, Operation, Type
from evolve.number_ranges import argument_range, signal_range
from evolve.parameters import Parameter
from evolve.profiles import LAYER_TYPES
from evolve.signals import ALL_SIGNALS, MEASURED_TABLES, PER_LAYER_SIGNALS, level_index

#: How often random expressions use each kind of operation; those not named are reductions over a model.
_OPERATION_WEIGHTS: Mapping[str, float] = {
    "multiply": 4.0,
    "divide": 3.0,
    "add": 2.0,
    "subtract": 1.0,
    "negative": 0.5,
    "where": 3.0,
    "log": 0.5,
    "sqrt": 0.5,
    "exp": 1.0,
    "reduction": 2.0,
}


@contextmanager
def seeded() -> Iterator[Callable[[int], None]]:
    """Lend out Python's global generator; yields its ``seed`` function, restores its state at the end."""
    state = random.getstate()
    try:
        yield random.seed
    finally:
        random.setstate(state)


@dataclass(frozen=True)
class Vocabulary:
    """What random expressions are made of.

    Attributes:
        formats: The K formats of the models, by increasing bits.
        level: The information level; nothing above it is ever drawn.
        reads: Scores of the template that the slot at hand may read.
        types: Layer types that masks may ask for: those of the models at hand.
        measured: Names of the measurements that all models at hand have.
    """

    formats: tuple[str, ...]
    level: str = "curves"
    reads: tuple[str, ...] = ()
    types: tuple[str, ...] = LAYER_TYPES
    measured: tuple[str, ...] = ()

    def reading(self, reads: tuple[str, ...]) -> Vocabulary:
        """Return the vocabulary of a slot that may read these scores of its template."""
        return vocabulary(self.formats, self.level, reads, self.types, self.measured)

    @cached_property
    def signals(self) -> tuple[str, ...]:
        """Names of the per-layer signals that may be read."""
        allowed = level_index(self.level)
        return tuple(
            name
            for name, each in ALL_SIGNALS.items()
            if level_index(each.level) <= allowed and (name in PER_LAYER_SIGNALS or name in self.measured)
        )

    @cached_property
    def quantities(self) -> tuple[Node, ...]:
        """The scores a rule can read directly."""
        found = [Node("local", value=name) for name in self.reads]
        found += [Node("signal", value=name) for name in self.signals]
        if self.level == "curves":
            found += [Node("sensitivity", value=name) for name in self.formats]
        return tuple(found)

    @cached_property
    def _quantities_by_cost(self) -> tuple[tuple[Node, ...], ...]:
        """The same by what reading them costs: the template's own scores, then level by level."""
        groups: dict[str, list[Node]] = {}
        for each in self.quantities:
            signal = each.operation == "signal"
            groups.setdefault(ALL_SIGNALS[str(each.value)].level if signal else each.operation, []).append(
                each
            )
        return tuple(tuple(each) for each in groups.values())

    def random_quantity(self) -> Node:
        """Draw a score that a rule can read directly, one of each level as often as one of any other."""
        return random.choice(random.choice(self._quantities_by_cost))

    @cached_property
    def tables(self) -> tuple[Node, ...]:
        """The tables a rule can read directly."""
        allowed = level_index(self.level)
        names = [name for name in TABLES if name != "loss" or self.level == "curves"]
        names += [
            name
            for name, each in MEASURED_TABLES.items()
            if level_index(each.level) <= allowed and name in self.measured
        ]
        return tuple(Node("table", value=name) for name in names)

    def leaves_like(self, type_: Type) -> int:
        """Count what a leaf of this type may be exchanged for, itself included; numbers are not."""
        return len({"mask": self.types, "score": self.quantities, "table": self.tables, "number": ()}[type_])

    def random_format(self) -> str:
        """Draw a format."""
        return random.choice(self.formats)

    def near_format(self, name: str) -> str:
        """Draw another format, one step wider or narrower more often than two, and so on."""
        if name not in self.formats or len(self.formats) == 1:
            return self.random_format()
        place = self.formats.index(name)
        others = [index for index in range(len(self.formats)) if index != place]
        weights = [2.0 ** -abs(index - place) for index in others]
        return self.formats[random.choices(others, weights)[0]]

    def near_leaf(self, leaf: Node) -> Node:
        """Draw a leaf like the one given: one layer type more or less, another quantity, the next format."""
        if leaf.operation == "is_type":
            assert isinstance(leaf.value, tuple)
            toggled = set(leaf.value) ^ {random.choice(self.types)}
            if not toggled:
                return self.random_types()
            return Node("is_type", value=tuple(sorted(toggled, key=LAYER_TYPES.index)))
        if leaf.operation == "sensitivity" and random.random() < 0.5:
            return Node("sensitivity", value=self.near_format(str(leaf.value)))
        if leaf.type == "score":
            return self.random_quantity()
        return random.choice(self.tables) if leaf.type == "table" else undrawn_number()

    def numbers_by_type(self, draw: Callable[[], float]) -> Node:
        """Draw a number for each layer type.

        Args:
            draw: Draws one of them.
        """
        # The last type has the number that stands for all others, those no train model has included.
        named = self.types[:-1] or self.types
        numbers = tuple(Node("number", value=float(f"{draw():.3g}")) for _ in range(1 + len(named)))
        return Node("by_type", numbers, named)

    def random_types(self) -> Node:
        """Draw a test of one or two layer types."""
        count = 1 if random.random() < 0.8 else 2
        chosen = random.sample(self.types, min(count, len(self.types)))
        return Node("is_type", value=tuple(sorted(chosen, key=LAYER_TYPES.index)))

    def random_expression(self, type_: Type, depth: int = 2) -> Node:
        """Draw an expression of a type.

        Args:
            type_: What it computes.
            depth: Operations that may stand above each other.
        """
        return draw_numbers(self._random(type_, depth))

    def _random(self, type_: Type, depth: int) -> Node:
        match type_:
            case "mask":
                return self._random_mask(depth)
            case "score":
                return self._random_score(depth)
            case "table":
                return self._random_table(depth)
        return undrawn_number()

    def _random_mask(self, depth: int) -> Node:
        if depth > 0 and random.random() < 0.2:
            operation = random.choice(("and", "or", "or", "not"))
            count = 1 if operation == "not" else 2
            return Node(operation, tuple(self._random_mask(depth - 1) for _ in range(count)))
        if random.random() < 0.5:
            return self.random_types()
        quantity = self._random_score(depth - 1)
        return Node(random.choice(("less", "greater")), (quantity, undrawn_number()))

    def _random_score(self, depth: int) -> Node:
        if depth <= 0 or random.random() < 0.6:
            return self.random_quantity()
        return self._random_operation("score", depth)

    def _random_table(self, depth: int) -> Node:
        # Bits by themselves are no loss: where that is all there is, they seldom stand alone.
        alone = 0.15 if len(self.tables) == 1 else 0.3
        if depth <= 0 or random.random() < alone:
            return random.choice(self.tables)
        if random.random() < 0.4:
            # Falls, seldom grows, exponentially with the table, at a rate of its own.
            scaled = Node("multiply", (undrawn_number(), random.choice(self.tables)))
            signed = Node("negative", (scaled,)) if random.random() < 0.75 else scaled
            return Node("exp", (signed,))
        return self._random_operation("table", depth)

    @staticmethod
    def _choose_operation(type_: Type) -> Operation:
        kind = random.choices(list(_OPERATION_WEIGHTS), list(_OPERATION_WEIGHTS.values()))[0]
        fitting = [each for each in OPERATIONS if each.result == type_ and _kind_of(each) == kind]
        return random.choice(fitting or [each for each in OPERATIONS if each.result == type_])

    def _random_operation(self, type_: Type, depth: int) -> Node:
        operation = self._choose_operation(type_)
        below = tuple(self._random(each, depth - 1) for each in operation.arguments)
        return Node(operation.name, below)


def _kind_of(operation: Operation) -> str:
    return operation.name if operation.name in _OPERATION_WEIGHTS else "reduction"


@cache
def vocabulary(
    formats: tuple[str, ...],
    level: str,
    reads: tuple[str, ...] = (),
    types: tuple[str, ...] = LAYER_TYPES,
    measured: tuple[str, ...] = (),
) -> Vocabulary:
    """Return the vocabulary for these formats, level, scores, types and measurements, always one object."""
    return Vocabulary(formats, level, reads, types, measured)


def undrawn_number() -> Node:
    """Stand for a constant whose bounds are known only once its place in a tree is."""
    return Node("number")


def draw_numbers(node: Node, outer: Parameter | None = None) -> Node:
    """Draw the constants that were left undrawn, each within the bounds of its place.

    Args:
        node: An expression.
        outer: The bounds of a number in its place; None where it stands by itself.
    """
    outer = outer or signal_range(None)
    children = []
    for index, child in enumerate(node.children):
        natural = argument_range(node, index, outer)
        if child.operation == "number" and child.value is None:
            children.append(Node("number", value=float(natural.from_unit(random.random()))))
        else:
            children.append(draw_numbers(child, natural))
    return node.with_children(tuple(children)) if children else node
