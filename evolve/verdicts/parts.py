"""The parts of a rule: each clause, operand and number of it, with the rule that lacks just that."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from evolve.candidates import Candidate
from evolve.expressions import Node, to_text
from evolve.number_ranges import signal_range
from evolve.templates import Genome, SlotTree, Template

_LONGEST = 80


@dataclass(frozen=True)
class Variant:
    """A rule without one of its parts.

    Attributes:
        part: The part, as code.
        instead: What stands in its place, as code or in words.
        candidate: The rule that is left.
        is_number: Whether the part is a number.
    """

    part: str
    instead: str
    candidate: Candidate
    is_number: bool


def variants(candidate: Candidate, template: Template, read: Collection[str] | None = None) -> list[Variant]:
    """Return the rule without each of its parts.

    A clause is removed; an operation gives way to each operand of its own type, so that every other
    operand is removed once; a number gives way to the value that one in its place starts from.

    Args:
        candidate: The rule.
        template: Its code template.
        read: The parameters that are parts, by name; None for all.
    """
    genome = template.read(candidate)
    numbers = _without_numbers(genome, candidate, template)
    structure = [(*each, False) for each in _without_structure(genome)]
    plain = [(*_number(each), True) for each in numbers if read is None or each.name in read]
    written: list[Variant] = []
    for part, instead, changed, is_number in structure + plain:
        variant = Variant(_short(part), _short(instead), template.write(changed), is_number)
        if variant.candidate.id != template.write(genome).id:
            written.append(variant)
    return written


def _without_structure(genome: Genome) -> Iterator[tuple[str, str, Genome]]:
    for index, (_, tree) in enumerate(genome.slots):
        for part, instead, changed in _smaller_slots(tree):
            yield part, instead, _with_slot(genome, index, changed)


def _with_slot(genome: Genome, index: int, tree: SlotTree) -> Genome:
    slots = list(genome.slots)
    slots[index] = (slots[index][0], tree)
    return replace(genome, slots=tuple(slots))


def _smaller_slots(tree: SlotTree) -> Iterator[tuple[str, str, SlotTree]]:
    if isinstance(tree, Node):
        yield from _smaller(tree)
    elif isinstance(tree, tuple):
        for index, (mask, name) in enumerate(tree):
            before, after = tree[:index], tree[index + 1 :]
            yield f"{to_text(mask)}: {name}", "no clause", (*before, *after)
            for part, instead, smaller in _smaller(mask):
                yield part, instead, (*before, (smaller, name), *after)


def _smaller(node: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield each operation of a tree, an operand of the same type, and the tree with that instead."""
    for operand in dict.fromkeys(node.children):
        if operand.type == node.type:
            yield to_text(node), to_text(operand), operand
    for index, child in enumerate(node.children):
        for part, instead, smaller in _smaller(child):
            children = (*node.children[:index], smaller, *node.children[index + 1 :])
            yield part, instead, replace(node, children=children)


@dataclass(frozen=True)
class _Number:
    """A number of a rule, what one in its place starts from, and the rule with that instead."""

    name: str
    value: float
    start: float
    genome: Genome


def _without_numbers(genome: Genome, candidate: Candidate, template: Template) -> Iterator[_Number]:
    for index, parameter in enumerate(genome.parameters):
        start = template.parameters[index].default
        if parameter.default != start:
            changed = list(genome.parameters)
            changed[index] = parameter.with_default(start)
            other = replace(genome, parameters=tuple(changed))
            yield _Number(parameter.name, parameter.default, start, other)
    values = dict(candidate.parameters)
    for index, (_, tree) in enumerate(genome.slots):
        for name, start, changed_tree in _plain_numbers(tree):
            yield _Number(name, values[name], start, _with_slot(genome, index, changed_tree))


def _number(number: _Number) -> tuple[str, str, Genome]:
    return f"p.{number.name} = {number.value:g}", f"{number.start:g}", number.genome


def _plain_numbers(tree: SlotTree) -> Iterator[tuple[str, float, SlotTree]]:
    if isinstance(tree, Node):
        yield from _plain(tree)
    elif isinstance(tree, tuple):
        for index, (mask, name) in enumerate(tree):
            for number, start, changed in _plain(mask):
                yield number, start, (*tree[:index], (changed, name), *tree[index + 1 :])


def _plain(node: Node) -> Iterator[tuple[str, float, Node]]:
    """Yield each number of a tree: its name, its natural start, and the tree with that instead."""
    for index, child in enumerate(node.children):
        before, after = node.children[:index], node.children[index + 1 :]
        if child.operation != "number":
            for name, start, changed in _plain(child):
                yield name, start, replace(node, children=(*before, changed, *after))
            continue
        compared = node.children[1 - index] if node.operation in ("less", "greater") else None
        start = signal_range(compared).default
        if start != child.value:
            plain = replace(child, value=start)
            yield child.name, start, replace(node, children=(*before, plain, *after))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
