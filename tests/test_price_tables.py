"""Tables made from intervals of prices are those made one allocation after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.datasets import find_dataset
from evolve.evaluation import optimum_of
from evolve.price_tables import PriceTables, chosen_rows

MODELS = find_dataset("suite").train[:6]
TABLES = PriceTables(MODELS, "gradient")
FORMATS, LAYERS = len(TABLES.view.formats), TABLES.view.num_layers
PRICES = np.geomspace(1e-3, 1e3, 50)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_each_format_is_chosen_where_it_costs_least(seed, falling, rounded):
    random = np.random.default_rng(seed)
    weighted = np.cumsum(random.random((5, 40)), axis=0) * random.normal(1.0, 0.5, 40)
    losses = random.lognormal(0.0, 2.0, (5, 40))
    if falling:
        losses = -np.sort(-losses, axis=0)
    if rounded:  # some cost the same at every price
        weighted, losses = np.rint(4 * weighted), np.rint(losses)
    first, end = chosen_rows(weighted, losses, PRICES)
    rows = np.arange(len(PRICES))[:, None]
    chosen = np.stack([(low <= rows) & (rows < high) for low, high in zip(first, end, strict=True)])
    costs = weighted[:, None] + PRICES[:, None] * losses[:, None]
    np.testing.assert_array_equal(chosen.sum(axis=0), 1)
    np.testing.assert_array_equal(chosen.argmax(axis=0), costs.argmin(axis=0))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and losses that may rise from one format to the next."""
    random = np.random.default_rng(seed)
    scale = np.exp(-np.arange(FORMATS) * random.uniform(0.5, 4.0))[:, None]
    losses = scale * random.lognormal(0.0, random.uniform(0.1, 3.0), (FORMATS, LAYERS))
    return random.lognormal(0.0, 1.0, LAYERS), losses


@pytest.mark.parametrize("seed", range(20))
def test_sums_over_intervals_are_sums_over_allocations(seed):
    weights, losses = drawn(seed)
    table = TABLES.make(weights, losses)
    fitness, spent, lost = TABLES.sums_one_by_one(weights, losses, table.prices)
    np.testing.assert_allclose(table.spent, spent, rtol=1e-9)
    np.testing.assert_allclose(table.lost, lost, rtol=1e-9)
    shares = fitness / np.array([optimum_of(each).fitness for each in MODELS])
    # Scores are exact where something is retained.
    above = fitness > 0.1
    np.testing.assert_array_equal(table.shares[above], shares[above])
    np.testing.assert_allclose(table.shares, shares, rtol=1e-9)


def test_what_is_not_finite_is_allocated_one_by_one():
    weights, losses = drawn(1)
    weights[3], losses[:, 5] = np.inf, np.inf
    with np.errstate(invalid="ignore"):
        table = TABLES.make(weights, losses)
        _, spent, _ = TABLES.sums_one_by_one(weights, losses, table.prices)
    np.testing.assert_array_equal(table.spent, spent)
    assert np.isinf(table.spent[:, 0]).all()


def test_there_is_no_table_where_no_price_changes_anything():
    assert TABLES.make(np.ones(LAYERS), np.ones((FORMATS, LAYERS))) is None


def test_tied_layers_get_one_format():
    weights, losses = drawn(2)
    tied = PriceTables([replace(each, tied_layers=((0, 1, 2),)) for each in MODELS], "gradient")
    table, free = tied.make(weights, losses), TABLES.make(weights, losses)
    np.testing.assert_allclose(table.spent, free.spent, rtol=1e-9)
    assert (table.shares != free.shares).any()
