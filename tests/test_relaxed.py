"""Budgets kept on average: losses are interpolated between the allocations next to the budget."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_profiles import measured_profile
from strategies import constrained_profiles

from evolve.evaluation import Arena, Task
from evolve.objectives import LOSS_FLOOR, Budgets, best_losses, parse_objective
from evolve.parameters import Parameter

LAGRANGIAN = """
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * model.loss)
"""
EDGE = """
def allocate(model, p):
    return model.where(model.relative_position < p.edge, model.formats[-1], model.formats[0])
"""
PRICE = Parameter("price", 1.0, 1e-6, 1e8, "log")
FAMILY = Task(LAGRANGIAN, "", ("price",), np.ones((1, 1)), PRICE)


def test_the_objective_is_read_and_written():
    found = parse_objective("relaxed:2.5,3")
    assert found == Budgets((2.5, 3.0), relaxed=True)
    assert str(found) == "relaxed:2.5,3"
    assert found != parse_objective("budgets:2.5,3")


@settings(max_examples=40)
@given(constrained_profiles(max_layers=5), st.lists(st.floats(1, 33), min_size=1, max_size=3, unique=True))
def test_the_best_is_a_bound_of_what_allocations_reach(profile, bits):
    bits = tuple(sorted(bits))
    exact, relaxed = best_losses(profile, Budgets(bits)), best_losses(profile, Budgets(bits, relaxed=True))
    assert np.isnan(exact).tolist() == np.isnan(relaxed).tolist()
    for least, bound in zip(exact, relaxed, strict=True):
        assert np.isnan(least) or bound <= least + 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_the_lagrangian_has_the_whole_share_where_no_layers_are_tied(seed):
    plain = dataclasses.replace(measured_profile(seed, 9), tied_layers=(), layer_bits=None)
    bits = (2.7, 3.3, 4.6)
    (relaxed,) = Arena([plain], "curves", Budgets(bits, relaxed=True)).evaluate(FAMILY)
    (usual,) = Arena([plain], "curves", Budgets(bits)).evaluate(FAMILY)
    # Two corners may lie nearer than the finest steps of the price.
    assert (relaxed.shares > 0.99).all()
    assert (relaxed.shares <= 1).all()
    assert relaxed.shares.mean() > usual.shares.mean()


def test_the_loss_lies_on_the_line_between_the_neighbours():
    """Of a rule that lowers layer by layer, at a budget a quarter of the way from one step to the next."""
    profile = dataclasses.replace(measured_profile(2, 6), tied_layers=(), layer_bits=None)
    size = profile.num_params[:, None] * profile.bits_table / profile.total_params
    rows = np.arange(6)
    wide = len(profile.formats) - 1
    steps = [np.where(rows < count, wide, 0) for count in (2, 3)]
    (low, high), losses = ([table[rows, step].sum() for step in steps] for table in (size, profile.loss))
    budget = low + 0.25 * (high - low)
    arena = Arena([profile], "metadata", Budgets((budget,), relaxed=True))
    task = Task(EDGE, "", ("edge",), np.full((1, 1), 0.5), Parameter("edge", 0.5, -0.1, 1.1, "linear"))
    (found,) = arena.evaluate(task)
    (best,) = best_losses(profile, arena.budgets)
    expected = (best + LOSS_FLOOR) / (0.75 * losses[0] + 0.25 * losses[1] + LOSS_FLOOR)
    assert found.shares[0, 0] == pytest.approx(expected)


def test_beyond_the_widest_and_below_the_narrowest_allocation():
    profile = measured_profile(1)
    (found,) = Arena([profile], "curves", Budgets((1.0, 40.0), relaxed=True)).evaluate(FAMILY)
    assert np.isnan(found.shares[0, 0])
    assert found.shares[0, 1] == pytest.approx(1)
