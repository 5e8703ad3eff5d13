"""Classical allocators: what one does for a model without a search.

Shapes: L layers, K formats, V vertices of the Lagrangian path. Allocations are format indices, (L,)
uint8. Loss is any harm that adds up over layers; of a sensitivity it is −log(1 − sensitivity).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.scoring import THRESHOLD, FloatArray, check_tables, cliff_fitness, score

Allocation = NDArray[np.uint8]
IndexArray = NDArray[np.intp]

_HOPELESS = 800.0  # exp(-800) = 0: stands for the infinite loss of a layer that retains nothing
_STEEP = 1e200  # slopes beyond are as good as infinite, and would turn into nan


def uniform(
    num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike, threshold: float = THRESHOLD
) -> Allocation:
    """Return the allocation of the highest fitness that puts all layers in one format.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,), or of each layer in each format, (L, K).
        sensitivity: Loss of accuracy of each layer in each format, (L, K), in [0, 1].
        threshold: Retention at the cliff, in [0, 1).

    Raises:
        ValueError: A shape or a value is wrong.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    candidates = np.repeat(np.arange(losses.shape[1], dtype=np.uint8)[:, None], len(params), axis=1)
    best: Allocation = candidates[score(candidates, params, widths, losses, threshold).fitness.argmax()]
    return best


def greedy(
    num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike, threshold: float = THRESHOLD
) -> Allocation:
    """Return what lowering one layer at a time reaches, the least loss per bit saved first.

    All layers start in the widest format. Each step puts one layer in its next narrower format; the
    first step that does not raise the fitness is undone and ends it. Of formats of equal bits, each
    layer uses the one of the least loss. Arguments and errors are those of `uniform`.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    cost, loss = params[:, None] * widths, log_loss(losses)
    ladders: list[IndexArray] = []  # each layer's formats from wide to narrow
    waiting: list[tuple[float, int, int]] = []  # each layer's next step: loss per bit, layer, rung

    def wait(layer: int, rung: int) -> None:
        if rung < len(ladders[layer]):
            wide, narrow = ladders[layer][rung - 1 : rung + 1]
            saved, added = cost[layer, wide] - cost[layer, narrow], loss[layer, narrow] - loss[layer, wide]
            heapq.heappush(waiting, (added / saved if saved else np.inf, layer, rung))

    widths = np.broadcast_to(widths, losses.shape)
    for layer, (layer_loss, own) in enumerate(zip(loss, widths, strict=True)):
        order = np.lexsort((layer_loss, -own))
        ladders.append(order[np.append(True, np.diff(own[order]) != 0)])
        wait(layer, 1)
    allocation = np.array([ladder[0] for ladder in ladders], dtype=np.uint8)
    rows = np.arange(len(params))
    layers, narrower = [], []
    bits_left, losses_so_far = [cost[rows, allocation].sum()], [loss[rows, allocation].sum()]
    while waiting:
        _, layer, rung = heapq.heappop(waiting)
        wide, narrow = ladders[layer][rung - 1 : rung + 1]
        layers.append(layer)
        narrower.append(narrow)
        bits_left.append(bits_left[-1] + cost[layer, narrow] - cost[layer, wide])
        losses_so_far.append(losses_so_far[-1] + loss[layer, narrow] - loss[layer, wide])
        wait(layer, rung + 1)
    retention = np.exp(-np.array(losses_so_far))
    fitness = cliff_fitness(32 * params.sum() / np.array(bits_left), retention, threshold)
    end = int(np.append(np.diff(fitness) > 0, False).argmin())
    for layer, narrow in zip(layers[:end], narrower[:end], strict=True):
        allocation[layer] = narrow
    return allocation


def lagrangian(num_params: ArrayLike, bits: ArrayLike, loss: ArrayLike, price: float) -> Allocation:
    """Return the best format of each layer at one global price (Shoham and Gersho 1988).

    Each layer minimises ``share * bits + price * loss``, its share being its part of all weights.
    Ties go to the format listed first.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,).
        loss: Loss of each layer in each format, (L, K).
        price: Average bits per weight of the whole model that one unit of loss is worth.

    Raises:
        ValueError: The shapes do not fit.
    """
    params, widths = np.asarray(num_params, dtype=np.float64), np.asarray(bits, dtype=np.float64)
    losses = np.asarray(loss, dtype=np.float64)
    if losses.shape != (len(params), len(widths)):
        raise ValueError(f"loss: expected shape (L, K) = {(len(params), len(widths))}, found {losses.shape}")
    share = params / params.sum()
    choice: IndexArray = (share[:, None] * widths + price * losses).argmin(axis=1)
    return choice.astype(np.uint8)


def best_lagrangian(
    num_params: ArrayLike, bits: ArrayLike, sensitivity: ArrayLike, threshold: float = THRESHOLD
) -> Allocation:
    """Return the allocation of the highest fitness that one global price can reach.

    It is the optimum unless the optimum sits at the cliff. Arguments and errors are those of `uniform`.
    """
    params, widths, losses = check_tables(num_params, bits, sensitivity)
    path = lagrangian_path(params[:, None] * widths, log_loss(losses))
    fitness = cliff_fitness(32 * params.sum() / path.costs, np.exp(-path.losses), threshold)
    return path.vertex(int(fitness.argmax())).astype(np.uint8)


def integer_program(
    num_params: ArrayLike, bits: ArrayLike, loss_proxy: ArrayLike, loss_budget: float
) -> Allocation:
    """Return the allocation of the fewest bits within a loss budget, by integer programming.

    As in HAWQ-V3 (Yao 2021), solved by SciPy's HiGHS; `evolve.optimum.minimise_cost` is faster.

    Args:
        num_params: Weights per layer, (L,).
        bits: Bits per weight of each format, (K,).
        loss_proxy: Estimated loss of each layer in each format, (L, K), ≥ 0.
        loss_budget: Largest total loss allowed, give or take 1e-10 relative.

    Raises:
        ValueError: No allocation is within the budget.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    params, widths = np.asarray(num_params, dtype=np.float64), np.asarray(bits, dtype=np.float64)
    losses = np.asarray(loss_proxy, dtype=np.float64)
    num_layers, num_formats = losses.shape
    # HiGHS has absolute tolerances of about 1e-6: the objective and the budget are made large.
    cost = params[:, None] * widths * (1e6 / (params.sum() * widths.max()))
    scale = 1e4 / (loss_budget or 1.0)
    one_format_each = np.kron(np.eye(num_layers), np.ones(num_formats))
    result = milp(
        cost.ravel(),
        integrality=np.ones(losses.size),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_format_each, 1, 1),
            LinearConstraint(losses.ravel() * scale, ub=loss_budget * scale),
        ],
        options={"mip_rel_gap": 0},
    )
    if result.x is None:
        least = losses.min(axis=1).sum()
        raise ValueError(f"loss_budget: expected at least {least}, found {loss_budget}; {result.message}")
    choice: IndexArray = np.asarray(result.x).reshape(losses.shape).argmax(axis=1)
    return choice.astype(np.uint8)


def log_loss(sensitivity: FloatArray) -> FloatArray:
    """Return −log(1 − sensitivity), which adds up over layers; finite even at sensitivity 1."""
    with np.errstate(divide="ignore"):
        return np.minimum(-np.log1p(-sensitivity), _HOPELESS)


@dataclass(frozen=True, eq=False)
class LagrangianPath:
    """All that one global price can reach, from the least loss to the least cost.

    Each vertex is an allocation; they are the corners of the lower convex hull of all pairs of total
    loss and total cost. Each step from a vertex to the next changes one layer.

    Attributes:
        start: The first vertex, the cheapest allocation of the least loss, (L,).
        layers: The layer that each step changes, (V − 1,).
        options: The format it gets, (V − 1,).
        saved: Cost that each step saves, (V − 1,), > 0.
        added: Loss that each step adds, (V − 1,), > 0.
        slopes: Cost saved per loss added, (V − 1,), non-increasing.
        costs: Total cost at each vertex, (V,).
        losses: Total loss at each vertex, (V,).
    """

    start: IndexArray
    layers: IndexArray
    options: IndexArray
    saved: FloatArray
    added: FloatArray
    slopes: FloatArray
    costs: FloatArray
    losses: FloatArray

    def vertex(self, index: int) -> IndexArray:
        """Return the allocation at a vertex, (L,)."""
        choice = self.start.copy()
        choice[self.layers[:index]] = self.options[:index]  # of a layer's steps the last one counts
        return choice


def lagrangian_path(cost: FloatArray, loss: FloatArray) -> LagrangianPath:
    """Return the vertices that a global price sweeps (Everett 1963; Shoham and Gersho 1988).

    Args:
        cost: Cost of each layer in each format, (L, K).
        loss: Loss of each layer in each format, (L, K).
    """
    rows = np.arange(len(cost))
    start = current = np.where(loss == loss.min(axis=1, keepdims=True), cost, np.inf).argmin(axis=1)
    last_slope = np.full(len(cost), np.inf)
    none = np.zeros(0)
    steps = [(none.astype(np.intp), none.astype(np.intp), none, none, none)]
    while True:
        saved = cost[rows, current][:, None] - cost
        added = loss - loss[rows, current][:, None]
        with np.errstate(all="ignore"):
            slope = np.where((saved > 0) & (added > 0), np.minimum(saved / added, _STEEP), 0.0)
        steepest = slope.max(axis=1)
        moving = np.flatnonzero(steepest)
        if not len(moving):
            break
        option = np.where(slope == steepest[:, None], added, -1.0).argmax(axis=1)
        last_slope = np.minimum(last_slope, steepest)  # rounding must not reverse a layer's steps
        at = (moving, option[moving])
        steps.append((*at, saved[at], added[at], last_slope[moving]))
        current = np.where(steepest > 0, option, current)
    layers, options, saved, added, slopes = (np.concatenate(parts) for parts in zip(*steps, strict=True))
    order = np.argsort(-slopes, kind="stable")
    saved, added = saved[order], added[order]
    costs = np.cumsum(np.append(cost[rows, start].sum(), -saved))
    losses = np.cumsum(np.append(loss[rows, start].sum(), added))
    return LagrangianPath(start, layers[order], options[order], saved, added, slopes[order], costs, losses)
