"""Variation says what it changed, and changed nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from variants import (
    RANDOM,
    TEMPLATES,
    WORDS,
    evolved,
)

from evolve.candidates import Candidate
from evolve.expressions import Node
from evolve.grammar import seeded
from evolve.variation import (
    cross_structure,
    mutate_parameters,
    mutate_structure,
    switch_template,
)


def without_names(tree: object) -> object:
    """Forget the names of numbers, which follow from the place."""
    if isinstance(tree, Node):
        return replace(tree, name="", children=tuple(map(without_names, tree.children)))
    if isinstance(tree, tuple):
        return tuple((without_names(mask), name) for mask, name in tree)
    return tree


def slot_trees(candidate: Candidate) -> dict[str, object]:
    template = TEMPLATES[candidate.template]
    # New values can let constants fold that did not before: every structural operator writes the
    # whole candidate in canonical form, so that is what is compared.
    canonical = template.write(template.read(candidate))
    return {name: without_names(tree) for name, tree in template.read(canonical).slots}


@settings(max_examples=150)
@given(RANDOM, st.integers(0, 8))
def test_the_words_for_a_parameter_mutation_say_what_changed(seed, age):
    with seeded() as reseed:
        reseed(seed)
        first = evolved(age)
        made, change = mutate_parameters(first, TEMPLATES[first.template])
    told = {name: texts for name, *texts in re.findall(r"(\w+) (\S+) → (\S+?)(?:, |$)", change)}
    before, after = dict(first.parameters), dict(made.parameters)
    assert set(told) == {name for name in before if before[name] != after[name]}
    for name, (old, new) in told.items():
        assert old != new
        assert (float(old), float(new)) == pytest.approx((before[name], after[name]), rel=1e-3)
    assert (change == "nothing") == (not told)


@settings(max_examples=300)
@given(RANDOM, st.integers(0, 6))
def test_the_words_for_a_structural_mutation_say_what_changed(seed, age):
    with seeded() as reseed:
        reseed(seed)
        first = evolved(age)
        made, change = mutate_structure(first, TEMPLATES[first.template], WORDS)
    if not TEMPLATES[first.template].slots:
        assert change == "nothing"
        return
    before, after = slot_trees(first), slot_trees(made)
    clauses, fresh = before.get("clauses"), after.get("clauses")
    if match := re.fullmatch(r"clause (\d) added", change):
        place = int(match[1]) - 1
        assert (*fresh[:place], *fresh[place + 1 :]) == clauses
    elif match := re.fullmatch(r"clause (\d) dropped", change):
        place = int(match[1]) - 1
        assert (*clauses[:place], *clauses[place + 1 :]) == fresh
    elif match := re.fullmatch(r"clause (\d): (\w+) → (\w+)", change):
        place = int(match[1]) - 1
        assert (clauses[place][1], fresh[place][1]) == (match[2], match[3])
        assert match[2] != match[3]
        assert clauses[place][0] == fresh[place][0]
        assert (*clauses[:place], *clauses[place + 1 :]) == (*fresh[:place], *fresh[place + 1 :])
    elif match := re.fullmatch(r"clause (\d): new mask", change):
        place = int(match[1]) - 1
        assert clauses[place][1] == fresh[place][1]
        assert (*clauses[:place], *clauses[place + 1 :]) == (*fresh[:place], *fresh[place + 1 :])
    elif match := re.fullmatch(r"clauses (\d) and (\d) swapped", change):
        one, other = int(match[1]) - 1, int(match[2]) - 1
        assert one < other
        assert (clauses[one], clauses[other]) == (fresh[other], fresh[one])
    elif match := re.fullmatch(r"(\w+): (\w+) → (\w+)", change):
        assert (before[match[1]], after[match[1]]) == (match[2], match[3])
        assert {**before, match[1]: None} == {**after, match[1]: None}
    else:
        match = re.fullmatch(r"(\w+): new expression", change)
        assert match, change
        assert {**before, match[1]: None} == {**after, match[1]: None}


@settings(max_examples=150)
@given(RANDOM, st.integers(0, 6))
@example(seed=1074, age=4)
def test_the_words_for_a_crossover_say_what_changed(seed, age):
    with seeded() as reseed:
        reseed(seed)
        first, second = evolved(age), evolved(age)
        made, change = cross_structure(first, second, TEMPLATES)
    assert made.template == first.template
    if change == "nothing":
        assert made == first
        return
    before, after = slot_trees(first), slot_trees(made)
    given_by_second = slot_trees(second).values()
    donated = [clause for tree in given_by_second if isinstance(tree, tuple) for clause in tree]
    if match := re.fullmatch(r"first (\d) clauses kept, (\d) taken from the other", change):
        kept, taken = int(match[1]), int(match[2])
        assert len(after["clauses"]) == kept + taken
        assert after["clauses"][:kept] == before["clauses"][:kept]
        assert all(clause in donated for clause in after["clauses"][kept:])
    elif match := re.fullmatch(r"clause (\d): masks crossed", change):
        place = int(match[1]) - 1
        assert [name for _, name in after["clauses"]] == [name for _, name in before["clauses"]]
        for index, pair in enumerate(zip(before["clauses"], after["clauses"], strict=True)):
            assert index == place or pair[0] == pair[1]
    elif match := re.fullmatch(r"(\w+): (\w+) → (\w+)", change):
        assert (before[match[1]], after[match[1]]) == (match[2], match[3])
        assert any(
            match[3] == tree or (isinstance(tree, tuple) and match[3] in [name for _, name in tree])
            for tree in given_by_second
        )
    elif match := re.fullmatch(r"(\w+): the other's", change):
        # Numbers are brought within the bounds that their place gives them.
        assert {**before, match[1]: None} == {**after, match[1]: None}
        taken = next(tree for name, tree in TEMPLATES[second.template].read(second).slots if name == match[1])
        assert [each.operation for each in taken.walk()] == [
            each.operation
            for name, tree in TEMPLATES[made.template].read(made).slots
            if name == match[1]
            for each in tree.walk()
        ]
    else:
        match = re.fullmatch(r"(\w+): a branch of the other's", change)
        assert match, change
        assert {**before, match[1]: None} == {**after, match[1]: None}


@settings(max_examples=60)
@given(RANDOM, st.integers(0, 6))
def test_a_switched_template_keeps_the_slots_it_has(seed, age):
    with seeded() as reseed:
        reseed(seed)
        first = evolved(age)
        made, change = switch_template(first, TEMPLATES, WORDS)
    assert made.template != first.template
    assert change == f"template {first.template} → {made.template}"
    own = {(slot.name, slot.type): slot for slot in TEMPLATES[first.template].slots}
    before, after = slot_trees(first), slot_trees(made)
    for slot in TEMPLATES[made.template].slots:
        old = own.get((slot.name, slot.type))
        if old is not None and set(old.reads) <= set(slot.reads):
            assert after[slot.name] == before[slot.name]
