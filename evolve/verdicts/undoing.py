"""Takes back one step of an ancestry in a later rule: a three-way merge of trees.

*Ours* is the later rule, *base* the step's offspring and *theirs* its parent. Where the step changed
something that the later rule still has, it gets what the parent had; all else stays. A number that was
tuned since does not hide the change of the code around it.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher

from evolve.candidates import Candidate
from evolve.expressions import Node, transform
from evolve.parameters import Parameter
from evolve.templates import Genome, SlotTree, Template

_Clause = tuple[Node, str]
_Clauses = tuple[_Clause, ...]


def without_step(
    champion: Candidate, offspring: Candidate, parent: Candidate, template: Template
) -> Candidate | None:
    """Return the champion without what made the offspring of its parent.

    Args:
        champion: The rule that descends from the offspring, or is it.
        offspring: What the step made.
        parent: What it was made from.
        template: The champion's code template.

    Returns:
        The rule; None if nothing of the change is left in the champion, or it cannot be taken back alone.
    """
    if champion.id == offspring.id:
        return parent
    if not champion.template == offspring.template == parent.template:
        return None
    ours, base, theirs = (template.read(each) for each in (champion, offspring, parent))
    merged = Genome(
        ours.template,
        tuple(
            (name, _merge_slot(mine, *others))
            for (name, mine), *others in zip(
                ours.slots, *([tree for _, tree in each.slots] for each in (base, theirs)), strict=True
            )
        ),
        tuple(
            _merge_parameter(*each)
            for each in zip(ours.parameters, base.parameters, theirs.parameters, strict=True)
        ),
    )
    found = template.write(merged)
    return None if found.id == template.write(ours).id else found


def _merge_parameter(ours: Parameter, base: Parameter, theirs: Parameter) -> Parameter:
    return theirs if ours.default == base.default else ours


def _merge_slot(ours: SlotTree, base: SlotTree, theirs: SlotTree) -> SlotTree:
    if isinstance(ours, Node) and isinstance(base, Node) and isinstance(theirs, Node):
        return merge(_unnamed(ours), _unnamed(base), _unnamed(theirs))
    if isinstance(ours, tuple) and isinstance(base, tuple) and isinstance(theirs, tuple):
        return merge_clauses(*(_clauses(each) for each in (ours, base, theirs)))
    return theirs if ours == base else ours


def _clauses(clauses: _Clauses) -> _Clauses:
    return tuple((_unnamed(mask), name) for mask, name in clauses)


def _unnamed(tree: Node) -> Node:
    """Return a tree without the names of its numbers, which tell of their surroundings."""
    return transform(tree, lambda node: replace(node, name="") if node.name else node)


def _shape(tree: Node) -> Node:
    """Return a tree with all numbers alike."""
    return transform(tree, lambda node: replace(node, value=0.0) if node.operation == "number" else node)


def merge(ours: Node, base: Node, theirs: Node) -> Node:
    """Return our tree without what changed from theirs to base; trees without names of numbers."""
    if theirs == base:
        return ours
    if ours == base:
        return theirs
    if _head(ours) == _head(base) == _head(theirs) and ours.operation != "number":
        children = zip(ours.children, base.children, theirs.children, strict=True)
        return replace(ours, children=tuple(merge(*each) for each in children))
    return theirs if ours.operation != "number" and _shape(ours) == _shape(base) else ours


def _head(node: Node) -> tuple[object, ...]:
    return node.operation, node.value, tuple(child.type for child in node.children)


def merge_clauses(ours: _Clauses, base: _Clauses, theirs: _Clauses) -> _Clauses:
    """Return our clauses without what changed from theirs to base; trees without names of numbers."""
    place = _places(base, ours)
    kept: list[_Clause | None] = list(ours)
    inserted: dict[int, list[_Clause]] = {}
    for tag, start, end, other, other_end in _matcher(base, theirs).get_opcodes():
        pairs = list(zip(range(start, end), range(other, other_end), strict=False))
        if tag == "equal":
            for mine, their in pairs:
                if mine in place:
                    current = ours[place[mine]]
                    merged = merge(current[0], base[mine][0], theirs[their][0])
                    kept[place[mine]] = (merged, current[1])
            continue
        still = [place[each] for each in range(start, end) if each in place]
        if tag != "insert" and not still:
            continue
        for each in still:
            kept[each] = None
        after = still[0] if still else _next_place(place, end, len(base), len(ours))
        inserted.setdefault(after, []).extend(theirs[other:other_end])
    result: list[_Clause] = []
    for index, clause in enumerate(kept):
        result += inserted.get(index, [])
        if clause is not None:
            result.append(clause)
    return (*result, *inserted.get(len(ours), []))


def _matcher(first: _Clauses, second: _Clauses) -> SequenceMatcher[_Clause]:
    before, after = ([(_shape(mask), name) for mask, name in each] for each in (first, second))
    return SequenceMatcher(None, before, after, autojunk=False)


def _next_place(place: dict[int, int], start: int, end: int, last: int) -> int:
    """Return where the first clause of base that ours still has stands, from the one at ``start`` on."""
    return next((place[each] for each in range(start, end) if each in place), last)


def _places(base: _Clauses, ours: _Clauses) -> dict[int, int]:
    """Return where clauses of base stand in ours."""
    found: dict[int, int] = {}
    for block in _matcher(base, ours).get_matching_blocks():
        found |= {block.a + offset: block.b + offset for offset in range(block.size)}
    return found
