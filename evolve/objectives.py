"""What a search maximises beside the cliff: how near a rule comes to the best within budgets of bits.

Under ``cliff`` a rule is one allocation a model, and its fitness is that of `evolve.scoring`. Under
``budgets:2.5,3,4`` it is a family: one of its parameters, the price, trades bits for loss, and for each
model and budget of average bits the family gives the allocation of most bits within the budget. What
counts is the least loss that any allocation within the budget has, over the loss of that allocation.

Under ``relaxed:2.5,3,4`` a budget is kept on average: the loss is interpolated between the allocations next
to the budget on both sides, as is the least possible one. This is the Lagrangian relaxation (Everett 1963).
It judges the order in which a rule spends bits, and not where its corners happen to lie.

Shapes: M models, B budgets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import lagrangian_path
from evolve.budgets import AVG_BITS, Budget, Cost, loss_of
from evolve.constraints import Best, best_within
from evolve.errors import BudgetError, InputError
from evolve.optimum import sum_groups, tied_groups
from evolve.profiles import ModelProfile
from evolve.scoring import ROUNDING

FloatArray = NDArray[np.float64]

#: The objective of every run that names no other.
CLIFF = "cliff"
_BUDGETS, _RELAXED = "budgets", "relaxed"
_EXPECTED = (
    f"{CLIFF}, or {_BUDGETS}: or {_RELAXED}: and increasing average bits with commas, "
    f"as in {_BUDGETS}:2.5,3,4"
)

LOSS_FLOOR = 1e-4
"""A loss that nobody can tell from none, in nats.

It is added to both sides of a share, so that a rule is not judged by how it halves what no measurement
on held-out data would show.
"""


@dataclass(frozen=True)
class Budgets:
    """What families are judged within.

    Attributes:
        bits: Budgets of average bits per weight, increasing, (B,).
        relaxed: Whether budgets may be kept on average, by two allocations in turn.
    """

    bits: tuple[float, ...]
    relaxed: bool = False

    def __str__(self) -> str:
        """Return the objective as it is written."""
        kind = _RELAXED if self.relaxed else _BUDGETS
        return f"{kind}:{','.join(f'{each:.12g}' for each in self.bits)}"


def parse_objective(text: str) -> Budgets | None:
    """Return the budgets that an objective names, None for the cliff.

    Raises:
        InputError: It is no objective.
    """
    if text == CLIFF:
        return None
    kind, _, numbers = text.partition(":")
    try:
        bits = tuple(float(each) for each in numbers.split(","))
    except ValueError:
        bits = ()
    rising = all(low < high for low, high in zip((0.0, *bits), bits, strict=False))
    if kind not in (_BUDGETS, _RELAXED) or not bits or not rising or not math.isfinite(bits[-1]):
        raise InputError("unknown objective", field="objective", expected=_EXPECTED, found=text)
    return Budgets(bits, kind == _RELAXED)


def best_allocation(profile: ModelProfile, bits: float) -> Best | None:
    """Return the allocation of the least loss within a budget of average bits, None if there is none.

    Losses add up over the layers, ties and each layer's own bits are kept, and the solver is exact:
    `evolve.constraints.best_within`.
    """
    cost = Cost(AVG_BITS, profile.num_params[:, None] * profile.bits_table, "bits", profile.total_params)
    try:
        return best_within(loss_of(profile), [Budget(cost, bits * profile.total_params)], profile.tied_layers)
    except BudgetError:
        return None


@lru_cache(maxsize=4096)
def best_losses(profile: ModelProfile, budgets: Budgets) -> tuple[float, ...]:
    """Return the least loss of any allocation within each budget, (B,); NaN where none is within it."""
    if budgets.relaxed:
        return _relaxed_losses(profile, budgets)
    found = [best_allocation(profile, bits) for bits in budgets.bits]
    return tuple(math.nan if each is None else each.value for each in found)


def _relaxed_losses(profile: ModelProfile, budgets: Budgets) -> tuple[float, ...]:
    """Return the lower convex hull of bits and loss at each budget, (B,); NaN below its first corner."""
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    size = profile.num_params[:, None] * profile.bits_table
    path = lagrangian_path(sum_groups(size, groups), sum_groups(profile.loss, groups))
    limits = np.array(budgets.bits) * profile.total_params * (1 + ROUNDING)
    losses = np.interp(limits, path.costs[::-1], path.losses[::-1], left=np.nan)
    return tuple(losses.tolist())


def share_of_best(loss: FloatArray, best: FloatArray) -> FloatArray:
    """Return how near losses come to the least possible, from 0 to 1: the same allocation has 1.

    Args:
        loss: Loss of a rule's allocation within the budget, infinite where it has none; any shape.
        best: The least loss within the budget, NaN where no allocation is; of the same shape.

    Returns:
        ``(best + LOSS_FLOOR) / (loss + LOSS_FLOOR)``, at most 1; NaN where ``best`` is.
    """
    return np.minimum((best + LOSS_FLOOR) / (loss + LOSS_FLOOR), 1.0)
