"""Variation: whatever an operator makes can be read, rendered, compiled and evaluated."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import (
    CATALOGUE,
    OPERATORS,
    RANDOM,
    SEEDS,
    TEMPLATES,
    WORDS,
    check_sound,
    evolved,
)

from evolve.candidates import Candidate
from evolve.grammar import seeded
from evolve.heuristics import linear
from evolve.templates import Genome, Template
from evolve.variation import (
    cross_parameters,
    cross_structure,
    mutate_parameters,
    mutate_structure,
    newcomer,
    redraw_parameters,
    switch_template,
    words_for_numbers,
)


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
@settings(max_examples=120)
@given(seed=RANDOM, age=st.integers(0, 12))
def test_every_operator_makes_sound_candidates(operator, seed, age):
    with seeded() as reseed:
        reseed(seed)
        first, second = evolved(age), evolved(age)
        made, change = operator(first, second, WORDS)
    check_sound(made)
    assert change
    # The parents are what they were, and equal seeds make equal candidates.
    check_sound(first)
    with seeded() as reseed:
        reseed(seed)
        assert (first, second) == (evolved(age), evolved(age))
        assert operator(first, second, WORDS) == (made, change)


def test_operators_mostly_change_something():
    """Sound candidates are easily made by changing nothing."""
    unchanged = dict.fromkeys(OPERATORS, 0)
    with seeded() as reseed:
        for seed in range(100):
            reseed(seed)
            first, second = evolved(6), evolved(6)
            for name, operator in OPERATORS.items():
                reseed(seed)
                unchanged[name] += operator(first, second, WORDS)[0] == first
    # Of two random rules, few have anything that fits the other.
    assert unchanged.pop("crossover") < 90
    assert all(count < 40 for count in unchanged.values()), unchanged
    assert unchanged["template"] == 0


@settings(max_examples=60)
@given(RANDOM, st.integers(1, 10))
def test_parameter_crossover_blends_two_of_one_structure(seed, age):
    with seeded() as reseed:
        reseed(seed)
        first = evolved(age)
        template = TEMPLATES[first.template]
        second, _ = mutate_parameters(first, template)
        made, change = cross_parameters(first, second, template)
    check_sound(made)
    assert made.structure == first.structure
    assert bool(change != "nothing") >= (made != first)
    for (name, value), (_, one), (_, other) in zip(
        made.parameters, first.parameters, second.parameters, strict=True
    ):
        # What both parents agree on is not varied.
        assert one != other or value == pytest.approx(one, rel=0.01), name


WITHOUT = Template("bare", "def allocate(model, p):\n    return model.select(otherwise='FP16')\n")


@pytest.mark.parametrize(
    "made",
    [
        lambda: mutate_parameters(Candidate("bare"), WITHOUT),
        lambda: mutate_structure(Candidate("bare"), WITHOUT, WORDS),
        lambda: cross_structure(Candidate("bare"), SEEDS[0], {"bare": WITHOUT, **TEMPLATES}),
        lambda: switch_template(Candidate("bare"), {"bare": WITHOUT}, WORDS),
    ],
    ids=["parameters", "structure", "crossover", "template"],
)
def test_where_there_is_nothing_to_change_nothing_changes(made):
    assert made() == (Candidate("bare"), "nothing")


def test_the_global_generator_is_lent_and_given_back():
    random.seed("mine")
    before = random.getstate()
    with seeded() as reseed:
        reseed(3)
        assert random.getstate() != before
        for _ in range(20):
            evolved(5)
    assert random.getstate() == before
    with pytest.raises(TypeError), seeded() as reseed:
        reseed([])
    assert random.getstate() == before


def test_a_newcomer_of_a_plain_function_takes_a_template():
    function = next(each.template for each in CATALOGUE.heuristics.values() if not each.template.slots)
    with seeded() as reseed:
        reseed(5)
        made = {newcomer(function, TEMPLATES, WORDS)[0].template for _ in range(60)}
        own = {newcomer(TEMPLATES["ladder"], TEMPLATES, WORDS) for _ in range(20)}
    assert len(made) > 3
    assert all(TEMPLATES[name].slots for name in made)
    assert {candidate.template for candidate, _ in own} == {"ladder"}
    assert {change for _, change in own} == {"a random ladder"}
    assert len(own) > 10


def test_the_id_is_that_of_the_content_alone():
    one = Candidate("ladder", (("otherwise", "FP16"),), (("edge", 1.0),))
    assert one.id == Candidate("ladder", (("otherwise", "FP16"),), (("edge", 1),)).id
    others = [
        replace(one, template="other"),
        replace(one, slots=(("otherwise", "FP32"),)),
        replace(one, slots=(("otherwise", (("m", "FP16"),)),)),
        replace(one, parameters=(("edge", 1.0000001),)),
        replace(one, parameters=(("age", 1.0),)),
    ]
    assert len({one.id, *(each.id for each in others)}) == 6


def test_whole_numbers_in_a_plugin_are_numbers_like_any_others():
    """A bound that somebody wrote as 5 and a value drawn as 5.0 are one candidate."""
    template = Template(
        "mine",
        "def allocate(model, p):\n    return model.where(model.depth < p.n, 'FP16', 'FP32')\n",
        parameters=(linear("n", 1, 1, 2),),
        kind="function",
    )
    first = template.write(Genome("mine", (), template.parameters))
    assert first.id == Candidate("mine", (), (("n", 1.0),)).id
    with seeded() as reseed:
        reseed(7)
        made = [mutate_parameters(first, template)[0] for _ in range(50)]
    assert {type(value) for each in made for _, value in each.parameters} == {float}


def a_rule_with_a_rate() -> Candidate:
    slots = (("weight", "model.param_fraction"), ("loss", "np.exp(-(p.rate * model.bits))"))
    return Candidate("weighted", slots, (("price", 350.0), ("rate", 0.52)))


def test_a_constant_becomes_a_number_for_each_layer_type_near_it():
    """Near enough to leave the rule good, far enough to change what some layer gets."""
    rule, template = a_rule_with_a_rate(), TEMPLATES["weighted"]
    found = []
    with seeded() as reseed:
        for seed in range(600):
            reseed(seed)
            made, _ = mutate_structure(rule, template, WORDS)
            if "exp(-(model.by_type(" in dict(made.slots)["loss"] and "where" not in dict(made.slots)["loss"]:
                found.append(dict(made.parameters))
    assert found
    for numbers in found:
        rates = [value for name, value in numbers.items() if name.startswith("rate")]
        assert len(rates) == len(WORDS.types)
        assert all(abs(math.log2(rate / 0.52)) < 0.41 for rate in rates)


def test_a_branch_may_get_a_score_with_a_number_added_as_its_factor():
    rule, template = a_rule_with_a_rate(), TEMPLATES["weighted"]
    found = set()
    with seeded() as reseed:
        for seed in range(600):
            reseed(seed)
            made, _ = mutate_structure(rule, template, WORDS)
            found |= set(re.findall(r"\* \(model\.(\w+) \+ p\.weight\)", dict(made.slots)["loss"]))
    assert len(found) > 3


def test_redrawn_numbers_of_a_new_structure_leave_those_it_inherited_mostly_alone():
    """But for the price, which a new structure mostly needs to be another."""
    template = TEMPLATES["weighted"]
    slots = (("weight", "model.param_fraction + p.weight"), a_rule_with_a_rate().slots[1])
    rule = Candidate("weighted", slots, (("price", 350.0), ("weight", 0.2), ("rate", 0.52)))
    kept = {"price": 350.0, "weight": 0.2}
    moved = {"price": 0, "weight": 0, "rate": 0}
    with seeded() as reseed:
        for seed in range(200):
            reseed(seed)
            made = redraw_parameters(rule, template, kept)
            words = words_for_numbers(rule, made)
            check_sound(made)
            assert made.slots == rule.slots
            for name, value in made.parameters:
                moved[name] += value != dict(rule.parameters)[name]
                assert value == dict(rule.parameters)[name] or f"{name} " in words
    assert moved["rate"] > 150
    assert 90 < moved["price"] < 150
    assert 0 < moved["weight"] < 40
