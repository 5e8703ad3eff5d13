"""What one would do within budgets of bits without a search: each allocates for every model and budget anew.

Shapes: M models of a split, B budgets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evolve.budgets import AVG_BITS, Budget, Cost, loss_of
from evolve.constraints import best_uniform, best_within
from evolve.errors import BudgetError
from evolve.evaluation import Arena, Failure, Task
from evolve.objectives import best_losses, share_of_best
from evolve.parameters import Parameter
from evolve.profiles import ModelProfile
from evolve.verdicts.models import FloatArray, Split

Measure = tuple[str, str, Callable[[Split], FloatArray]]

UNIFORM = "best uniform format within the budget"
LAGRANGIAN = "Lagrangian, a price for each budget"
FISHER = "Lagrangian on Fisher information"
GRADIENT = "integer program on gradient sensitivity"

_RULE = """
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * model.{table})
"""
_PRICE = Parameter("price", 1.0, 1e-6, 1e8, "log")


def budget_measures(split: Split) -> list[Measure]:
    """Return the alternatives that a split allows: name, what each needs, and its shares, (M,)."""
    measures: list[Measure] = [
        (UNIFORM, "one evaluation of the model a format", uniform_within),
        (LAGRANGIAN, "its whole sensitivity table", lambda each: _swept(each, "loss")),
        (GRADIENT, "its gradients, and a solver", _gradient_program),
    ]
    if all(np.ndim(each.measurements.get("fisher_loss", 0.0)) == 2 for each in split.profiles):
        measures.insert(2, (FISHER, "one backward pass", lambda each: _swept(each, "fisher_loss")))
    return measures


def uniform_within(split: Split) -> FloatArray:
    """Return (M,) the shares of the best uniform format, means over the budgets."""

    def loss(profile: ModelProfile, within: Budget) -> float:
        choices = best_uniform(loss_of(profile), [within])
        return np.inf if choices is None else loss_of(profile).total(choices)

    return _mean_shares(split, loss)


def _swept(split: Split, table: str) -> FloatArray:
    arena = Arena(split.profiles, "curves", split.arena.budgets)
    (found,) = arena.evaluate(Task(_RULE.format(table=table), "", ("price",), np.ones((1, 1)), _PRICE))
    assert not isinstance(found, Failure)
    return found.fitness


def _gradient_program(split: Split) -> FloatArray:
    """Return (M,) shares with the least loss that gradients alone predict: see `gradient_program`."""

    def loss(profile: ModelProfile, within: Budget) -> float:
        predicted = profile.gradient_sensitivity[:, None] * 4.0**-profile.bits_table
        try:
            found = best_within(Cost("predicted", predicted), [within], profile.tied_layers)
        except BudgetError:
            return np.inf
        return loss_of(profile).total(found.choices)

    return _mean_shares(split, loss)


def _mean_shares(split: Split, loss: Callable[[ModelProfile, Budget], float]) -> FloatArray:
    """Return (M,) mean shares over the budgets that any allocation keeps; 1 where none does."""
    budgets = split.arena.budgets
    assert budgets is not None
    means = []
    for profile in split.profiles:
        cost = Cost(AVG_BITS, profile.num_params[:, None] * profile.bits_table)
        limits = [Budget(cost, bits * profile.total_params) for bits in budgets.bits]
        losses = np.array([loss(profile, each) for each in limits])
        shares = share_of_best(losses, np.array(best_losses(profile, budgets)))
        kept = shares[~np.isnan(shares)]
        means.append(float(kept.mean()) if len(kept) else 1.0)
    return np.array(means)
