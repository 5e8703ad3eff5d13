"""The whole Pareto front of a model: every trade-off of a cost against the retained accuracy.

Shapes: L layers, K formats, V points.
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.allocations import names_of
from evolve.allocators import IndexArray, lagrangian_path
from evolve.budgets import Budget, Cost
from evolve.constraints import keeps
from evolve.knapsack import EXACT, undominated
from evolve.optimum import STATE_LIMIT, sum_groups, tied_groups
from evolve.profiles import ModelProfile
from evolve.scoring import FloatArray


@dataclass(frozen=True, eq=False)
class Front:
    """Allocations that no other one beats in cost and loss both, by increasing cost.

    Attributes:
        cost: What is traded against the loss.
        costs: Total cost, in the unit of the cost's table, (V,), increasing.
        losses: Total loss, (V,), decreasing.
        choices: Format indices, (V, L).
        complete: Whether these are all such allocations; else they are those on the convex hull of all,
            between which others may lie, though never beyond the hull.
    """

    cost: Cost
    costs: FloatArray
    losses: FloatArray
    choices: NDArray[np.uint8]
    complete: bool


def pareto_front(profile: ModelProfile, cost: Cost, most_points: int = STATE_LIMIT) -> Front:
    """Return the Pareto front of a cost and the loss, ties kept.

    Partial allocations are extended layer by layer, and those that another beats are dropped
    (Nemhauser and Ullmann 1969). Where more than ``most_points`` are left at any step, the front is
    that of one global price, the convex hull's.

    Args:
        profile: The model.
        cost: One of its costs.
        most_points: Partial allocations kept at most.
    """
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    costs, losses = sum_groups(cost.table, groups), sum_groups(profile.loss, groups)
    every = _all_points(costs, losses, most_points)
    choices = _hull(costs, losses) if every is None else every
    full = choices[:, groups]
    rows = np.arange(profile.num_layers)
    total_costs, total_losses = cost.table[rows, full].sum(axis=1), profile.loss[rows, full].sum(axis=1)
    kept = undominated(total_costs, total_losses)
    # What differs by rounding alone is one point.
    apart = np.append(True, -np.diff(total_losses[kept]) > EXACT * total_losses[kept][:-1])
    kept = kept[apart[: len(kept)]]
    return Front(cost, total_costs[kept], total_losses[kept], full[kept], every is not None)


def within(front: Front, budgets: tuple[Budget, ...]) -> Front:
    """Return the points of a front that keep budgets."""
    kept = np.array([keeps(each, budgets) for each in front.choices], dtype=bool)
    return Front(front.cost, front.costs[kept], front.losses[kept], front.choices[kept], front.complete)


def front_to_json(front: Front, profile: ModelProfile) -> dict[str, Any]:
    """Return a front as a JSON object; formats of the layers in the order of ``layers``."""
    return {
        "model": profile.name,
        "cost": front.cost.name,
        "unit": front.cost.unit,
        "complete": front.complete,
        "layers": list(names_of(profile)),
        "points": [
            {
                "cost": front.cost.amount(cost),
                "retention": math.exp(-loss),
                "loss": loss,
                "formats": [profile.format_names[index] for index in choices],
            }
            for cost, loss, choices in _points(front)
        ],
    }


def front_to_csv(front: Front, profile: ModelProfile) -> str:
    """Return a front as comma-separated values: a row a point, a column a layer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    unit = f"_{front.cost.unit}" if front.cost.unit and front.cost.name == "size" else ""
    writer.writerow([f"{front.cost.name}{unit}", "retention", "loss", *names_of(profile)])
    for cost, loss, choices in _points(front):
        formats = [profile.format_names[index] for index in choices]
        writer.writerow([front.cost.amount(cost), math.exp(-loss), loss, *formats])
    return text.getvalue()


def _points(front: Front) -> list[tuple[float, float, list[int]]]:
    return list(zip(front.costs.tolist(), front.losses.tolist(), front.choices.tolist(), strict=True))


def _all_points(costs: FloatArray, losses: FloatArray, most_points: int) -> NDArray[np.uint8] | None:
    """Return every undominated choice of a format for each row, (V, rows), None if they are too many."""
    choices = np.zeros((1, 0), dtype=np.uint8)
    cost, loss = np.zeros((2, 1))
    for row_cost, row_loss in zip(costs, losses, strict=True):
        all_costs = np.add.outer(row_cost, cost).ravel()
        all_losses = np.add.outer(row_loss, loss).ravel()
        kept = undominated(all_costs, all_losses)
        if len(kept) > most_points:
            return None
        options, parents = np.divmod(kept, len(cost))
        choices = np.column_stack([choices[parents], options.astype(np.uint8)])
        cost, loss = all_costs[kept], all_losses[kept]
    return choices


def _hull(costs: FloatArray, losses: FloatArray) -> NDArray[np.uint8]:
    """Return the choices that one global price can reach, (V, rows)."""
    path = lagrangian_path(costs, losses)
    vertices: list[IndexArray] = [path.vertex(index) for index in range(len(path.costs))]
    return np.array(vertices, dtype=np.uint8)
