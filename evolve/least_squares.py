"""Nonlinear least squares within bounds, the same to the last bit on every processor.

Libraries of linear algebra add up in the order that suits the processor. Where a sum of squares is flat, and
that of a rule with two numbers for one is, the little that this changes decides where a fit ends. Here sums
go in one order.

Shapes: F numbers, R residuals.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
#: Returns (R,) residuals at (F,) numbers, and their (F, R) derivatives.
Residuals = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

#: Damping at first, its bounds, and by what it falls after a good step and rises after a poor one.
_DAMPING, _LEAST, _MOST = 1e-2, 1e-9, 1e9
_LESS, _MORE = 0.1, 8.0
#: A step goes by this at most, and so far towards a bound: at the bound itself nothing may change any more.
_LONGEST, _NEARER = 0.25, 0.9
#: A step is good or poor by what part it gains of what the slopes promise.
_GOOD, _POOR = 0.5, 0.1


def least_squares(
    residuals: Residuals,
    start: FloatArray,
    low: FloatArray,
    high: FloatArray,
    *,
    most_calls: int,
    least_gain: float,
) -> FloatArray | None:
    """Return the (F,) numbers of a small sum of squares; None where there is none at the start.

    The method is that of Levenberg and Marquardt (Marquardt 1963). Steps stay within the bounds, as in
    interior methods (Coleman & Li 1996), and are short where numbers have a range of 1.

    Args:
        residuals: What is to be small.
        start: (F,) numbers to begin at, within the bounds.
        low: (F,) lower bounds.
        high: (F,) upper bounds.
        most_calls: Calls of the residuals at most.
        least_gain: Relative gain of a step below which it is the last.
    """
    place, damping = start, _DAMPING
    found, slopes = residuals(place)
    cost = float((found * found).sum())
    if not math.isfinite(cost):
        return None
    renewed = True
    for _ in range(most_calls - 1):
        if renewed:
            squares, gradient = _sums(found, slopes)
        step = _step(squares, gradient, low - place, high - place, damping)
        promised = -float((2.0 * gradient * step).sum() + (squares * step * step[:, None]).sum())
        trial = place + step
        there, slopes_there = residuals(trial)
        reached = float((there * there).sum())
        gained = cost - reached
        renewed = gained > 0.0
        if not renewed:
            if damping >= _MOST:
                break
            damping *= _MORE
            continue
        place, found, slopes, cost = trial, there, slopes_there, reached
        if gained > _GOOD * promised:
            if gained < least_gain * (cost + gained):
                break
            damping = max(_LEAST, damping * _LESS)
        elif gained < _POOR * promised:
            damping *= _MORE
    return place


def _sums(found: FloatArray, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the (F, F) products of the derivatives with each other, and the (F,) with the residuals."""
    squares = np.empty((len(slopes), len(slopes)))
    for index, each in enumerate(slopes):
        squares[index, index:] = squares[index:, index] = (slopes[index:] * each).sum(axis=1)
    return squares, (slopes * found).sum(axis=1)


def _step(
    squares: FloatArray, gradient: FloatArray, below: FloatArray, above: FloatArray, damping: float
) -> FloatArray:
    """Return a damped step within its limits; the number farthest out is stopped first, the rest go on."""
    step = np.zeros(len(gradient))
    own = squares.diagonal()
    free = (own > 0.0) & np.isfinite(own)
    least, most = np.maximum(_NEARER * below, -_LONGEST), np.minimum(_NEARER * above, _LONGEST)
    for _ in range(len(step)):
        chosen = np.flatnonzero(free)
        if not chosen.size:
            break
        right = -(gradient + (squares * np.where(free, 0.0, step)).sum(axis=1))
        step[chosen] = _solve(squares[np.ix_(chosen, chosen)], right[chosen], damping)
        limits = np.where(step > 0.0, most, least)
        excess = np.where(free, np.abs(step) - np.abs(limits), 0.0)
        worst = int(excess.argmax())
        if not excess[worst] > 0.0:
            break
        step[worst] = limits[worst]
        free[worst] = False
    return step


def _solve(squares: FloatArray, right: FloatArray, damping: float) -> list[float]:
    """Solve a positive definite system whose diagonal is raised by a part of its largest element."""
    rows = [[float(each) for each in row] for row in squares]
    size = len(rows)
    factor = [[0.0] * size for _ in rows]
    raised = damping * max(rows[place][place] for place in range(size))
    for i in range(size):
        for j in range(i):
            known = sum(a * b for a, b in zip(factor[i][:j], factor[j][:j], strict=True))
            factor[i][j] = (rows[i][j] - known) / factor[j][j]
        pivot = rows[i][i] + raised - sum(each * each for each in factor[i][:i])
        # Rounding may leave nothing of it.
        factor[i][i] = math.sqrt(max(pivot, 0.5 * raised))
    values: list[float] = []
    for i in range(size):
        known = sum(a * b for a, b in zip(factor[i][:i], values, strict=True))
        values.append((float(right[i]) - known) / factor[i][i])
    for i in reversed(range(size)):
        known = sum(factor[j][i] * values[j] for j in range(i + 1, size))
        values[i] = (values[i] - known) / factor[i][i]
    return values
