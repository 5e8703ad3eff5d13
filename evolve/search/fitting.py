"""Fitted candidates: their predicted loss is fitted to measured losses, their price to what it brings.

A fit says how losses compare with each other; what a loss costs in bits it cannot say. Where a model has one
price, tables tell what each brings. Where its layers have different ones, a fitted rule first spends what is
known to be about right, and enters with a few prices around that.
"""

from __future__ import annotations

import math
from dataclasses import replace

from evolve.candidates import Candidate
from evolve.search.base import Problem
from evolve.search.calibration import calibrated, spent_by, with_numbers_scaled

#: Factors on the prices that a fitted structure enters with: what the best rule spends is mostly too little.
_FACTORS = (0.8, 1.25, 1.6)


def family_of(
    problem: Problem, bred: Candidate, parent: Candidate | None, best: float | None
) -> tuple[list[Candidate], float]:
    """Return a new structure with fitted numbers, as `fitted_family` does, and what its parent spends.

    Args:
        problem: Knows how to fit, and what candidates spend.
        bred: The rule as it was bred.
        parent: What it was made from; None where nobody knows.
        best: Binary logarithm of the bits a weight that the best rule so far spends; None without one.
    """
    # What was changed mostly changes the scale of a loss too: what its parent spends, it spends too.
    bits = math.nan if parent is None else spent_by(problem, parent)
    # Fitted losses are of one scale, so there the best rule knows better.
    target = bits if problem.fit is None or best is None else best
    return fitted_family(problem, bred, target), bits


def fitted_family(problem: Problem, candidate: Candidate, bits: float) -> list[Candidate]:
    """Return a candidate with fitted numbers, at one good price or several; none where nothing can be fitted.

    A search that fits prices alone leaves the other numbers as they were bred.

    Args:
        problem: Knows how to fit, and what candidates spend.
        candidate: A rule as it was bred.
        bits: Binary logarithm of the bits a weight to spend at the first price; NaN where nobody knows.
    """
    fitted = candidate if problem.fit is None else problem.fit(candidate)
    if problem.fit is not None and fitted == candidate:
        return []
    if problem.prices is not None:
        # Beside the fitted numbers those it was bred with: they may have been tuned to shares.
        bred = [fitted, candidate] if fitted != candidate else [candidate]
        tuned = [(each, problem.prices(each)) for each in bred]
        if priced := [after for before, after in tuned if after != before]:
            return priced
    if fitted == candidate:
        return []
    sweep = problem.templates[fitted.template].sweep
    assert sweep is not None
    (first,) = calibrated(problem, [fitted], bits, sweep.along)
    prices = (sweep.parameter, *sweep.along)
    family = [first, *(with_numbers_scaled(first, prices, factor) for factor in _FACTORS)]
    return [_within_bounds(problem, each) for each in family]


def newcomer_of(problem: Problem, candidate: Candidate, bits: float) -> tuple[Candidate, bool]:
    """Return a random rule that spends so many bits, and whether numbers of it were fitted.

    Args:
        problem: Knows how to fit, and what candidates spend.
        candidate: The rule.
        bits: Binary logarithm of the bits a weight to spend; NaN where nobody knows.
    """
    fitted = candidate if problem.fit is None else fitted_newcomer(problem, candidate)
    sweep = problem.templates[fitted.template].sweep
    # A fit has changed the scale of the loss, so all that multiplies it changes together.
    along = () if problem.fit is None or sweep is None else sweep.along
    return calibrated(problem, [fitted], bits, along)[0], fitted != candidate


def fitted_newcomer(problem: Problem, candidate: Candidate) -> Candidate:
    """Return a random rule with equal prices, and with fitted numbers where it has any to fit."""
    fitted = candidate if problem.fit is None else problem.fit(candidate)
    sweep = problem.templates[fitted.template].sweep
    if sweep is None or not sweep.along:
        return fitted
    price = dict(fitted.parameters)[sweep.parameter]
    parameters = tuple((name, price if name in sweep.along else value) for name, value in fitted.parameters)
    return replace(fitted, parameters=parameters)


def _within_bounds(problem: Problem, candidate: Candidate) -> Candidate:
    bounds = {each.name: each for each in problem.templates[candidate.template].parameters_of(candidate)}
    parameters = tuple((name, bounds[name].default) for name, _ in candidate.parameters)
    return replace(candidate, parameters=parameters)
