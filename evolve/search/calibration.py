"""Numbers for new structures that let them spend as many bits as the rule they were made from.

Whatever changes in a weight or a loss changes its scale too, and the number that trades bits for loss is then
out of place: a good form enters far beyond the cliff, or far before it. How many bits a rule spends can be
told without measuring any loss, so that number is set before the rule is evaluated. It is what
rate-distortion optimisation does with its Lagrange multiplier when it has to keep a rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from evolve.candidates import Candidate
from evolve.parameters import Parameter
from evolve.search.base import FloatArray, Problem

#: Values tried over the number's whole range, and then between the two where the bits are met.
_COARSE, _FINE = 13, 5
#: Bits this near, as a difference of binary logarithms, are the same.
_EQUAL = 1e-9
#: Significant digits of a number that was multiplied.
_DIGITS = 4


def swept_number(problem: Problem, candidate: Candidate) -> Parameter | None:
    """Return the parameter of a candidate that trades bits for loss, within its own bounds; None if none."""
    template = problem.templates[candidate.template]
    if template.sweep is None:
        return None
    for each in template.parameters_of(candidate):
        if each.name == template.sweep.parameter:
            return each
    return None


def spent_by(problem: Problem, candidate: Candidate) -> float:
    """Return the binary logarithm of the bits a weight that a candidate spends; NaN where nobody knows."""
    if not candidate.parameters:
        return math.nan
    name, value = candidate.parameters[0]
    return float(problem.spending([candidate], name, np.array([[value]]), ())[0, 0])


def calibrated(
    problem: Problem, candidates: Sequence[Candidate], target: float, along: Sequence[str] = ()
) -> list[Candidate]:
    """Return candidates with the number that lets them spend as many bits as wanted.

    Args:
        problem: Knows what candidates spend.
        candidates: Rules of one structure.
        target: Binary logarithm of the bits a weight that they are to spend; NaN where nobody knows.
        along: Other numbers, which change by the same factor.

    Returns:
        The candidates with another number; as they were where they have no such number, or none that does.
    """
    swept = [swept_number(problem, each) for each in candidates]
    if not candidates or swept[0] is None or not math.isfinite(target):
        return list(candidates)
    numbers = [each for each in swept if each is not None]
    coarse = np.tile(np.linspace(0.0, 1.0, _COARSE), (len(candidates), 1))
    brackets = _brackets(problem, candidates, numbers, target, coarse, along)
    # Where the target is out of reach there is nothing to look at more closely.
    if all(each is None for each in brackets):
        return list(candidates)
    between = [(0.0, 0.0) if each is None else (each[0][0], each[1][0]) for each in brackets]
    fine = np.array([np.linspace(low, high, _FINE + 2) for low, high in between])
    found = _brackets(problem, candidates, numbers, target, fine, along)
    return [
        each if coarsely is None or finely is None else _between(each, number, target, *finely, along)
        for each, number, coarsely, finely in zip(candidates, numbers, brackets, found, strict=True)
    ]


_Place = tuple[float, float]  # a number in [0, 1] on its own scale, and what the rule spends with it


def _between(
    candidate: Candidate,
    swept: Parameter,
    target: float,
    low: _Place,
    high: _Place,
    along: Sequence[str],
) -> Candidate:
    share = (target - low[1]) / (high[1] - low[1]) if abs(high[1] - low[1]) > _EQUAL else 0.5
    value = swept.from_unit(low[0] + share * (high[0] - low[0]))
    changed = tuple((name, value if name == swept.name else old) for name, old in candidate.parameters)
    moved = replace(candidate, parameters=changed)
    return moved if not along else with_numbers_scaled(moved, along, value / swept.default)


def with_numbers_scaled(candidate: Candidate, names: Sequence[str], factor: float) -> Candidate:
    """Return a candidate with some of its numbers multiplied by a factor, to a few significant digits."""
    return replace(
        candidate,
        parameters=tuple(
            (name, float(f"{value * factor:.{_DIGITS}g}") if name in names else value)
            for name, value in candidate.parameters
        ),
    )


def _brackets(
    problem: Problem,
    candidates: Sequence[Candidate],
    swept: Sequence[Parameter],
    target: float,
    units: FloatArray,
    along: Sequence[str],
) -> list[tuple[_Place, _Place] | None]:
    """Return between which two neighbouring numbers each candidate meets the target; None where it does not.

    Of several such places the one nearest to the number that the candidate has. Numbers in [0, 1] on their
    own scale are (C, S).
    """
    pairs = list(zip(swept, units.tolist(), strict=True))
    values = np.array([[number.from_unit(unit) for unit in row] for number, row in pairs])
    spent = problem.spending(candidates, swept[0].name, values, along).tolist()
    found = []
    for (number, row), bits in zip(pairs, spent, strict=True):
        own = number.to_unit(number.default)
        crossed = [
            (low, high)
            for low, high in pairwise(zip(row, bits, strict=True))
            if min(low[1], high[1]) <= target <= max(low[1], high[1])
        ]
        found.append(min(crossed, key=lambda pair: abs(pair[0][0] + pair[1][0] - 2 * own), default=None))
    return found
