"""The best allocation within what people have: a size, a latency, a floor of the retained accuracy.

Every question is one: the least of one cost with others within budgets. With one budget it is the
knapsack of `evolve.optimum`. With several, the least of each budget alone is a bound; where none
of these allocations keeps all budgets, an integer program by SciPy's HiGHS finds one that does,
and its dual bound says how good it can be.

Shapes: L layers, K formats, G groups of layers that share one format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import IndexArray
from evolve.budgets import Budget, Cost
from evolve.errors import BudgetError
from evolve.fields import Words
from evolve.knapsack import Problem, solve
from evolve.optimum import STATE_LIMIT, minimise_cost, sum_groups, tied_groups
from evolve.profiles import ModelProfile
from evolve.scoring import ROUNDING, THRESHOLD, FloatArray, cliff_fitness

Choices = NDArray[np.uint8]
Ties = Sequence[Sequence[int]]

PROVEN = 1e-9
"""Relative distance from the bound that counts as none: what HiGHS resolves."""
TIME_LIMIT = 30.0
"""Seconds the integer program may take; what it has by then is handed out with its bound."""

# HiGHS has absolute tolerances of about 1e-6: what counts is made this large.
_LARGE = 1e4
# How SciPy says that the time was up.
_OUT_OF_TIME = 1
# Allocations that these tolerances let through although they are above a budget, and that are then ruled out.
_MOST_CUTS = 100


@dataclass(frozen=True, eq=False)
class Best:
    """The best allocation of a question, and how good any could be.

    Attributes:
        choices: Format index of each layer, (L,).
        value: What was minimised, in the unit of its table; for the cliff, the fitness.
        bound: No allocation within the budgets is better than this.
    """

    choices: Choices
    value: float
    bound: float

    @property
    def proven(self) -> bool:
        """Whether no allocation is better, up to rounding."""
        return abs(self.value - self.bound) <= PROVEN * abs(self.value)


def cliff(profile: ModelProfile, threshold: float = THRESHOLD) -> Best:
    """Return the allocation of the highest fitness of `evolve.scoring`, ties and each layer's own bits kept.

    Args:
        profile: The model.
        threshold: Retention at the cliff, in (0, 1).
    """
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    size = profile.num_params[:, None] * profile.bits_table
    problem = Problem(
        cost=sum_groups(size, groups),
        loss=sum_groups(profile.loss, groups),
        limit=0.9 * ROUNDING - float(np.log(threshold)),
        reward=lambda loss: 1 + (np.exp(-loss) - threshold) / (1 - threshold),
    )
    choice, least = solve(problem, STATE_LIMIT)
    cost, loss = problem.totals(choice)
    raw = 32.0 * profile.total_params
    value = float(cliff_fitness(raw / cost, np.exp(-loss), threshold))
    # Below the cliff an allocation has at most 0.1 τ; where it is out of reach, the best retains most.
    bound = value if least == np.inf else max(raw / least, 0.1 * threshold, value)
    return Best(choice[groups].astype(np.uint8), value, bound)


def best_within(goal: Cost, budgets: Sequence[Budget], ties: Ties = ()) -> Best:
    """Return the allocation of the least total cost within budgets, with a bound.

    Args:
        goal: What is minimised.
        budgets: What is limited.
        ties: Groups of layers that share one format.

    Raises:
        BudgetError: Nothing keeps the budgets; says which one and the least it would have to be.
    """
    best = _least(goal.table, budgets, ties)
    if best is None:
        raise _infeasible(budgets, ties)
    # A search that was cut short may have missed it; one format everywhere is the least to expect.
    uniform = best_uniform(goal, budgets)
    if uniform is not None and goal.total(uniform) < best.value:
        return Best(uniform, goal.total(uniform), best.bound)
    return best


def best_uniform(goal: Cost, budgets: Sequence[Budget]) -> Choices | None:
    """Return the best allocation within budgets with one format everywhere, (L,); None if there is none."""
    num_layers, num_formats = goal.table.shape
    every = [np.full(num_layers, index, dtype=np.uint8) for index in range(num_formats)]
    fitting = [each for each in every if keeps(each, budgets)]
    return min(fitting, key=goal.total) if fitting else None


def keeps(choices: Choices, budgets: Sequence[Budget]) -> bool:
    """Return whether an allocation, (L,), is within all budgets, give or take rounding."""
    return all(each.cost.total(choices) <= _limit(each) for each in budgets)


def _limit(budget: Budget) -> float:
    return budget.most + ROUNDING * abs(budget.most)


def _least(table: FloatArray, budgets: Sequence[Budget], ties: Ties) -> Best | None:
    """Return the allocation of the least sum of a table within budgets, None if there is none."""
    groups = tied_groups(ties, len(table))
    if not budgets:
        choices = sum_groups(table, groups).argmin(axis=1)[groups].astype(np.uint8)
        value = Cost("", table).total(choices)
        return Best(choices, value, value)
    if any(sum_groups(each.cost.table, groups).min(axis=1).sum() > _limit(each) for each in budgets):
        return None
    alone = []
    for each in budgets:
        found = minimise_cost(table, each.cost.table, each.most, ties)
        alone.append(Best(found.allocation, found.cost, found.bound))
    bound = max(each.bound for each in alone)
    # One that keeps the other budgets too is the best of all: with fewer budgets nothing is better.
    for best in sorted(alone, key=lambda each: each.value):
        if keeps(best.choices, budgets):
            return Best(best.choices, best.value, min(bound, best.value))
    return _integer_program(table, budgets, groups, bound)


def _integer_program(
    table: FloatArray, budgets: Sequence[Budget], groups: IndexArray, bound: float
) -> Best | None:
    """Return the least sum within several budgets, None if there is none; ``bound`` is known already."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    goal = sum_groups(table, groups)
    possible = np.ones(goal.shape, dtype=bool)
    one_each = np.kron(np.eye(len(goal)), np.ones(goal.shape[1]))
    rows = [LinearConstraint(one_each, 1, 1)]
    for each in budgets:
        cost = sum_groups(each.cost.table, groups)
        above = cost - cost.min(axis=1, keepdims=True)
        left = max(_limit(each) - float(cost.min(axis=1).sum()), 0.0)
        # Whatever alone is above the budget is out; the rest is of the budget's own magnitude.
        possible &= above <= left
        scale = _LARGE / left if left else 1.0
        rows.append(LinearConstraint(np.where(above <= left, above, 0.0).ravel() * scale, ub=left * scale))
    if not possible.any(axis=1).all():
        return None
    least = np.where(possible, goal, np.inf).min(axis=1, keepdims=True)
    base = float(least.sum())
    scale = _LARGE / max(bound - base, float(np.where(possible, goal - least, 0.0).max()) / _LARGE, 1e-300)
    for _ in range(_MOST_CUTS):
        found = milp(
            np.where(possible, goal - least, 0.0).ravel() * scale,
            integrality=np.ones(goal.size),
            bounds=Bounds(0, possible.ravel().astype(np.float64)),
            constraints=rows,
            options={"mip_rel_gap": 0, "time_limit": TIME_LIMIT},
        )
        dual = getattr(found, "mip_dual_bound", None)
        if dual is not None and np.isfinite(dual):
            bound = max(bound, base + dual / scale)
        if found.x is None:
            # Out of time, the best uniform format is all there is; else nothing keeps the budgets.
            return _uniform_instead(table, budgets, bound) if found.status == _OUT_OF_TIME else None
        choice: IndexArray = np.asarray(found.x).reshape(goal.shape).argmax(axis=1)
        choices = choice[groups].astype(np.uint8)
        if keeps(choices, budgets):
            value = Cost("", table).total(choices)
            return Best(choices, value, min(bound, value))
        if found.status == _OUT_OF_TIME:
            break
        picked = np.zeros(goal.shape)
        picked[np.arange(len(goal)), choice] = 1
        rows.append(LinearConstraint(picked.ravel(), ub=len(goal) - 1))
    return _uniform_instead(table, budgets, bound)


def _uniform_instead(table: FloatArray, budgets: Sequence[Budget], bound: float) -> Best | None:
    goal = Cost("", table)
    uniform = best_uniform(goal, budgets)
    return None if uniform is None else Best(uniform, goal.total(uniform), bound)


def _infeasible(budgets: Sequence[Budget], ties: Ties) -> BudgetError:
    """Return the error that names the first budget out of reach, and the least it would have to be."""
    for count, budget in enumerate(budgets):
        before = budgets[:count]
        least = _least(budget.cost.table, before, ties)
        if least is not None and least.value > _limit(budget):
            others = _others(before)
            return BudgetError(
                f"nothing keeps this budget{others}",
                field=budget.cost.name,
                expected=f"{_side(budget)} {budget.cost.reachable(least.value)}",
                found=Words(budget.cost.words(budget.most)),
            )
    names = ", ".join(each.cost.name for each in budgets)
    return BudgetError("no allocation found that keeps all budgets", field=names, cure="Widen one of them.")


def _side(budget: Budget) -> str:
    return "at most" if budget.cost.name == "retention" else "at least"


def _others(budgets: Sequence[Budget]) -> str:
    words = " and ".join(f"{each.cost.name} {each.cost.words(each.most)}" for each in budgets)
    return f" with {words}" if budgets else ""
