"""Typed expressions: what the slots of a code template hold.

An expression has three forms. As text it is ordinary Python that a rule could contain,
``model.sensitivity("FP16") > p.threshold``. As a tree of `Node` it can be varied and
measured. As source it stands in the rendered rule. Reading and printing are exact
inverses, so nothing is lost on the way through a journal.

Types
-----
mask      one truth value a layer
score     one number a layer
table     one number a format and layer
number    a constant; in text a parameter ``p.name``, so that rules which differ only in
          their numbers are one source
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from evolve.errors import TemplateError
from evolve.profiles import LAYER_TYPES
from evolve.signals import ALL_SIGNALS, MEASURED_TABLES, PER_LAYER_SIGNALS, level_index

Type = Literal["mask", "score", "table", "number"]


@dataclass(frozen=True)
class Operation:
    """One thing an expression can do.

    Attributes:
        name: Its name in trees.
        arguments: Types of its arguments; the first that fits is used where several
            operations share a form in Python.
        result: Type of its result.
    """

    name: str
    arguments: tuple[Type, ...]
    result: Type


COMPARISONS: Mapping[str, type[ast.cmpop]] = {"less": ast.Lt, "greater": ast.Gt}
_LOGICAL: Mapping[str, type[ast.operator]] = {"and": ast.BitAnd, "or": ast.BitOr}
_ARITHMETIC: Mapping[str, type[ast.operator]] = {
    "add": ast.Add,
    "subtract": ast.Sub,
    "multiply": ast.Mult,
    "divide": ast.Div,
}
_FUNCTIONS = ("log", "sqrt", "exp")
#: How Python writes operators, and how tightly each binds; what is no operator binds most tightly.
_SYMBOLS: Mapping[str, tuple[str, int]] = {
    "less": ("<", 0),
    "greater": (">", 0),
    "or": ("|", 1),
    "and": ("&", 2),
    "add": ("+", 3),
    "subtract": ("-", 3),
    "multiply": ("*", 4),
    "divide": ("/", 4),
    "not": ("~", 5),
    "negative": ("-", 5),
}
_ATOM = 6
#: Operations that Python writes as operators.
OPERATORS = frozenset(_SYMBOLS)
#: Reductions of a score over a model's layers, and rankings within it: methods of the view.
_METHODS = ("total", "mean", "largest", "rank")
_TWO_ARGUMENT_METHODS: Mapping[str, tuple[Type, Type]] = {
    "share_below": ("score", "score"),
    "quantile": ("score", "number"),
}


def _operations() -> tuple[Operation, ...]:
    listed = [Operation(name, ("score", "number"), "mask") for name in COMPARISONS]
    listed += [Operation(name, ("score", "score"), "mask") for name in COMPARISONS]
    listed += [Operation(name, ("mask", "mask"), "mask") for name in _LOGICAL]
    listed.append(Operation("not", ("mask",), "mask"))
    for name in _ARITHMETIC:
        pairs: list[tuple[Type, Type]] = [
            ("score", "score"),
            ("score", "number"),
            ("number", "score"),
        ]
        listed += [Operation(name, pair, "score") for pair in pairs]
        pairs = [
            ("table", "table"),
            ("table", "score"),
            ("score", "table"),
            ("table", "number"),
            ("number", "table"),
        ]
        listed += [Operation(name, pair, "table") for pair in pairs]
    for name in (*_FUNCTIONS, "negative"):
        listed += [Operation(name, ("score",), "score"), Operation(name, ("table",), "table")]
    listed += [Operation(name, ("score",), "score") for name in _METHODS]
    listed.append(Operation("fraction", ("mask",), "score"))
    listed += [Operation(name, types, "score") for name, types in _TWO_ARGUMENT_METHODS.items()]
    values: tuple[Type, ...] = ("score", "number")
    listed += [Operation("where", ("mask", first, second), "score") for first in values for second in values]
    return tuple(listed)


#: Every operation with arguments; an operation's name and argument types identify it.
OPERATIONS = _operations()
_RESULTS: Mapping[tuple[str, tuple[Type, ...]], Type] = {
    (each.name, each.arguments): each.result for each in OPERATIONS
}
#: Tables a rule may read whole of every model: one value a format, or a format and layer.
TABLES = ("bits", "loss")


@dataclass(frozen=True)
class Node:
    """A node of an expression tree.

    ``by_type`` chooses a number by the layer's type: its value names types, its children are the number
    for all others and one number for each.

    Attributes:
        operation: An operation's name, ``by_type``, or a leaf's: ``is_type`` (value: a tuple of layer
            types), ``signal`` (value: its name), ``sensitivity`` (value: a format),
            ``table`` (value: its name), ``local`` (value: a score that the template has computed
            before the slot), ``number`` (value: a float).
        children: The arguments.
        value: What a leaf holds.
        name: For a number, the parameter's name; given by `name_numbers`.
    """

    operation: str
    children: tuple[Node, ...] = ()
    value: float | str | tuple[str, ...] | None = None
    name: str = ""

    @cached_property
    def type(self) -> Type:
        """The type of the value this expression computes."""
        match self.operation:
            case "is_type":
                return "mask"
            case "signal" | "sensitivity" | "local":
                return "score"
            case "table":
                return "table"
            case "number":
                return "number"
            case "by_type" if all(child.type == "number" for child in self.children):
                return "score"
        return _RESULTS[self.operation, tuple(child.type for child in self.children)]

    @property
    def well_typed(self) -> bool:
        """Whether every operation in this tree takes the types of its arguments."""
        try:
            return all(node.type is not None for node in self.walk())
        except KeyError:
            return False

    def with_children(self, children: tuple[Node, ...]) -> Node:
        """Return this operation with other arguments."""
        return Node(self.operation, children, self.value, self.name)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents first, left to right."""
        yield self
        for child in self.children:
            yield from child.walk()

    @cached_property
    def size(self) -> int:
        """The number of nodes."""
        return 1 + sum(child.size for child in self.children)


def to_text(node: Node) -> str:
    """Print an expression as Python; numbers must have been named (`name_numbers`)."""
    return _printed(node)[0]


def _printed(node: Node) -> tuple[str, int]:
    """Return an expression's text, as `ast.unparse` has it, and how tightly what stands outermost binds."""
    operation = node.operation
    if operation in _SYMBOLS:
        symbol, binding = _SYMBOLS[operation]
        if len(node.children) == 1:
            return symbol + _within(node.children[0], binding), binding
        left, right = node.children
        # What binds as tightly is joined from the left; comparisons are never chained.
        least = binding + (operation in COMPARISONS)
        return f"{_within(left, least)} {symbol} {_within(right, binding + 1)}", binding
    if operation == "number":
        return f"p.{node.name}", _ATOM
    if operation == "local":
        return str(node.value), _ATOM
    if operation in ("signal", "table"):
        return f"model.{node.value}", _ATOM
    if operation == "sensitivity":
        return f'model.sensitivity("{node.value}")', _ATOM
    arguments = [_printed(child)[0] for child in node.children]
    if operation == "is_type":
        assert isinstance(node.value, tuple)
        arguments = [f'"{name}"' for name in node.value]
    elif operation == "by_type":
        assert isinstance(node.value, tuple)
        named = zip(node.value, arguments[1:], strict=True)
        arguments[1:] = [f"{name}={number}" for name, number in named]
    owner = "np" if operation in _FUNCTIONS or operation == "where" else "model"
    return f"{owner}.{operation}({', '.join(arguments)})", _ATOM


def _within(node: Node, least: int) -> str:
    """Print an expression for a place that asks for what binds so tightly at least."""
    text, binding = _printed(node)
    return text if binding >= least else f"({text})"


def is_format_name(name: str) -> bool:
    """Return whether a format can have this name; which formats there are, only the models know."""
    return name.isascii() and name.replace("_", "").isalnum()


def parse(text: str, expected: Type, parameters: Mapping[str, float], reads: tuple[str, ...] = ()) -> Node:
    """Read an expression from its text.

    Args:
        text: Python in the language of slots.
        expected: The type the slot asks for.
        parameters: Values of the parameters that the text may name as ``p.name``.
        reads: Names of the scores that the template has computed before the slot.

    Raises:
        TemplateError: The text is no Python, uses what the language does not have, names
            an unknown parameter, or has another type.
    """
    form = _form(text, expected, reads)

    def with_values(node: Node) -> Node:
        if node.operation == "number":
            if node.name not in parameters:
                raise TemplateError(
                    f"parameter {node.name} has no value",
                    field=f"p.{node.name}",
                    found=text,
                    cure=f"Add it under [parameters.{node.name}].",
                )
            return Node("number", value=float(parameters[node.name]), name=node.name)
        return node.with_children(tuple(map(with_values, node.children))) if node.children else node

    return with_values(form)


@cache
def _form(text: str, expected: Type, reads: tuple[str, ...]) -> Node:
    """Read an expression without the values of its numbers: candidates that differ only in these share it."""
    try:
        node = _from_ast(ast.parse(text.strip(), mode="eval").body, reads, text)
    except (SyntaxError, ValueError) as error:
        raise TemplateError("not a Python expression", expected=f"a {expected}", found=text) from error
    except (RecursionError, MemoryError) as error:
        raise TemplateError("nested too deeply", expected=f"a {expected}", found=text) from error
    if node.type != expected:
        raise TemplateError(f"this expression is a {node.type}", expected=f"a {expected}", found=text)
    return node


def _from_ast(tree: ast.expr, reads: tuple[str, ...], text: str) -> Node:
    def fail(problem: str, expected: str | None = None, cure: str | None = None) -> TemplateError:
        return TemplateError(problem, field=ast.unparse(tree), expected=expected, found=text, cure=cure)

    def combine(operation: str, *parts: ast.expr) -> Node:
        children = tuple(_from_ast(part, reads, text) for part in parts)
        node = Node(operation, children)
        if (operation, tuple(child.type for child in children)) not in _RESULTS:
            kinds = " and ".join(f"a {child.type}" for child in children) or "nothing"
            raise fail(f"{operation} does not take {kinds}")
        return node

    match tree:
        case ast.Attribute(ast.Name("p"), name):
            return Node("number", name=name)
        case ast.Attribute(ast.Name("model"), name):
            if name in ALL_SIGNALS:
                return Node("signal", value=name)
            if name in TABLES or name in MEASURED_TABLES:
                return Node("table", value=name)
            raise fail(f"models have no signal {name}", expected=f"one of {', '.join(PER_LAYER_SIGNALS)}")
        case ast.Call(ast.Attribute(ast.Name("model"), "is_type"), arguments, []):
            names = tuple(getattr(each, "value", None) for each in arguments)
            if not names or any(name not in LAYER_TYPES for name in names):
                raise fail("unknown layer type", expected=f"one of {', '.join(LAYER_TYPES)}")
            return Node("is_type", value=tuple(str(name) for name in names))
        case ast.Call(ast.Attribute(ast.Name("model"), "by_type"), [otherwise], keywords):
            named = tuple(str(each.arg) for each in keywords)
            if not named or any(name not in LAYER_TYPES for name in named) or len({*named}) < len(named):
                raise fail("unknown layer type", expected=f"some of {', '.join(LAYER_TYPES)}, each once")
            parts = (otherwise, *(each.value for each in keywords))
            numbers = tuple(_from_ast(part, reads, text) for part in parts)
            if any(each.operation != "number" for each in numbers):
                raise fail("by_type takes numbers", expected="parameters p.NAME")
            return Node("by_type", numbers, named)
        case ast.Call(ast.Attribute(ast.Name("model"), "sensitivity"), [ast.Constant(str(name))], []):
            if not is_format_name(name):
                raise fail("bad format name", expected="letters, digits and underscores")
            return Node("sensitivity", value=name)
        case ast.Name(name) if name in reads:
            return Node("local", value=name)
        case ast.Call(ast.Attribute(ast.Name("np"), name), [argument], []) if name in _FUNCTIONS:
            return combine(name, argument)
        case ast.Call(ast.Attribute(ast.Name("np"), "where"), arguments, []):
            return combine("where", *arguments)
        case ast.Call(ast.Attribute(ast.Name("model"), name), arguments, []) if name in (
            *_METHODS,
            *_TWO_ARGUMENT_METHODS,
            "fraction",
        ):
            return combine(name, *arguments)
        case ast.Compare(left, [comparison], [right]):
            for operation, kind in COMPARISONS.items():
                if isinstance(comparison, kind):
                    return combine(operation, left, right)
        case ast.BinOp(left, operator, right):
            for operation, symbol in {**_LOGICAL, **_ARITHMETIC}.items():
                if isinstance(operator, symbol):
                    return combine(operation, left, right)
        case ast.UnaryOp(ast.Invert(), operand):
            return combine("not", operand)
        case ast.UnaryOp(ast.USub(), operand):
            return combine("negative", operand)
        case ast.Constant():
            raise fail("a bare constant", cure="Write p.NAME and give it a value under [parameters.NAME].")
    raise fail("this is not in the language of slots", cure="See docs/plugins.md for the language.")


def required_level(node: Node) -> int:
    """Return the lowest information level (an index) at which this expression can be read."""
    levels = [0]
    for each in node.walk():
        if each.operation == "signal":
            levels.append(level_index(ALL_SIGNALS[str(each.value)].level))
        elif each.operation == "table" and each.value in MEASURED_TABLES:
            levels.append(level_index(MEASURED_TABLES[str(each.value)].level))
        elif each.operation == "sensitivity" or each.value == "loss":
            levels.append(level_index("curves"))
    return max(levels)


def replace_at(node: Node, place: int, fresh: Node) -> Node:
    """Return a tree with the node at a place exchanged; places count as `Node.walk` goes."""
    if place == 0:
        return fresh
    children, place = list(node.children), place - 1
    for index, child in enumerate(children):
        if place < child.size:
            children[index] = replace_at(child, place, fresh)
            return node.with_children(tuple(children))
        place -= child.size
    raise IndexError(f"place: expected one within the tree of {node.size} nodes")


def transform(node: Node, change: Callable[[Node], Node]) -> Node:
    """Rebuild a tree from the leaves up, passing every node through ``change``."""
    if not node.children:
        return change(node)
    return change(node.with_children(tuple(transform(child, change) for child in node.children)))
