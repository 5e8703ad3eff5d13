"""The best allocation there is, and the proof that there is no better one.

All problems here are one: choose a format k(l) for each layer l so as to

    minimise  C / g(D)  subject to  D ≤ limit,  where  C = Σ cost[l, k(l)]  and  D = Σ loss[l, k(l)],

with g positive, convex and non-increasing. For the fitness of `evolve.scoring`, cost is bits, loss
is −log(1 − sensitivity) and g the reward for accuracy; with g = 1 it is the multiple-choice
knapsack (Sinha and Zoltners 1979). Below, the *value* of an allocation is its C / g(D).

Let H be the lower convex hull of all pairs (D, C). Its vertices are the allocations of the Lagrangian
path. Between two vertices H is linear, so H − v·g is concave: if no vertex has a value below v,
neither has any point between two of them. Hence the best vertex is the optimum, unless a better
allocation lies between the last vertex within the limit and the limit itself. For this stretch a
dynamic program over the layers keeps the partial sums (D, C) that no other dominates (Nemhauser and
Ullmann 1969) and that, continued along the hull of the other layers, can still be an improvement (as
in Pisinger 1995).

Shapes: L layers (tied ones count once), K formats, V vertices, n partial sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.allocators import IndexArray, LagrangianPath, lagrangian_path, log_loss
from evolve.scoring import ROUNDING, THRESHOLD, FloatArray, check_tables, score

STATE_LIMIT = 10_000
"""Partial sums kept at most; those with the worst bounds go first, and widen the gap."""

_EXACT = 1e-12  # relative improvement of a value that is not worth a search


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
        upper_bound = max(float(32 * params.sum() / bound), 0.1 * threshold)
        upper_bound = fitness if upper_bound <= fitness * (1 + 2 * _EXACT) else upper_bound
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


@dataclass(frozen=True, eq=False)
class _Problem:
    """Costs and losses, both (L, K), the limit of the total loss, and the reward g."""

    cost: FloatArray
    loss: FloatArray
    limit: float
    reward: Callable[[FloatArray], FloatArray]

    def totals(self, choice: IndexArray) -> tuple[float, float]:
        """Return the total cost and loss of an allocation, (L,)."""
        rows = np.arange(len(choice))
        return float(self.cost[rows, choice].sum()), float(self.loss[rows, choice].sum())

    def values(self, costs: FloatArray, losses: FloatArray) -> FloatArray:
        """Return the values of total costs and losses of one shape, infinite beyond the limit."""
        reward = self.reward(np.minimum(losses, self.limit))
        return np.where(losses <= self.limit, costs / reward, np.inf)

    def value(self, choice: IndexArray) -> float:
        """Return the value of an allocation, (L,)."""
        return float(self.values(*map(np.asarray, self.totals(choice))))


def _solve(problem: _Problem, state_limit: int) -> tuple[IndexArray, float]:
    """Return the best allocation, (L,), and a lower bound on all values.

    Where the limit is out of reach, these are the allocation of the least loss and infinity.
    """
    path = lagrangian_path(problem.cost, problem.loss)
    values = problem.values(path.costs, path.losses)
    if values[0] == np.inf:
        return path.start, np.inf
    best = path.vertex(int(values.argmin()))
    last = int(np.flatnonzero(values < np.inf)[-1])
    if last == len(path.slopes):
        return best, float(values.min())
    search = _Search(problem, path, last, best, state_limit)
    search.run()
    return search.best, min(search.value, search.dropped)


@dataclass(frozen=True, eq=False)
class _Rest:
    """What the undecided layers can add to a partial sum: the vertices of their own Lagrangian path.

    Attributes:
        steps: Their steps, as indices of the steps of the path of all layers.
        costs: What they add to the cost at each vertex, (V,).
        losses: What they add to the loss at each vertex, (V,).
        slopes: Cost saved per loss added beyond each vertex; at the last one, before it, (V,).
    """

    steps: IndexArray
    costs: FloatArray
    losses: FloatArray
    slopes: FloatArray

    @classmethod
    def of(cls, problem: _Problem, path: LagrangianPath, undecided: NDArray[np.bool_]) -> _Rest:
        """Return the path of the layers marked in ``undecided``, (L,)."""
        rows, steps = np.flatnonzero(undecided), np.flatnonzero(undecided[path.layers])
        start = path.start[rows]
        costs = np.cumsum(np.append(problem.cost[rows, start].sum(), -path.saved[steps]))
        losses = np.cumsum(np.append(problem.loss[rows, start].sum(), path.added[steps]))
        slopes = path.slopes[np.append(steps, steps[-1:])] if len(steps) else np.zeros(1)
        return cls(steps, costs, losses, slopes)


class _Search:
    """The dynamic program over the layers, for what lies beyond the last vertex within the limit.

    Args:
        problem: The problem.
        path: Its Lagrangian path.
        last: The last vertex of the path within the limit.
        best: The best vertex of the path within the limit, as an allocation, (L,).
        max_states: Partial sums kept at most.

    Attributes:
        best: The best allocation found so far, (L,).
        value: Its value.
        dropped: A lower bound on the values of all that was dropped for lack of space.
    """

    def __init__(
        self, problem: _Problem, path: LagrangianPath, last: int, best: IndexArray, max_states: int
    ) -> None:
        self.best, self.value, self.dropped = best, problem.value(best), np.inf
        self._problem, self._path, self._max_states = problem, path, max_states
        self._loss_of_last = path.losses[last]
        self._costs, self._losses = np.zeros((2, 1))  # the partial sums, (n,)
        # Of each layer decided: which partial sum each one extends, (n,), by which option, (n,).
        self._history: list[tuple[int, NDArray[np.int32], NDArray[np.uint8]]] = []

    def run(self) -> None:
        """Decide layer after layer, until no improvement is left to find."""
        # The layers with the most cost at stake come first: the small ones can still make use of any
        # loss that the large ones leave, so that the bounds of partial sums are nearly reached.
        undecided = np.ones(len(self.best), dtype=bool)
        for layer in np.argsort(-np.ptp(self._problem.cost, axis=1), kind="stable"):
            undecided[layer] = False
            rest = _Rest.of(self._problem, self._path, undecided)
            self._branch(int(layer))
            vertices = self._prune(rest)
            if not len(vertices):
                return
            self._complete(rest, vertices)

    def _branch(self, layer: int) -> None:
        """Extend each partial sum by each option of a layer, and keep those that none dominates."""
        costs = np.add.outer(self._problem.cost[layer], self._costs).ravel()
        losses = np.add.outer(self._problem.loss[layer], self._losses).ravel()
        kept = _pareto_front(costs, losses)
        options, parents = np.divmod(kept, len(self._costs))
        self._history.append((layer, parents.astype(np.int32), options.astype(np.uint8)))
        self._costs, self._losses = costs[kept], losses[kept]

    def _prune(self, rest: _Rest) -> IndexArray:
        """Keep the partial sums that can still improve, the most promising ones if they are too many.

        An improvement that starts with the partial sum (C, D) has a total loss of at most ``most`` and,
        as it lies beyond the last vertex, of at least ``least``. Its total cost is above the hull of
        the rest, moved by (C, D), hence above the hull's tangent at ``most``. Between the two, the
        tangent over g is lowest at one of them.

        Returns:
            For each partial sum that is kept, the last vertex of the rest within the limit.
        """
        limit, reward = self._problem.limit, self._problem.reward
        vertices = np.searchsorted(rest.losses, limit - self._losses, side="right") - 1
        most = np.minimum(self._losses + rest.losses[-1], limit)
        least = np.clip(self._losses + rest.losses[0], self._loss_of_last, most)
        slopes = rest.slopes[vertices]
        lowest = self._costs + rest.costs[vertices] - slopes * (most - self._losses - rest.losses[vertices])
        bounds = np.minimum(lowest / reward(most), (lowest + slopes * (most - least)) / reward(least))
        kept = np.flatnonzero((vertices >= 0) & (bounds < self._target()))
        if len(kept) > self._max_states:
            ranked = kept[np.argpartition(bounds[kept], self._max_states)]
            self.dropped = min(self.dropped, float(bounds[ranked[self._max_states :]].min()))
            kept = np.sort(ranked[: self._max_states])
        self._costs, self._losses = self._costs[kept], self._losses[kept]
        layer, parents, options = self._history[-1]
        self._history[-1] = (layer, parents[kept], options[kept])
        kept_vertices: IndexArray = vertices[kept]
        return kept_vertices

    def _complete(self, rest: _Rest, vertices: IndexArray) -> None:
        """Complete each partial sum by a vertex of the rest; adopt the best if it is an improvement."""
        totals = self._costs + rest.costs[vertices], self._losses + rest.losses[vertices]
        values = self._problem.values(*totals)
        state = int(values.argmin())
        if values[state] >= self._target():
            return
        completed = self._path.start.copy()
        steps = rest.steps[: vertices[state]]
        completed[self._path.layers[steps]] = self._path.options[steps]
        for layer, parents, options in reversed(self._history):
            completed[layer] = options[state]
            state = parents[state]
        value = self._problem.value(completed)
        if value < self.value:
            self.best, self.value = completed, value

    def _target(self) -> float:
        """Return what the value of an improvement stays below."""
        return self.value - _EXACT * abs(self.value)


def _pareto_front(costs: FloatArray, losses: FloatArray) -> IndexArray:
    """Return the indices of the pairs that no other pair dominates, by increasing cost."""
    order = np.argsort(costs, kind="stable")
    ordered = losses[order]
    order = order[ordered < np.append(np.inf, np.minimum.accumulate(ordered)[:-1])]
    last_of_its_cost = np.append(np.diff(costs[order]) > 0, True)[: len(order)]
    front: IndexArray = order[last_of_its_cost]
    return front


def _group(tied_layers: Sequence[Sequence[int]], num_layers: int) -> IndexArray:
    """Return for each layer the group it belongs to, (L,)."""
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


def _sum_groups(array: FloatArray, groups: IndexArray) -> FloatArray:
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
