"""Variation keeps within the level, the formats, the scores and the sizes that a search allows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from variants import (
    CATALOGUE,
    MODEL,
    RANDOM,
    TEMPLATES,
    WORDS,
    check_sound,
    evaluated,
)

from evolve.candidates import Candidate
from evolve.evaluation import ModelScores
from evolve.expressions import required_level
from evolve.grammar import seeded, vocabulary
from evolve.plugin_files import general_templates
from evolve.signals import LEVELS
from evolve.templates import Slot, expressions_of
from evolve.typed_trees import MAX_SIZE, cross_expressions, mutate_expression
from evolve.variation import (
    MAX_CLAUSES,
    cross_structure,
    mutate_structure,
    newcomer,
    random_content,
    switch_template,
)


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


def test_a_level_is_read_as_often_as_another_however_few_signals_it_has():
    for level, gradients in (("gradient", 1 / 3), ("curves", 1 / 4)):
        words = vocabulary(MODEL.format_names, level)
        with seeded() as reseed:
            reseed(2)
            drawn = [words.random_quantity().value for _ in range(2000)]
        assert drawn.count("gradient_sensitivity") / len(drawn) == pytest.approx(gradients, abs=0.04)


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


def test_a_nearer_format_is_drawn_more_often():
    with seeded() as reseed:
        reseed(6)
        drawn = [WORDS.near_format("INT8") for _ in range(600)]
    counts = {name: drawn.count(name) for name in WORDS.formats}
    assert counts["INT8"] == 0
    assert min(counts["INT4"], counts["FP16"]) > max(counts["INT2"], counts["FP32"]) > 0
