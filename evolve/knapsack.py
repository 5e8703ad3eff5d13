"""The multiple-choice knapsack, exactly: a Lagrangian path, then a dynamic program where it can be beaten.

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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import IndexArray, LagrangianPath, lagrangian_path
from evolve.scoring import FloatArray

EXACT = 1e-12  # relative improvement of a value that is not worth a search


@dataclass(frozen=True, eq=False)
class Problem:
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


def solve(problem: Problem, state_limit: int) -> tuple[IndexArray, float]:
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
    def of(cls, problem: Problem, path: LagrangianPath, undecided: NDArray[np.bool_]) -> _Rest:
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
        self, problem: Problem, path: LagrangianPath, last: int, best: IndexArray, max_states: int
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
        kept = undominated(costs, losses)
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
        return self.value - EXACT * abs(self.value)


def undominated(costs: FloatArray, losses: FloatArray) -> IndexArray:
    """Return the indices of the pairs that no other pair dominates, by increasing cost."""
    order = np.argsort(costs, kind="stable")
    ordered = losses[order]
    order = order[ordered < np.append(np.inf, np.minimum.accumulate(ordered)[:-1])]
    last_of_its_cost = np.append(np.diff(costs[order]) > 0, True)[: len(order)]
    front: IndexArray = order[last_of_its_cost]
    return front
