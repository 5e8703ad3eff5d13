"""Exponential and logarithm: near the truth, and the same bits on every processor."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve import elementary
from evolve.elementary import exp, expm1, log, log1p, portable_numpy


def _units_off(found: float, truth: Decimal) -> float:
    return abs(float((Decimal(found) - truth) / Decimal(float(np.spacing(abs(float(truth)))))))


def _exactly(function: Callable[[Decimal], Decimal], value: float) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return function(Decimal(value))


@given(st.floats(-700.0, 700.0))
def test_the_exponential_is_within_little_more_than_a_unit_in_the_last_place(value):
    assert _units_off(float(exp(value)), _exactly(Decimal.exp, value)) < 1.2


@given(st.floats(1e-300, 1e300))
def test_the_logarithm_is_within_a_unit_in_the_last_place(value):
    if value != 1.0:
        assert _units_off(float(log(value)), _exactly(Decimal.ln, value)) < 1.0


@given(st.floats(-0.999, 1e6).filter(lambda value: abs(value) > 1e-300))
def test_one_is_added_without_loss(value):
    truth = _exactly(lambda given: (1 + given).ln(), value)
    assert _units_off(float(log1p(value)), truth if abs(value) > 1e-20 else Decimal(value)) < 1.2


@given(st.floats(-30.0, 30.0).filter(lambda value: abs(value) > 1e-300))
def test_one_is_taken_away_without_loss(value):
    truth = _exactly(lambda given: given.exp() - 1, value)
    assert _units_off(float(expm1(value)), truth if abs(value) > 1e-20 else Decimal(value)) < 2.5


@pytest.mark.parametrize("name", ["exp", "log", "log1p", "expm1"])
def test_at_the_ends_they_are_what_numpy_has(name):
    values = np.array([0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, -2.0, 800.0, -800.0, 1e-17, -1e-17])
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(values)
    np.testing.assert_allclose(getattr(elementary, name)(values), expected, rtol=1e-15)


def test_they_are_the_same_bits_everywhere():
    """Digests that were taken on processors with and without wide vectors."""
    values = np.concatenate([np.linspace(-50.0, 50.0, 20_011), np.ldexp(1.0, np.arange(-60, 9))])
    found = [exp(values), log(np.abs(values)), log1p(np.abs(values) - 0.9), expm1(values)]
    digests = [sha256(each.astype("<f8").tobytes()).hexdigest()[:16] for each in found]
    assert digests == ["fb355680145e9f50", "e63d300f2e0d09ab", "715de05a3d5a0d13", "2118bf9280981401"]


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (5, 1, 7), (2, 9000)])
def test_shapes_are_kept_and_what_is_given_is_not_touched(shape):
    values = np.random.default_rng(1).normal(size=shape)
    before = values.copy()
    for each in (exp(values), log1p(np.abs(values)), exp(values.T).T):
        assert each.shape == shape
    np.testing.assert_array_equal(values, before)


def test_a_value_does_not_depend_on_its_neighbours():
    values = np.random.default_rng(2).normal(0.0, 5.0, 30_000)
    alone = [float(exp(each)) for each in values[::997]]
    assert exp(values)[::997].tolist() == alone


def test_numpy_with_them_is_numpy_otherwise():
    numbers = portable_numpy()
    assert numbers.exp is exp
    assert numbers.where is np.where
    assert np.exp is not exp
