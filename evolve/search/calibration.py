"""Numbers for new structures that let them spend as many bits as the rule they were made from.

Whatever changes in a weight or a loss changes its scale too, and the number that trades bits for loss is then
out of place: a good form enters far beyond the cliff, or far before it. How many bits a rule spends can be
told without measuring any loss, so that number is set before the rule is evaluated. It is what
rate-distortion optimisation does with its Lagrange multiplier when it has to keep a rate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evolve.candidates import Candidate
from evolve.parameters import Parameter
from evolve.search.base import Problem

#: Values tried over the number's whole range, and then between the two where the bits are met.
_COARSE, _FINE = 13, 5
#: Bits this near, as a difference of binary logarithms, are the same.
_EQUAL = 1e-9


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
    name, value = next(iter(candidate.parameters), (None, 0.0))
    return math.nan if name is None else problem.spending(candidate, name, [value])[0]


def calibrated(problem: Problem, candidate: Candidate, target: float) -> Candidate | None:
    """Return a candidate with the number that lets it spend as many bits as wanted.

    Args:
        problem: Knows what candidates spend.
        candidate: The rule.
        target: Binary logarithm of the bits a weight that it is to spend; NaN where nobody knows.

    Returns:
        The candidate with another number; None where it has no such number, or none that does.
    """
    swept = swept_number(problem, candidate)
    if swept is None or not math.isfinite(target):
        return None
    bracket = _bracket(problem, candidate, swept, target, np.linspace(0.0, 1.0, _COARSE))
    if bracket is not None:
        between = np.linspace(bracket[0][0], bracket[1][0], _FINE + 2)
        bracket = _bracket(problem, candidate, swept, target, between)
    if bracket is None:
        return None
    low, high = bracket
    share = (target - low[1]) / (high[1] - low[1]) if abs(high[1] - low[1]) > _EQUAL else 0.5
    value = swept.from_unit(low[0] + share * (high[0] - low[0]))
    changed = tuple((name, value if name == swept.name else old) for name, old in candidate.parameters)
    return replace(candidate, parameters=changed)


_Place = tuple[float, float]  # a number in [0, 1] on its own scale, and what the rule spends with it


def _bracket(
    problem: Problem, candidate: Candidate, swept: Parameter, target: float, units: NDArray[np.float64]
) -> tuple[_Place, _Place] | None:
    """Return between which two neighbouring numbers a candidate meets its target; None where it does not.

    Of several such places the one nearest to the number that the candidate has.
    """
    places: list[float] = units.tolist()
    spent = problem.spending(candidate, swept.name, [swept.from_unit(unit) for unit in places])
    own = swept.to_unit(swept.default)
    crossed = [
        (low, high)
        for low, high in pairwise(zip(places, spent, strict=True))
        if min(low[1], high[1]) <= target <= max(low[1], high[1])
    ]
    return min(crossed, key=lambda pair: abs(pair[0][0] + pair[1][0] - 2 * own), default=None)
