"""Variation: whatever an operator makes can be read, rendered, compiled and evaluated."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.evaluation import Arena, ModelScores, Task
from evolve.expressions import Node, required_level
from evolve.grammar import seeded, vocabulary
from evolve.heuristics import linear
from evolve.plugin_files import general_templates
from evolve.plugins import load_catalogue
from evolve.signals import LEVELS
from evolve.templates import Genome, Slot, Template, expressions_of
from evolve.typed_trees import MAX_SIZE, cross_expressions, mutate_expression
from evolve.variation import (
    MAX_CLAUSES,
    cross_parameters,
    cross_structure,
    mutate_parameters,
    mutate_structure,
    newcomer,
    random_content,
    redraw_parameters,
    switch_template,
)

CATALOGUE = load_catalogue()
TEMPLATES = CATALOGUE.templates
SEEDS = [each.candidate for each in CATALOGUE.heuristics.values()]
MODEL = find_dataset("reference").train[0]
WORDS = vocabulary(MODEL.format_names, "curves")
ARENAS = {level: Arena([MODEL], level) for level in LEVELS}
RANDOM = st.integers(0, 2**63 - 1)


def as_newcomer(first, _second, words):
    return newcomer(TEMPLATES[first.template], TEMPLATES, words)


OPERATORS = {
    "parameters": lambda first, _second, _words: mutate_parameters(first, TEMPLATES[first.template]),
    "structure": lambda first, _second, words: mutate_structure(first, TEMPLATES[first.template], words),
    "crossover": lambda first, second, _words: cross_structure(first, second, TEMPLATES),
    "template": lambda first, _second, words: switch_template(first, TEMPLATES, words),
    "newcomer": as_newcomer,
}


def evolved(generations: int, words=WORDS, start: Candidate | None = None) -> Candidate:
    """Walk at random from a seed heuristic: a candidate as a long search may hold it."""
    candidate = start or random.choice(SEEDS)
    for _ in range(generations):
        operator = OPERATORS[random.choice(list(OPERATORS))]
        candidate = operator(candidate, random.choice(SEEDS), words)[0]
    return candidate


def evaluated(candidate: Candidate, level: str = "curves") -> object:
    source = TEMPLATES[candidate.template].source(candidate)
    values = np.array([[value for _, value in candidate.parameters]])
    names = tuple(name for name, _ in candidate.parameters)
    (result,) = ARENAS[level].evaluate(Task(source, "", names, values.reshape(1, -1)))
    return result


def check_sound(candidate: Candidate) -> None:
    """Check what holds for every candidate, whatever made it."""
    template = TEMPLATES[candidate.template]
    # Canonical: writing what was read changes nothing.
    assert template.write(template.read(candidate)) == candidate
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
    content = json.dumps([candidate.template, candidate.slots, candidate.parameters], separators=(",", ":"))
    assert candidate.id == hashlib.sha256(content.encode()).hexdigest()[:12]
    bounds = template.parameters_of(candidate)
    assert [each.name for each in bounds] == [name for name, _ in candidate.parameters]
    for each, (_, value) in zip(bounds, candidate.parameters, strict=True):
        assert type(value) is float
        assert each.low <= value <= each.high
    for slot, (name, tree) in zip(template.slots, template.read(candidate).slots, strict=True):
        assert slot.name == name
        assert slot.type != "clauses" or len(tree) <= MAX_CLAUSES
        assert all(node.size <= MAX_SIZE for node in expressions_of(tree))
    assert isinstance(evaluated(candidate), ModelScores)


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


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=40)
@given(seed=RANDOM)
def test_random_expressions_respect_the_level(level, seed):
    words = vocabulary(MODEL.format_names, level)
    highest = LEVELS.index(level)
    with seeded() as reseed:
        reseed(seed)
        for type_ in ("mask", "score", "table"):
            node = words.random_expression(type_, 3)
            for _ in range(5):
                assert node.type == type_
                assert required_level(node) <= highest
                node = mutate_expression(node, words)
            assert required_level(cross_expressions(node, words.random_expression(type_))) <= highest


@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=25)
@given(seed=RANDOM, age=st.integers(0, 8))
def test_a_search_at_a_level_stays_there(level, seed, age):
    """From a rule that reads no more, no operator leads to a rule that does."""
    words = vocabulary(MODEL.format_names, level)
    start = CATALOGUE.get("mixed_fp16_int8").candidate
    # Those that plugins bring may read what they like in their bodies.
    templates = general_templates()
    operators = (
        lambda one, _: mutate_structure(one, templates[one.template], words),
        lambda one, _: switch_template(one, templates, words),
        lambda one, other: cross_structure(one, other, templates),
    )
    with seeded() as reseed:
        reseed(seed)
        candidate = start
        for _ in range(age):
            other, _ = newcomer(templates["ladder"], templates, words)
            candidate, _ = random.choice(operators)(candidate, other)
    assert TEMPLATES[candidate.template].level(candidate) <= LEVELS.index(level)
    assert isinstance(evaluated(candidate, level), ModelScores)


def test_every_level_uses_all_it_may_read():
    for level in LEVELS:
        words = vocabulary(MODEL.format_names, level)
        with seeded() as reseed:
            reseed(0)
            levels = {required_level(words.random_expression("score", 2)) for _ in range(300)}
        assert levels == set(range(LEVELS.index(level) + 1))


def test_all_formats_and_no_others_are_drawn():
    words = vocabulary(("INT3", "FP16"), "curves")
    slot = Slot("clauses", "clauses")
    with seeded() as reseed:
        reseed(1)
        found = {name for _ in range(40) for _, name in random_content(slot, words)}
        leaves = [leaf for _ in range(200) for leaf in words.random_expression("score").walk()]
    assert found == {"INT3", "FP16"}
    assert {leaf.value for leaf in leaves if leaf.operation == "sensitivity"} == {"INT3", "FP16"}


def test_scores_of_a_template_are_read_only_where_it_has_computed_them():
    slot = next(each for each in TEMPLATES["two_pass"].slots if each.reads)
    drawn: dict[str, set[object]] = {}
    with seeded() as reseed:
        reseed(2)
        for _ in range(200):
            candidate, _ = newcomer(TEMPLATES["two_pass"], TEMPLATES, WORDS)
            for name, tree in TEMPLATES["two_pass"].read(candidate).slots:
                values = [
                    each.value
                    for node in expressions_of(tree)
                    for each in node.walk()
                    if each.operation == "local"
                ]
                drawn.setdefault(name, set()).update(values)
    assert drawn.pop(slot.name) == set(slot.reads)
    assert set().union(*drawn.values()) == set()


def test_a_score_of_a_template_does_not_stray_by_crossover():
    """The price of a second pass may read what the first has spent; nothing else may."""
    template = TEMPLATES["two_pass"]
    slot = next(each for each in template.slots if each.reads)
    contents = {each.name: "model.param_fraction" for each in template.slots}
    numbers = tuple((each.name, each.default) for each in template.parameters)
    first = Candidate("two_pass", tuple({**contents, "loss": "model.loss"}.items()), numbers)
    second = replace(first, slots=tuple({**dict(first.slots), slot.name: " * ".join(slot.reads)}.items()))
    taken = 0
    with seeded() as reseed:
        for seed in range(150):
            reseed(seed)
            made, _ = cross_structure(first, second, TEMPLATES)
            check_sound(made)
            taken += any(name in dict(made.slots)[slot.name] for name in slot.reads)
    assert taken > 3


def test_no_expression_grows_beyond_what_one_can_read():
    sizes = set()
    with seeded() as reseed:
        for seed in range(40):
            reseed(seed)
            node = WORDS.random_expression("score", 3)
            for _ in range(40):
                node = mutate_expression(node, WORDS)
                node = cross_expressions(node, node)
                sizes.add(node.size)
    assert max(sizes) <= MAX_SIZE
    assert MAX_SIZE - 2 in sizes


def test_no_decision_list_grows_beyond_what_one_can_read():
    clauses = tuple(
        (f'model.is_type("{name}")', "FP16") for name in ("Conv", "Linear", "Attention", "Embedding")
    )
    longest = (*clauses, ('model.is_type("Classifier")', "FP32"))
    assert len(longest) == MAX_CLAUSES
    candidate = Candidate("ladder", (("clauses", longest), ("otherwise", "INT8")))
    lengths = set()
    with seeded() as reseed:
        for seed in range(100):
            reseed(seed)
            for made, _ in (
                mutate_structure(candidate, TEMPLATES["ladder"], WORDS),
                cross_structure(candidate, candidate, TEMPLATES),
            ):
                lengths.add(len(dict(made.slots)["clauses"]))
    assert max(lengths) == MAX_CLAUSES
    assert MAX_CLAUSES - 1 in lengths


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
    told = dict(re.findall(r"(\w+) (\S+ → \S+?)(?:, |$)", change))
    before, after = dict(first.parameters), dict(made.parameters)
    expected = {
        name: f"{before[name]:.4g} → {after[name]:.4g}" for name in before if before[name] != after[name]
    }
    # Told may also be a change too small for the digits a parameter has.
    assert expected.items() <= told.items()
    assert all(told[name] == f"{before[name]:.4g} → {after[name]:.4g}" for name in told)
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


def test_a_nearer_format_is_drawn_more_often():
    with seeded() as reseed:
        reseed(6)
        drawn = [WORDS.near_format("INT8") for _ in range(600)]
    counts = {name: drawn.count(name) for name in WORDS.formats}
    assert counts["INT8"] == 0
    assert min(counts["INT4"], counts["FP16"]) > max(counts["INT2"], counts["FP32"]) > 0


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
    """So near that the rule stays as good until the numbers are refined."""
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
        assert all(abs(rate / 0.52 - 1) < 0.03 for rate in rates)


def test_redrawn_numbers_of_a_new_structure_leave_those_it_inherited_mostly_alone():
    rule, template = a_rule_with_a_rate(), TEMPLATES["weighted"]
    kept = {"price": 350.0}
    moved = {"price": 0, "rate": 0}
    with seeded() as reseed:
        for seed in range(200):
            reseed(seed)
            made, words = redraw_parameters(rule, template, kept)
            check_sound(made)
            assert made.slots == rule.slots
            for name, value in made.parameters:
                moved[name] += value != dict(rule.parameters)[name]
                assert value == dict(rule.parameters)[name] or f"{name} " in words
    assert moved["rate"] > 150
    assert 0 < moved["price"] < 60
