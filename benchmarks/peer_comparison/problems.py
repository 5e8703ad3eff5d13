"""What every tool is given: a box of numbers to search, and a budget of evaluations.

Shapes: P points, D dimensions, E evaluations of the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Space:
    """Where a tool searches.

    Attributes:
        dimension: D.
        choices: Each dimension is a whole number from 0 to choices − 1; None for a real number in [0, 1].
        population: Points a generation, for the tools that leave it to the user.
    """

    dimension: int
    choices: int | None
    population: int

    @property
    def high(self) -> float:
        """Largest value of each dimension; the least is 0."""
        return 1.0 if self.choices is None else self.choices - 1.0

    def draw(self, generator: np.random.Generator, count: int) -> FloatArray:
        """Draw points uniformly, (count, D)."""
        if self.choices is None:
            return generator.random((count, self.dimension))
        return generator.integers(self.choices, size=(count, self.dimension)).astype(np.float64)

    def first_population(self, start: FloatArray, seed: int) -> FloatArray:
        """Return a population whose first point is the start, the others drawn, (population, D)."""
        drawn = self.draw(np.random.default_rng([seed, 1]), self.population - 1)
        return np.concatenate([start[None], drawn])


class BudgetSpentError(Exception):
    """Every evaluation of the budget is spent: how a tool that knows no end is ended."""


class Recorder:
    """Evaluates points for a tool, counts them, and keeps all values and the best point.

    Args:
        evaluate: Maps points (P, D) to what is maximised, (P,).
        space: The space; points are brought onto it, for a tool that searches a relaxation.
        budget: E, the evaluations allowed.
    """

    def __init__(self, evaluate: Callable[[FloatArray], FloatArray], space: Space, budget: int) -> None:
        self._evaluate, self._space, self.budget = evaluate, space, budget
        self.best_point = np.zeros(space.dimension)
        self._values: list[float] = []
        self._best = -np.inf

    def __call__(self, points: FloatArray) -> FloatArray:
        """Evaluate points.

        Raises:
            BudgetSpentError: The budget is spent; points beyond it were not evaluated.
        """
        matrix = np.clip(np.asarray(points, dtype=np.float64), 0.0, self._space.high)
        matrix = matrix[: self.budget - len(self._values)]
        if self._space.choices is not None:
            matrix = np.rint(matrix)
        values = self._evaluate(matrix)
        if len(values) and values.max() > self._best:
            self._best = float(values.max())
            self.best_point = matrix[values.argmax()].copy()
        self._values += values.tolist()
        if len(self._values) >= self.budget:
            raise BudgetSpentError
        return values

    @property
    def best_so_far(self) -> FloatArray:
        """The best value after each evaluation, (E,); a tool that ended early keeps its last."""
        reached = np.maximum.accumulate(np.array(self._values))
        return np.append(reached, np.full(self.budget - len(reached), reached[-1]))
