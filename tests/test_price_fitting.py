"""Prices are set from tables, and what a table says holds when the rule is evaluated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.evaluation import Arena, Task, optimum_share
from evolve.grammar import seeded, vocabulary
from evolve.plugin_files import general_templates
from evolve.price_fitting import PriceFit
from evolve.search.operators import mutate_structure
from evolve.variation import newcomer, redraw_parameters

TEMPLATES = general_templates()
MODELS = find_dataset("suite").train[:12]
ARENA = Arena(MODELS, "gradient")
WORDS = vocabulary(("INT2", "INT4", "INT8", "FP16", "FP32"), "gradient")
LOSS = "np.exp(-(p.rate * model.bits)) * (model.gradient_sensitivity + p.weight)"
NUMBERS = {"rate": 0.48, "weight": 1.2}


@pytest.fixture(scope="module")
def prices():
    return PriceFit(MODELS, "gradient", TEMPLATES)


def weighted(price: float, loss: str = LOSS, **numbers: float) -> Candidate:
    slots = (("weight", "model.param_fraction"), ("loss", loss))
    return Candidate("weighted", slots, (("price", price), *(numbers or NUMBERS).items()))


def two_pass(price: str, **numbers: float) -> Candidate:
    slots = (("weight", "model.param_fraction"), ("loss", LOSS), ("price", price))
    numbers = {"first_price": 1.0, "second_price": 1.0, **NUMBERS, **numbers}
    return Candidate("two_pass", slots, tuple(numbers.items()))


def shares(candidate: Candidate) -> np.ndarray:
    """Return (M,) shares of the optimum that a rule reaches."""
    template = TEMPLATES[candidate.template]
    names, values = zip(*candidate.parameters, strict=True)
    (scores,) = ARENA.evaluate(Task(template.source(candidate), "", names, np.array([values])))
    return optimum_share(scores.fitness, ARENA.optimum_fitness)


def test_a_table_holds_what_the_rule_reaches_at_each_price(prices):
    table = prices.table(weighted(1.0))
    for place in range(0, len(table.prices), 31):
        reached = shares(weighted(float(table.prices[place])))
        above = reached > 0.1  # below the cliff hardly anything may be retained, and sums are rounded
        np.testing.assert_array_equal(table.shares[place, above], reached[above])
        np.testing.assert_allclose(table.shares[place], reached, rtol=1e-12)
    assert (np.diff(table.spent, axis=0) >= 0).all()
    assert (np.diff(table.lost, axis=0) <= 1e-12).all()
    np.testing.assert_array_equal(table.at(table.spent, table.prices[[7]][:, None]), table.spent[[7]])


def test_no_price_is_better_by_much(prices):
    found = prices(weighted(1.0))
    best = max(shares(weighted(price)).mean() for price in np.geomspace(1.0, 1000.0, 300))
    assert shares(found).mean() > best - 2e-3


@pytest.mark.parametrize(
    ("price", "numbers"),
    [
        ("spent", {}),
        ("spent * (lost + p.weight_2)", {"weight_2": 1.0}),
        ("spent / (p.weight_2 - lost)", {"weight_2": 1.0}),
        ("model.depth + p.weight_2 * lost", {"weight_2": 1.0}),
    ],
)
def test_numbers_of_any_price_are_better_than_random_ones(prices, price, numbers):
    candidate = two_pass(price, **numbers)
    found = prices(candidate)
    assert found.structure == candidate.structure
    changed = {name for name, value in found.parameters if value != dict(candidate.parameters)[name]}
    assert changed <= {"first_price", "second_price", *numbers}
    assert prices(candidate) == found
    template = TEMPLATES["two_pass"]
    with seeded() as reseed:
        reseed(1)
        others = [redraw_parameters(candidate, template, NUMBERS) for _ in range(100)]
    assert shares(found).mean() > max(shares(each).mean() for each in others) - 1e-3


def test_what_has_no_price_of_its_own_is_left_alone(prices):
    by_layer = two_pass("spent * model.gradient_sensitivity")
    ladder = Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")), ())
    all_alike = weighted(3.0, "p.rate * np.exp(-model.depth) * model.bits / model.bits", rate=1.0)
    above_its_level = weighted(3.0, "p.rate * model.loss", rate=1.0)
    for each in (by_layer, ladder, all_alike, above_its_level):
        assert prices(each) == each


def test_any_rule_stays_within_its_bounds_and_what_was_computed_before_changes_nothing(prices):
    forms = [TEMPLATES["weighted"], TEMPLATES["two_pass"]]
    changed = 0
    with seeded() as reseed:
        for seed in range(60):
            reseed(seed)
            candidate, _ = newcomer(forms[seed % 2], TEMPLATES, WORDS)
            candidate, _ = mutate_structure(candidate, TEMPLATES[candidate.template], WORDS)
            template = TEMPLATES[candidate.template]
            found = prices(candidate)
            changed += found != candidate
            values = dict(found.parameters)
            for each in template.parameters_of(found):
                assert each.low <= values[each.name] <= each.high
            if seed % 10 == 0:
                assert PriceFit(MODELS, "gradient", TEMPLATES)(candidate) == found
    assert changed > 20


def test_what_is_tied_gets_one_format_in_tables_too():
    tied = [replace(each, tied_layers=((0, 1, 2),)) for each in MODELS]
    arena = Arena(tied, "gradient")
    table = PriceFit(tied, "gradient", TEMPLATES).table(weighted(1.0))
    candidate = weighted(float(table.prices[120]))
    template = TEMPLATES["weighted"]
    names, values = zip(*candidate.parameters, strict=True)
    (scores,) = arena.evaluate(Task(template.source(candidate), "", names, np.array([values])))
    np.testing.assert_array_equal(table.shares[120], optimum_share(scores.fitness, arena.optimum_fitness))
    assert not np.array_equal(table.shares[120], shares(candidate))
