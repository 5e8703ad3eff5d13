"""Mutation and crossover of candidates: of their parameters, and of their slots.

Each operator takes candidates and returns a candidate with the words for what it changed.
They draw from Python's global generator, as deap does; call them within `grammar.seeded`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from deap import tools

from evolve.candidates import Candidate
from evolve.expressions import Node
from evolve.grammar import Vocabulary
from evolve.parameters import Parameter
from evolve.templates import Genome, Slot, SlotTree, Template, expressions_of, formats_of
from evolve.typed_trees import cross_expressions, mutate_expression

#: A decision list longer than this is not made: nobody would read it.
MAX_CLAUSES = 5
#: Spread of parameter mutation and crossover (Deb 1995, "Simulated binary crossover").
_ETA = 8.0

Clauses = tuple[tuple[Node, str], ...]
Varied = tuple[Candidate, str]


def _words_for(parameters: Mapping[str, float], changed: Mapping[str, float]) -> str:
    parts = [f"{name} {_change_of(parameters[name], value)}" for name, value in changed.items()]
    return ", ".join(parts) or "nothing"


def _change_of(before: float, after: float) -> str:
    """Print two numbers with as many digits, from four on, as it takes to tell them apart."""
    for digits in range(4, 18):
        words = f"{before:.{digits}g}", f"{after:.{digits}g}"
        if words[0] != words[1]:
            break
    return " → ".join(words)


def words_for_numbers(before: Candidate, after: Candidate) -> str:
    """Return the words for what differs between the numbers of two candidates of one structure."""
    numbers = dict(before.parameters)
    return _words_for(numbers, {name: new for name, new in after.parameters if new != numbers[name]})


def _with_values(candidate: Candidate, changed: Mapping[str, float]) -> Candidate:
    return replace(
        candidate,
        parameters=tuple((name, changed.get(name, value)) for name, value in candidate.parameters),
    )


def _moved(before: tuple[Parameter, ...], units: list[float], after: list[float]) -> dict[str, float]:
    moved = zip(before, units, after, strict=True)
    values = {each.name: (each.default, each.from_unit(new)) for each, old, new in moved if new != old}
    # A move can be too small for the digits that a number has.
    return {name: after for name, (before, after) in values.items() if after != before}


def mutate_parameters(candidate: Candidate, template: Template) -> Varied:
    """Move some parameters by deap's bounded polynomial mutation, on each one's own scale."""
    parameters = template.parameters_of(candidate)
    if not parameters:
        return candidate, "nothing"
    units = [each.to_unit(each.default) for each in parameters]
    chosen = random.randrange(len(units))
    (mutated,) = tools.mutPolynomialBounded(list(units), _ETA, 0.0, 1.0, 1.0 / len(units))
    (forced,) = tools.mutPolynomialBounded([units[chosen]], _ETA, 0.0, 1.0, 1.0)
    mutated[chosen] = forced[0]
    changed = _moved(parameters, units, mutated)
    return _with_values(candidate, changed), _words_for(dict(candidate.parameters), changed)


def redraw_parameters(candidate: Candidate, template: Template, kept: Mapping[str, float]) -> Candidate:
    """Draw the numbers of a new structure anew, either all of them near or some of them far.

    What was changed mostly changes the scale of a loss too, so that first of all the parameter that trades
    bits for loss is out of place.

    Args:
        candidate: A rule with at least one parameter.
        template: Its template.
        kept: Parameters of the rule it was made from. Those it still has were tuned: one of them moves, a
            little, and only now and then.
    """
    parameters = template.parameters_of(candidate)
    units = [each.to_unit(each.default) for each in parameters]
    new = [kept.get(each.name) != each.default for each in parameters]
    far = random.random() < 0.5
    drawn = list(units)
    for place, unit in enumerate(units):
        if new[place] and far:
            drawn[place] = random.random() if random.random() < 0.5 else random.gauss(unit, 0.15)
        elif new[place]:
            drawn[place] = random.gauss(unit, 0.01)
    names = [each.name for each in parameters]
    if template.sweep is not None and template.sweep.parameter in names and random.random() < 0.6:
        swept = names.index(template.sweep.parameter)
        drawn[swept] = random.gauss(units[swept], 0.15)
    elif not any(new) or random.random() < 0.3:
        moved = random.randrange(len(units))
        drawn[moved] = random.gauss(units[moved], 0.1 if far else 0.01)
    changed = _moved(parameters, units, [min(1.0, max(0.0, unit)) for unit in drawn])
    return _with_values(candidate, changed)


def cross_parameters(first: Candidate, second: Candidate, template: Template) -> Varied:
    """Blend the parameters of two candidates of one structure by deap's simulated binary crossover."""
    parameters, others = template.parameters_of(first), template.parameters_of(second)
    units = [each.to_unit(each.default) for each in parameters]
    partner = [each.to_unit(each.default) for each in others]
    blended, _ = tools.cxSimulatedBinaryBounded(list(units), partner, _ETA, 0.0, 1.0)
    changed = _moved(parameters, units, blended)
    return _with_values(first, changed), _words_for(dict(first.parameters), changed)


def _replace_slot(genome: Genome, name: str, content: SlotTree) -> Genome:
    slots = tuple((each, content if each == name else old) for each, old in genome.slots)
    return replace(genome, slots=slots)


def mutate_structure(candidate: Candidate, template: Template, words: Vocabulary) -> Varied:
    """Change what one slot holds: an expression, a format, or a clause added, dropped, moved or altered."""
    genome = template.read(candidate)
    if not genome.slots:
        return candidate, "nothing"
    reads = {slot.name: slot.reads for slot in template.slots}
    # What holds more can change in more ways.
    sizes = [
        (1 if isinstance(tree, str | Node) else 4) + sum(node.size for node in expressions_of(tree))
        for _, tree in genome.slots
    ]
    name, tree = random.choices(genome.slots, sizes)[0]
    if isinstance(tree, str):
        fresh: SlotTree = words.near_format(tree)
        change = f"{name}: {tree} → {fresh}"
    elif isinstance(tree, Node):
        fresh = mutate_expression(tree, words.reading(reads[name]))
        change = f"{name}: new expression"
    else:
        named = [each for _, content in genome.slots for each in formats_of(content)]
        fresh, change = _mutate_clauses(tree, named, words)
    return template.write(_replace_slot(genome, name, fresh)), change


def _mutate_clauses(clauses: Clauses, formats: list[str], words: Vocabulary) -> tuple[Clauses, str]:
    listed = list(clauses)
    moves = ["add"] * 3 if len(listed) < MAX_CLAUSES else []
    if listed:
        moves += ["drop", "format", "format", "mask", "mask", "mask", "mask"]
    if len(listed) > 1:
        moves.append("swap")
    move = random.choice(moves)
    if move == "add":
        place = random.randint(0, len(listed))
        # A format near one that the rule gives already: far ones mostly break the model.
        name = words.near_format(random.choice(formats)) if formats else words.random_format()
        listed.insert(place, (words.random_expression("mask", 1), name))
        return tuple(listed), f"clause {place + 1} added"
    place = random.randrange(len(listed))
    mask, name = listed[place]
    if move == "drop":
        del listed[place]
        return tuple(listed), f"clause {place + 1} dropped"
    if move == "format":
        listed[place] = (mask, words.near_format(name))
        return tuple(listed), f"clause {place + 1}: {name} → {listed[place][1]}"
    if move == "mask":
        fresh = random.random() < 0.5
        changed = words.random_expression("mask", 1) if fresh else mutate_expression(mask, words)
        listed[place] = (changed, name)
        return tuple(listed), f"clause {place + 1}: new mask"
    other = random.choice([each for each in range(len(listed)) if each != place])
    listed[place], listed[other] = listed[other], listed[place]
    return tuple(listed), f"clauses {min(place, other) + 1} and {max(place, other) + 1} swapped"


def cross_structure(first: Candidate, second: Candidate, templates: Mapping[str, Template]) -> Varied:
    """Return the first candidate with something of the second's in one slot.

    Clauses are spliced (one-point crossover of the lists) or a mask is crossed with one of the
    other's; an expression is crossed with one of the same type; a format is taken over.
    """
    template = templates[first.template]
    genome = template.read(first)
    donor = templates[second.template].read(second)
    given = [tree for _, tree in donor.slots]
    if not genome.slots or not given:
        return first, "nothing"
    name, tree = random.choice(genome.slots)
    slot = next(each for each in template.slots if each.name == name)
    same = dict(donor.slots).get(name)
    if isinstance(tree, Node) and isinstance(same, Node) and random.random() < 0.5:
        if same.type != tree.type or not _readable(same, slot):
            return first, "nothing"
        return template.write(_replace_slot(genome, name, same)), f"{name}: the other's"
    if isinstance(tree, str):
        formats = sorted({each for content in given for each in formats_of(content)} - {tree})
        if not formats:
            return first, "nothing"
        fresh: SlotTree = random.choice(formats)
        change = f"{name}: {tree} → {fresh}"
    elif isinstance(tree, Node):
        fitting = [node for content in given for node in expressions_of(content) if node.type == tree.type]
        if not fitting:
            return first, "nothing"
        fresh = cross_expressions(tree, random.choice(fitting))
        if not _readable(fresh, slot):
            return first, "nothing"
        change = f"{name}: a branch of the other's"
    else:
        others = [clause for content in given if isinstance(content, tuple) for clause in content]
        if not others:
            return first, "nothing"
        fresh, change = _cross_clauses(tree, tuple(others))
    return template.write(_replace_slot(genome, name, fresh)), change


def _readable(tree: SlotTree, slot: Slot) -> bool:
    """Tell whether a slot's expressions read only scores that its template has computed before it."""
    return all(
        each.operation != "local" or each.value in slot.reads
        for node in expressions_of(tree)
        for each in node.walk()
    )


def _cross_clauses(own: Clauses, others: Clauses) -> tuple[Clauses, str]:
    if own and random.random() < 0.25:
        place = random.randrange(len(own))
        mask = cross_expressions(own[place][0], random.choice(others)[0])
        return (*own[:place], (mask, own[place][1]), *own[place + 1 :]), f"clause {place + 1}: masks crossed"
    head = own[: random.randint(0, len(own))]
    tail = others[random.randrange(len(others)) :]
    spliced = (*head, *tail)[:MAX_CLAUSES]
    return spliced, f"first {len(head)} clauses kept, {len(spliced) - len(head)} taken from the other"


def switch_template(candidate: Candidate, templates: Mapping[str, Template], words: Vocabulary) -> Varied:
    """Move to another template, keeping the contents of slots that have the same name and type there."""
    others = [each for each in templates.values() if each.slots and each.name != candidate.template]
    if not others:
        return candidate, "nothing"
    target = random.choice(others)
    own = templates[candidate.template]
    types = {slot.name: slot.type for slot in own.slots}
    kept = dict(own.read(candidate).slots)
    slots = tuple(
        (
            slot.name,
            kept[slot.name]
            if types.get(slot.name) == slot.type and _readable(kept[slot.name], slot)
            else random_content(slot, words),
        )
        for slot in target.slots
    )
    fresh = Genome(target.name, slots, target.parameters)
    return target.write(fresh), f"template {own.name} → {target.name}"


def newcomer(form: Template, templates: Mapping[str, Template], words: Vocabulary) -> Varied:
    """Draw a random candidate of a template; of a random one where ``form`` has no slots to fill."""
    target = form if form.slots else random.choice([each for each in templates.values() if each.slots])
    slots = tuple((slot.name, random_content(slot, words)) for slot in target.slots)
    parameters = tuple(each.with_default(each.from_unit(random.random())) for each in target.parameters)
    return target.write(Genome(target.name, slots, parameters)), f"a random {target.name}"


def random_content(slot: Slot, words: Vocabulary) -> SlotTree:
    """Draw what a slot of this type may hold."""
    if slot.type == "format":
        return words.random_format()
    if slot.type == "clauses":
        count = random.randint(1, 2)
        return tuple((words.random_expression("mask", 1), words.random_format()) for _ in range(count))
    return words.reading(slot.reads).random_expression(slot.type, 2)
