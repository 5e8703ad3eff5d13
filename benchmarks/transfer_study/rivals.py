"""What one has without a rule: allocations of a network within a budget of average bits.

Shapes: L layers, K formats, G groups of tied layers.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from evolve.allocators import lagrangian_path
from evolve.budgets import AVG_BITS, Budget, Cost
from evolve.constraints import best_within
from evolve.errors import BudgetError
from evolve.optimum import sum_groups, tied_groups
from evolve.profiles import ModelProfile
from evolve.scoring import ROUNDING
from evolve.views import ChoiceArray

FloatArray = NDArray[np.float64]
#: Random allocations of a network and budget; their median is what counts.
RANDOM = 9


def size_of(profile: ModelProfile) -> FloatArray:
    """Return the average bits that each layer adds in each format, (L, K)."""
    size: FloatArray = profile.num_params[:, None] * profile.bits_table / profile.total_params
    return size


def bits_of(profile: ModelProfile, choices: ChoiceArray) -> float:
    """Return the average bits of an allocation, (L,)."""
    return float(size_of(profile)[np.arange(profile.num_layers), choices].sum())


def uniform_formats(profile: ModelProfile, bits: float) -> list[ChoiceArray]:
    """Return every allocation with one format everywhere that keeps a budget, (L,) each."""
    every = [np.full(profile.num_layers, at, dtype=np.uint8) for at in range(len(profile.formats))]
    return [each for each in every if bits_of(profile, each) <= bits * (1 + ROUNDING)]


def lagrangian_within(profile: ModelProfile, loss: FloatArray, bits: float) -> ChoiceArray | None:
    """Return what one price for all layers reaches within a budget, (L,), as people run it; None if nothing.

    It is the widest corner of the convex hull that keeps the budget (Shoham and Gersho 1988); bits between
    it and the budget stay unused.

    Args:
        profile: The network.
        loss: The loss of each layer in each format, (L, K).
        bits: The budget.
    """
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    path = lagrangian_path(sum_groups(size_of(profile), groups), sum_groups(np.array(loss), groups))
    fitting = np.flatnonzero(path.costs <= bits * (1 + ROUNDING))
    return path.vertex(int(fitting[0]))[groups].astype(np.uint8) if len(fitting) else None


def exact_within(profile: ModelProfile, loss: FloatArray, bits: float) -> ChoiceArray | None:
    """Return the allocation of the least sum of losses within a budget, (L,), proven; None if nothing.

    Arguments are those of `lagrangian_within`.
    """
    budget = Budget(Cost(AVG_BITS, size_of(profile)), bits)
    try:
        return best_within(Cost("loss", np.array(loss)), [budget], profile.tied_layers).choices
    except BudgetError:
        return None


def random_within(profile: ModelProfile, bits: float, seed: int) -> list[ChoiceArray]:
    """Return random allocations that fill a budget, (L,) each; none where nothing keeps it.

    From the narrowest format everywhere, groups of tied layers drawn at random get the next wider one as
    long as it fits.
    """
    rng = np.random.default_rng([seed, round(1000 * bits), zlib.crc32(profile.name.encode())])
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    size = sum_groups(size_of(profile), groups)
    G, K = size.shape
    found: list[ChoiceArray] = []
    while size[:, 0].sum() <= bits and len(found) < RANDOM:
        choice = np.zeros(G, dtype=np.int64)
        open_groups = list(range(G))
        while open_groups:
            group = open_groups[rng.integers(len(open_groups))]
            wider = choice.copy()
            wider[group] += 1
            if wider[group] < K and size[np.arange(G), wider].sum() <= bits:
                choice = wider
            else:
                open_groups.remove(group)
        found.append(choice[groups].astype(np.uint8))
    return found
