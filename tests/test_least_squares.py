"""Nonlinear least squares: where others end, it ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from evolve.least_squares import least_squares

GRID = np.linspace(0.0, 1.0, 40)


def _unbounded(count):
    return np.full(count, -np.inf), np.full(count, np.inf)


def _decay(place):
    """Residuals of a · exp(−8 b x) + c to a curve, and their derivatives."""
    a, b, c = place
    shape = np.exp(-8.0 * b * GRID)
    found = a * shape + c - (0.7 * np.exp(-3.2 * GRID) + 0.1)
    return found, np.array([shape, -8.0 * GRID * a * shape, np.ones(len(GRID))])


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_of_linear_residuals_it_finds_the_least(seed, count):
    random = np.random.default_rng(seed)
    slopes, right = random.normal(size=(count, 30)), random.normal(size=30)
    found = least_squares(
        lambda place: (slopes.T @ place - right, slopes),
        np.zeros(count),
        *_unbounded(count),
        most_calls=60,
        least_gain=1e-12,
    )
    exact = np.linalg.lstsq(slopes.T, right)[0]
    np.testing.assert_allclose(found, exact, atol=1e-4 * (1.0 + np.abs(exact).max()))


def test_of_a_decay_it_finds_the_numbers():
    found = least_squares(_decay, np.full(3, 0.5), np.zeros(3), np.ones(3), most_calls=40, least_gain=1e-9)
    np.testing.assert_allclose(found, [0.7, 0.4, 0.1], atol=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_within_bounds_it_does_as_well_as_a_library(seed):
    """Or nearly: it comes ever nearer to a bound, never onto it."""
    random = np.random.default_rng(seed)
    slopes, right = random.normal(size=(4, 25)), 3.0 * random.normal(size=25)

    def residuals(place):
        return slopes.T @ place - right, slopes

    low, high = np.zeros(4), np.ones(4)
    found = least_squares(residuals, np.full(4, 0.5), low, high, most_calls=60, least_gain=1e-9)
    best = optimize.lsq_linear(slopes.T, right, (low, high))
    assert ((found >= low) & (found <= high)).all()
    assert (residuals(found)[0] ** 2).sum() <= 2.0 * best.cost * (1.0 + 1e-3)


def test_of_two_numbers_for_one_it_takes_some():
    """The sum of squares is flat along their difference."""
    slopes = np.ones((2, 10))
    found = least_squares(
        lambda place: (slopes.T @ place - 1.0, slopes),
        np.array([0.1, 0.3]),
        *_unbounded(2),
        most_calls=60,
        least_gain=1e-12,
    )
    assert found.sum() == pytest.approx(1.0, abs=1e-5)
    assert found[1] - found[0] == pytest.approx(0.2, abs=1e-5)


def test_where_nothing_changes_it_stays():
    found = least_squares(
        lambda _: (np.ones(5), np.zeros((2, 5))),
        np.array([0.2, 0.6]),
        np.zeros(2),
        np.ones(2),
        most_calls=9,
        least_gain=1e-3,
    )
    assert found.tolist() == [0.2, 0.6]


def test_of_no_finite_sum_there_is_none():
    start = np.array([0.5])
    bounds = np.zeros(1), np.ones(1)
    for value in (np.nan, np.inf):
        found = least_squares(
            lambda _, value=value: (np.full(3, value), np.ones((1, 3))),
            start,
            *bounds,
            most_calls=9,
            least_gain=1e-3,
        )
        assert found is None


def test_it_steps_back_from_where_there_is_no_finite_sum():
    def residuals(place):
        value = np.sqrt(0.6 - place) if place[0] < 0.6 else np.array([np.nan])
        return value, np.array([[-1.0]])

    found = least_squares(residuals, np.array([0.1]), np.zeros(1), np.ones(1), most_calls=30, least_gain=0.0)
    assert 0.4 < found[0] < 0.6


def test_it_calls_no_oftener_than_it_may():
    calls = []

    def residuals(place):
        calls.append(place.copy())
        return _decay(place)

    least_squares(residuals, np.full(3, 0.9), np.zeros(3), np.ones(3), most_calls=5, least_gain=0.0)
    assert len(calls) <= 5
