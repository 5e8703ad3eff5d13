"""Cleans a rule for readers: it allocates exactly as before, with less in it.

A search keeps what does not hurt, such as a question that an outer one has answered: within
``where(is_type("Conv"), …)`` nobody needs to know which number LayerNorm has. Only rewrites that keep
every bit of every result are made here, for what is shown has to be what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from evolve.candidates import Candidate, SlotContent
from evolve.expressions import Node, to_text, transform
from evolve.profiles import LAYER_TYPES
from evolve.templates import SlotTree, Template

#: Layer types that a layer may have at some place of an expression.
_Types = frozenset[str]
_EVERY: _Types = frozenset(LAYER_TYPES)
#: Operations whose value at a layer follows from their arguments' at that layer alone.
_BY_LAYER = ("less", "greater", "add", "subtract", "multiply", "divide", "negative", "log", "sqrt", "exp")


def cleaned(candidate: Candidate, template: Template) -> Candidate:
    """Return a candidate that allocates the same, without what does nothing; its numbers keep their names."""
    slots = tuple((name, _cleaned_slot(tree)) for name, tree in template.read(candidate).slots)
    return Candidate(candidate.template, slots, candidate.parameters)


def _cleaned_slot(tree: SlotTree) -> SlotContent:
    if isinstance(tree, Node):
        return to_text(cleaned_expression(tree))
    if isinstance(tree, tuple):
        return tuple((to_text(cleaned_expression(mask)), name) for mask, name in tree)
    return tree


def cleaned_expression(node: Node) -> Node:
    """Return an expression of the same value, to the bit, at every layer of every model."""
    while True:
        simpler = transform(_in_place(node, _EVERY), _exactly_simpler)
        if simpler == node or not simpler.well_typed or simpler.type != node.type:
            return node
        node = simpler


def _rebuilt(node: Node, children: Iterable[Node]) -> Node:
    """Exchange the arguments of an operation, all but those that it would not take."""
    new = list(children)
    for place, old in enumerate(node.children):
        if new[place].type != old.type and not _takes(node, new):
            new[place] = old
    return node.with_children(tuple(new)) if new else node


def _takes(node: Node, children: list[Node]) -> bool:
    try:
        return node.with_children(tuple(children)).type == node.type
    except KeyError:
        return False


def _with_types_known(node: Node, types: _Types) -> Node | bool:
    """Return what an expression is at layers of these types; a truth value if a mask is one there."""
    match node.operation:
        case "is_type":
            assert isinstance(node.value, tuple)
            asked = tuple(name for name in node.value if name in types)
            return Node("is_type", value=asked) if asked and types - {*asked} else bool(asked)
        case "not" | "and" | "or":
            return _logical(node, types)
        case "where":
            return _where(node, types)
        case "by_type":
            return _by_type(_numbers_by_type(node, types) or {}, node)
    # What is asked of the whole model is asked of layers of every type.
    below = types if node.operation in _BY_LAYER else _EVERY
    return _rebuilt(node, [_in_place(child, below) for child in node.children])


def _in_place(node: Node, types: _Types) -> Node:
    """Return what an expression is at layers of these types; a mask whose answer is known stays a mask."""
    known = _with_types_known(node, types)
    return known if isinstance(known, Node) else node


def _logical(node: Node, types: _Types) -> Node | bool:
    first = _with_types_known(node.children[0], types)
    if node.operation == "not":
        return node.with_children((first,)) if isinstance(first, Node) else not first
    decisive = node.operation == "or"
    # The second part counts only where the first leaves the answer open.
    yes, no = _split(node.children[0], types)
    parts = [first, _with_types_known(node.children[1], no if decisive else yes)]
    if decisive in parts:
        return decisive
    left = [each for each in parts if isinstance(each, Node)]
    if not left:
        return not decisive
    return node.with_children(tuple(left)) if len(left) == 2 else left[0]


def _where(node: Node, types: _Types) -> Node:
    mask, chosen, otherwise = node.children
    answer = _with_types_known(mask, types)
    yes, no = _split(mask, types)
    if isinstance(answer, bool):
        return _in_place(chosen if answer else otherwise, types)
    branches = _in_place(chosen, yes), _in_place(otherwise, no)
    numbers = _numbers_by_type(node, types)
    if numbers is not None and any(each.operation != "number" for each in branches):
        return _by_type(numbers, node)
    return _rebuilt(node, (answer, *branches))


def _split(mask: Node, types: _Types) -> tuple[_Types, _Types]:
    """Return the types that layers may have where a mask holds, and where it does not."""
    if mask.operation == "is_type":
        assert isinstance(mask.value, tuple)
        return types & {*mask.value}, types - {*mask.value}
    if mask.operation == "not":
        yes, no = _split(mask.children[0], types)
        return no, yes
    if mask.operation in ("and", "or"):
        (yes, no), (others, rest) = (_split(child, types) for child in mask.children)
        return (yes & others, no | rest) if mask.operation == "and" else (yes | others, no & rest)
    return types, types


def _numbers_by_type(node: Node, types: _Types) -> dict[str, Node] | None:
    """Return the number that an expression is for each of these types; None if it is no such thing."""
    if node.operation == "number":
        return dict.fromkeys((name for name in LAYER_TYPES if name in types), node)
    if node.operation == "by_type":
        assert isinstance(node.value, tuple)
        named = dict(zip(node.value, node.children[1:], strict=True))
        return {name: named.get(name, node.children[0]) for name in LAYER_TYPES if name in types}
    if node.operation != "where" or not _asks_types_alone(node.children[0]):
        return None
    yes, no = _split(node.children[0], types)
    chosen, otherwise = _numbers_by_type(node.children[1], yes), _numbers_by_type(node.children[2], no)
    if chosen is None or otherwise is None:
        return None
    both = chosen | otherwise
    return {name: both[name] for name in LAYER_TYPES if name in types}


def _asks_types_alone(mask: Node) -> bool:
    return all(each.operation in ("is_type", "not", "and", "or") for each in mask.walk())


def _by_type(numbers: Mapping[str, Node], node: Node) -> Node:
    """Return numbers by type in as few words as it takes; the given node where there are none."""
    if not numbers:
        return node
    values: list[object] = [each.value for each in numbers.values()]
    # What most types have is the number of all others; of equals the last, which named none before.
    most = max(reversed(values), key=values.count)
    otherwise = next(each for each in reversed([*numbers.values()]) if each.value == most)
    named = {name: each for name, each in numbers.items() if each.value != most}
    if not named:
        return otherwise
    if len({each.value for each in named.values()}) == 1:
        chosen = next(iter(named.values()))
        return Node("where", (Node("is_type", value=tuple(named)), chosen, otherwise))
    return Node("by_type", (otherwise, *named.values()), tuple(named))


def _negative(node: Node) -> bool:
    return node.operation == "negative"


def _is_one(node: Node) -> bool:
    return node.operation == "number" and node.value == 1.0


def _same(one: Node, other: Node) -> bool:
    """Tell whether two expressions are equal, their numbers by value."""
    if one.operation != other.operation or one.value != other.value:
        return False
    pairs = zip(one.children, other.children, strict=True)
    return len(one.children) == len(other.children) and all(_same(*pair) for pair in pairs)


def _exactly_simpler(node: Node) -> Node:
    """Rewrite one operation where floating point gives the same bits."""
    simpler = _rewritten(node)
    return simpler if simpler.well_typed and simpler.type == node.type else node


def _rewritten(node: Node) -> Node:
    match node.operation, node.children:
        case "negative", (inner,) if _negative(inner):
            return inner.children[0]
        case "where", (_, chosen, otherwise) if _same(chosen, otherwise):
            return chosen
        case "multiply" | "divide", (first, second) if _negative(first) and _negative(second):
            return node.with_children((first.children[0], second.children[0]))
        case "multiply" | "divide", (first, second) if _is_one(second):
            return first
        case "multiply", (first, second) if _is_one(first):
            return second
        case "add", (first, second) if _negative(second):
            return Node("subtract", (first, second.children[0]))
        case "add", (first, second) if _negative(first):
            return Node("subtract", (second, first.children[0]))
        case "subtract", (first, second) if _negative(second):
            return Node("add", (first, second.children[0]))
    return node
