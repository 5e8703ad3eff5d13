"""The best allocation there is, and the proof that there is no better one.

The problem and its solution are those of `evolve.knapsack`.

Shapes: L layers (tied ones count once), K formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.allocators import IndexArray, lagrangian_path, log_loss
from evolve.knapsack import EXACT, Problem, solve
from evolve.scoring import ROUNDING, THRESHOLD, FloatArray, check_tables, score

STATE_LIMIT = 10_000
"""Partial sums kept at most; those with the worst bounds go first, and widen the gap."""


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
        bits: Bits per weight of each format, (K,), or of each layer in each format, (L, K).
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
    groups = tied_groups(tied_layers, len(params))
    # Within the margin that scoring grants at the threshold, though not at its very edge.
    limit = 0.9 * ROUNDING - float(np.log(threshold)) if threshold else np.inf
    problem = Problem(
        cost=sum_groups(params[:, None] * widths, groups),
        loss=sum_groups(log_loss(losses), groups),
        limit=limit,
        reward=lambda total_loss: 1 + (np.exp(-total_loss) - threshold) / (1 - threshold),
    )
    choice, bound = solve(problem, state_limit)
    allocation = choice[groups].astype(np.uint8)
    scores = score(allocation, params, widths, losses, threshold)
    fitness = float(scores.fitness[0])
    upper_bound = fitness
    if bound < np.inf:  # the threshold can be reached; an allocation below has at most 0.1 τ
        upper_bound = max(float(32 * params.sum() / bound), 0.1 * threshold)
        upper_bound = fitness if upper_bound <= fitness * (1 + 2 * EXACT) else upper_bound
    retention = float(scores.accuracy_retention[0])
    return Optimum(fitness, upper_bound, allocation, float(scores.compression_ratio[0]), retention)


def frontier(num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the best trade-offs of size and accuracy that a global price can reach, V of them.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,), or of each layer in each format, (L, K).
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
    groups = tied_groups(tied_layers, len(costs))
    limit = loss_budget + ROUNDING * abs(loss_budget)
    problem = Problem(sum_groups(costs, groups), sum_groups(losses, groups), limit, np.ones_like)
    choice, bound = solve(problem, state_limit)
    total_cost, total_loss = problem.totals(choice)
    if bound == np.inf:
        raise ValueError(
            f"budget: expected at least {total_loss}, which nothing undercuts, found {loss_budget}"
        )
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


def tied_groups(tied_layers: Sequence[Sequence[int]], num_layers: int) -> IndexArray:
    """Return for each layer the group it belongs to, (L,); a layer tied to none is a group of its own.

    Raises:
        ValueError: A layer is not there or given twice.
    """
    leaders = np.arange(num_layers)
    free = set(range(num_layers))
    for tied in tied_layers:
        for layer in tied:
            if layer not in free:
                raise ValueError(
                    f"tied_layers: expected each of 0 to {num_layers - 1} at most once, found {layer}"
                )
            free.remove(layer)
            leaders[layer] = tied[0]
    groups: IndexArray = np.unique(leaders, return_inverse=True)[1]
    return groups


def sum_groups(array: FloatArray, groups: IndexArray) -> FloatArray:
    """Return the sums of the rows of each group."""
    sums = np.zeros((groups.max() + 1, array.shape[1]))
    np.add.at(sums, groups, array)
    return sums


def _check_matrix(name: str, array: ArrayLike) -> FloatArray:
    """Return the argument as a float64 matrix, (L, K)."""
    matrix = np.asarray(array, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size or matrix.shape[1] > 256 or not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected finite numbers of shape (L, K), found shape {matrix.shape}")
    return matrix
