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

STATE_LIMIT = 10_000
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
    bound = problem.cost.min(axis=1).sum() / problem.reward(path.losses[:1])[0]
    max_states = min(_NARROW, state_limit)
    while True:
        sweep = _Sweep(problem, path, float(path.slopes[last]), best, max_states)
        sweep.run()
        best, bound = sweep.best, max(bound, min(sweep.value, sweep.dropped))
        if bound >= sweep.value or max_states >= state_limit:
            return best, float(bound)
        max_states = min(10 * max_states, state_limit)


class _Sweep:
    """One dynamic program over the layers.

    Args:
        problem: The problem.
        path: Its Lagrangian path.
        price: Slope of the path at the limit, σ.
        best: The best allocation known, (L,).
        max_states: Partial sums kept at most.

    Attributes:
        best: The best allocation known, now or once run.
        value: Its value.
        dropped: A lower bound on the values of all that was dropped for lack of space.
    """

    def __init__(
        self, problem: _Problem, path: LagrangianPath, price: float, best: IndexArray, max_states: int
    ) -> None:
        self.problem, self.path, self.price, self.max_states = problem, path, price, max_states
        self.best, self.value, self.dropped = best, problem.value(best), np.inf
        self._final_reward = float(problem.reward(np.array([problem.limit]))[0])
        cost, loss = problem.cost, problem.loss
        priced = cost + price * loss
        least = priced.min(axis=1)
        self._rounding = 1e-13 * float(np.abs(least).sum() + abs(price * problem.limit))
        regret = priced - least[:, None]
        self._alive = (regret < self._ceiling() - least.sum()) & ~_dominated(cost, loss)
        # Layers with a single option left need no search; of the others, the clearest cases come first.
        self._settled = self._alive.sum(axis=1) == 1
        open_layers = np.flatnonzero(~self._settled)
        second = np.sort(np.where(self._alive, regret, np.inf), axis=1)[:, :2].max(axis=1)
        self._order = order = open_layers[np.argsort(-second[open_layers], kind="stable")]
        self._start = np.where(self._settled, self._alive.argmax(axis=1), path.start)
        rows = np.flatnonzero(self._settled)
        self._costs = cost[rows, self._start[rows]].sum(keepdims=True)
        self._losses = loss[rows, self._start[rows]].sum(keepdims=True)
        # What the layers after each position of the order add: at least, and at the start of the path.
        self._least_priced = _sums_of_rest(least[order])
        self._least_loss = _sums_of_rest(np.where(self._alive, loss, np.inf).min(axis=1)[order])
        self._start_cost = _sums_of_rest(cost[order, path.start[order]])
        self._start_loss = _sums_of_rest(loss[order, path.start[order]])
        self._steps = ~self._settled[path.layers]  # those of the path in layers still undecided
        self._history: list[tuple[NDArray[np.int32], NDArray[np.uint8]]] = []

    def run(self) -> None:
        """Decide layer after layer."""
        if not self._alive.any(axis=1).all():
            return
        for position, layer in enumerate(self._order, start=1):
            self._branch(position, int(layer))
            if not len(self._costs):
                return
            self._complete(position)

    def _ceiling(self) -> float:
        """Return v·g(limit) + σ·limit, which an improvement stays below."""
        target = self.value - _EXACT * abs(self.value)
        return target * self._final_reward + self.price * self.problem.limit + self._rounding

    def _branch(self, position: int, layer: int) -> None:
        """Extend the partial sums by each option of one more layer, and keep those that matter."""
        options = np.flatnonzero(self._alive[layer])
        parents = len(self._costs)
        costs = np.add.outer(self.problem.cost[layer, options], self._costs).ravel()
        losses = np.add.outer(self.problem.loss[layer, options], self._losses).ravel()
        bounds = costs + self.price * losses + self._least_priced[position]
        within = losses <= self.problem.limit - self._least_loss[position]
        kept = np.flatnonzero(within & (bounds < self._ceiling()))
        kept = kept[_pareto_front(costs[kept], losses[kept])]
        if len(kept) > self.max_states:
            ranked = np.argpartition(bounds[kept], self.max_states)
            best_dropped = float(bounds[kept[ranked[self.max_states :]]].min())
            bound = (best_dropped - self.price * self.problem.limit) / self._final_reward
            self.dropped = min(self.dropped, bound)
            kept = kept[np.sort(ranked[: self.max_states])]
        self._costs, self._losses = costs[kept], losses[kept]
        self._history.append(((kept % parents).astype(np.int32), options[kept // parents].astype(np.uint8)))

    def _complete(self, position: int) -> None:
        """Complete each partial sum by the last vertex of the undecided layers' path within the limit."""
        path, problem = self.path, self.problem
        self._steps &= path.layers != self._order[position - 1]
        costs = np.cumsum(np.append(self._start_cost[position], -path.saved[self._steps]))
        losses = np.cumsum(np.append(self._start_loss[position], path.added[self._steps]))
        vertex = np.searchsorted(losses, problem.limit - self._losses, side="right") - 1
        values = problem.values(self._costs + costs[vertex], self._losses + losses[vertex])
        state = int(np.where(vertex < 0, np.inf, values).argmin())
        if values[state] >= self.value - _EXACT * abs(self.value):
            return
        completed = self._start.copy()
        taken = np.flatnonzero(self._steps)[: vertex[state]]
        completed[path.layers[taken]] = path.options[taken]
        for layer, (parents, options) in zip(self._order[:position][::-1], self._history[::-1], strict=True):
            completed[layer] = options[state]
            state = parents[state]
        value = problem.value(completed)
        if value < self.value:
            self.best, self.value = completed, value


def _sums_of_rest(array: FloatArray) -> FloatArray:
    """Return the sums over all later entries: ``array[i:].sum()`` for i from 0 to its length."""
    return np.append(np.cumsum(array[::-1])[::-1], 0.0)


def _dominated(cost: FloatArray, loss: FloatArray) -> NDArray[np.bool_]:
    """Return which options another one of the same layer makes useless, (L, K)."""
    useless = np.zeros(cost.shape, dtype=bool)
    for option in range(cost.shape[1]):
        dearer, worse = cost - cost[:, [option]], loss - loss[:, [option]]
        strictly = (dearer > 0) | (worse > 0) | (np.arange(cost.shape[1]) > option)
        useless |= (dearer >= 0) & (worse >= 0) & strictly
    return useless


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
