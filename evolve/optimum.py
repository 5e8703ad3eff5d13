"""The best allocation there is, and the proof that there is no better one.

All problems here are one: choose a format k(l) for each layer l so as to

    minimise  C / g(D)  subject to  D ≤ limit,  where  C = Σ cost[l, k(l)]  and  D = Σ loss[l, k(l)],

with g positive, convex and non-increasing. For the fitness of `evolve.scoring`, cost is bits, loss
is −log(1 − sensitivity) and g the reward for accuracy; with g = 1 it is the multiple-choice
knapsack (Sinha and Zoltners 1979). Below, the *value* of an allocation is its C / g(D).

Let H be the lower convex hull of all pairs (D, C). Its vertices are the allocations of the Lagrangian
path. Between two vertices H is linear, so H − v·g is concave: if no vertex has a value below v,
neither has any point between two of them. Hence the best vertex is the optimum, unless a better
allocation lies between the last vertex within the limit and the limit itself. With σ the slope of H
there, an allocation with a value below v fulfils

    C + σ·D  <  v·g(limit) + σ·limit.

The left side is a sum over layers. A dynamic program over the layers keeps the partial sums (C, D)
that can still fulfil this and that no other dominates (Nemhauser and Ullmann 1969; Pisinger 1995).

Shapes: L layers (tied ones count once), K formats, n partial sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.allocators import IndexArray, LagrangianPath, lagrangian_path, log_loss
from evolve.scoring import ROUNDING, THRESHOLD, FloatArray, check_tables, score

STATE_LIMIT = 20_000
"""Partial sums kept at most; those with the worst bounds go first, and widen the gap."""

_EXACT = 1e-12  # relative improvement of a value that is not worth a search
_NARROW = 200  # states of a first sweep, whose good allocation makes the next one cheap


@dataclass(frozen=True, eq=False)
class Optimum:
    """The allocation of the highest fitness, and a proof of how good it is.

    Attributes:
        fitness: Fitness of the allocation, as `evolve.scoring` computes it.
        upper_bound: No allocation has a higher fitness than this, up to 1e-12 relative.
        allocation: Format index of each layer, (L,).
        compression_ratio: Of the allocation.
        accuracy_retention: Of the allocation.
    """

    fitness: float
    upper_bound: float
    allocation: NDArray[np.uint8]
    compression_ratio: float
    accuracy_retention: float


@dataclass(frozen=True, eq=False)
class Solution:
    """The best allocation within a budget.

    Attributes:
        cost: Total cost of the allocation.
        loss: Total loss of the allocation.
        bound: No allocation within the budget has less of what was minimised, up to 1e-12 relative.
        allocation: Format index of each layer, (L,).
    """

    cost: float
    loss: float
    bound: float
    allocation: NDArray[np.uint8]


def optimum(
    num_params: ArrayLike,
    bits: ArrayLike,
    sensitivity: ArrayLike,
    threshold: float = THRESHOLD,
    tied_layers: Sequence[Sequence[int]] = (),
    state_limit: int = STATE_LIMIT,
) -> Optimum:
    """Return the allocation of the highest fitness, with its certificate.

    Where no allocation reaches the threshold, that is the one that retains most.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,).
        sensitivity: Loss of accuracy of each layer in each format, (L, K), in [0, 1].
        threshold: Retention at the cliff, in [0, 1).
        tied_layers: Groups of layers that share one format.
        state_limit: Partial sums kept at most: limits time and memory, never the validity of the bound.

    Raises:
        ValueError: A shape or a value is wrong.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold: expected a number in [0, 1), found {threshold!r}")
    groups = _group(tied_layers, len(params))
    # Within the margin that scoring grants at the threshold, though not at its very edge.
    limit = 0.9 * ROUNDING - float(np.log(threshold)) if threshold else np.inf
    problem = _Problem(
        cost=_sum_groups(params[:, None] * widths, groups),
        loss=_sum_groups(log_loss(losses), groups),
        limit=limit,
        reward=lambda total_loss: 1 + (np.exp(-total_loss) - threshold) / (1 - threshold),
    )
    choice, bound = _solve(problem, state_limit)
    allocation = choice[groups].astype(np.uint8)
    scores = score(allocation, params, widths, losses, threshold)
    fitness = float(scores.fitness[0])
    upper_bound = fitness
    if bound < np.inf:  # the threshold can be reached; an allocation below has at most 0.1 τ
        upper_bound = max(fitness, float(32 * params.sum() / bound), 0.1 * threshold)
    retention = float(scores.accuracy_retention[0])
    return Optimum(fitness, upper_bound, allocation, float(scores.compression_ratio[0]), retention)


def frontier(num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the best trade-offs of size and accuracy that a global price can reach, V of them.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,).
        sensitivity: Loss of accuracy of each layer in each format, (L, K), in [0, 1].

    Returns:
        Average bits per weight, (V,), decreasing, and accuracy retention, (V,), decreasing.

    Raises:
        ValueError: A shape or a value is wrong.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    path = lagrangian_path(params[:, None] * widths, log_loss(losses))
    return path.costs / params.sum(), np.exp(-path.losses)


def minimise_cost(
    cost: ArrayLike,
    loss: ArrayLike,
    loss_budget: float,
    tied_layers: Sequence[Sequence[int]] = (),
    state_limit: int = STATE_LIMIT,
) -> Solution:
    """Return the allocation of the least total cost whose total loss is within a budget.

    Args:
        cost: Cost of each layer in each format, (L, K), in any unit: bits, milliseconds, joules.
        loss: Loss of each layer in each format, (L, K), in any unit that adds up.
        loss_budget: Largest total loss allowed, give or take 1e-12 relative for rounding.
        tied_layers: Groups of layers that share one format.
        state_limit: Partial sums kept at most: limits time and memory, never the validity of the bound.

    Raises:
        ValueError: A shape or a value is wrong, or no allocation is within the budget.
    """
    costs, losses = _check_matrix("cost", cost), _check_matrix("loss", loss)
    if costs.shape != losses.shape:
        raise ValueError(f"loss: expected shape (L, K) = {costs.shape}, found {losses.shape}")
    groups = _group(tied_layers, len(costs))
    limit = loss_budget + ROUNDING * abs(loss_budget)
    problem = _Problem(_sum_groups(costs, groups), _sum_groups(losses, groups), limit, np.ones_like)
    choice, bound = _solve(problem, state_limit)
    total_cost, total_loss = problem.totals(choice)
    if bound == np.inf:
        raise ValueError(f"budget: expected at least {total_loss}, which nothing undercuts, found {loss_budget}")
    return Solution(total_cost, total_loss, bound, choice[groups].astype(np.uint8))


def minimise_loss(
    cost: ArrayLike,
    loss: ArrayLike,
    cost_budget: float,
    tied_layers: Sequence[Sequence[int]] = (),
    state_limit: int = STATE_LIMIT,
) -> Solution:
    """Return the allocation of the least total loss whose total cost is within a budget.

    Arguments, result and errors are those of `minimise_cost`, cost and loss exchanged.
    """
    solution = minimise_cost(loss, cost, cost_budget, tied_layers, state_limit)
    return Solution(solution.loss, solution.cost, solution.bound, solution.allocation)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Costs and losses (L, K), the limit of the total loss, and the reward g."""

    cost: FloatArray
    loss: FloatArray
    limit: float
    reward: Callable[[FloatArray], FloatArray]

    def totals(self, choice: IndexArray) -> tuple[float, float]:
        """Return the total cost and loss of an allocation, (L,)."""
        rows = np.arange(len(choice))
        return float(self.cost[rows, choice].sum()), float(self.loss[rows, choice].sum())

    def values(self, costs: FloatArray, losses: FloatArray) -> FloatArray:
        """Return the values of total costs and losses of any shape, infinite beyond the limit."""
        reward = self.reward(np.minimum(losses, self.limit))
        return np.where(losses <= self.limit, costs / reward, np.inf)


def _solve(problem: _Problem, state_limit: int) -> tuple[IndexArray, float]:
    """Return the best allocation, and a lower bound on its value: infinite where the limit is out of reach."""
    path = lagrangian_path(problem.cost, problem.loss)
    values = problem.values(path.costs, path.losses)
    if values[0] == np.inf:
        return path.start, np.inf
    best = path.vertex(int(values.argmin()))
    value = float(values.min())
    within = int(np.flatnonzero(values < np.inf)[-1])
    if within == len(path.slopes):
        return best, value
    best = _improve_single_layers(problem, best)
    bound = -np.inf
    states = min(_NARROW, state_limit)
    while True:
        sweep = _Sweep(problem, path, float(path.slopes[within]), best, states)
        best = sweep.run()
        bound = max(bound, sweep.bound)
        if bound >= sweep.target or states >= state_limit:
            return best, bound
        states = min(10 * states, state_limit)
