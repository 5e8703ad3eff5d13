"""The models that verdicts are measured on, and arenas where rules see other than what they are scored with.

Shapes: C candidates, M models of a split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.batches import make_batch
from evolve.candidates import Candidate
from evolve.datasets import SPLITS, Dataset
from evolve.evaluation import Arena, Failure, SearchArena, optimum_share
from evolve.objectives import Budgets
from evolve.profiles import ModelProfile
from evolve.templates import Template

FloatArray = NDArray[np.float64]
Shares = Mapping[str, FloatArray]


@dataclass(frozen=True, eq=False)
class Split:
    """The models of one split.

    Attributes:
        name: ``train``, ``valid`` or ``test``.
        profiles: Its M models.
        arena: Where rules are scored on them.
    """

    name: str
    profiles: tuple[ModelProfile, ...]
    arena: Arena


def splits_of(dataset: Dataset, level: str, budgets: Budgets | None = None) -> tuple[Split, ...]:
    """Return the splits that have models, each by itself; valid only if it is not the same as train."""
    names = [name for name in SPLITS if dataset.split(name)]
    if dataset.valid == dataset.train and "valid" in names:
        names.remove("valid")
    return tuple(
        Split(name, dataset.split(name), Arena(dataset.split(name), level, budgets)) for name in names
    )


def shares(candidates: Sequence[Candidate], templates: Mapping[str, Template], arena: Arena) -> FloatArray:
    """Return the share of each model's optimum that each candidate reaches, (C, M); NaN where it fails."""
    return optimum_share(_measure(candidates, templates, arena, "fitness"), arena.optimum_fitness)


def retentions(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], arena: Arena
) -> FloatArray:
    """Return the accuracy retention of each candidate on each model, (C, M); NaN where it fails."""
    return _measure(candidates, templates, arena, "accuracy_retention")


def _measure(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], arena: Arena, metric: str
) -> FloatArray:
    found = np.full((len(candidates), len(arena.profiles)), np.nan)
    batch = make_batch(candidates, templates, swept=arena.budgets is not None)
    for members, task in zip(batch.members, batch.tasks, strict=True):
        for index, result in zip(members, arena.evaluate(task), strict=True):
            if not isinstance(result, Failure):
                found[index] = getattr(result, metric)
    return found


class DisguisedArena(Arena):
    """An arena whose rules see other models than those they are scored with.

    Args:
        seen: M models as rules see them.
        truth: The M models that their allocations are scored with, of the same formats and layers.
        level: The information level that rules may read.
        optima: (M,) fitness of the optima of ``truth``.
        budgets: Score rules as families within these budgets; None scores by the cliff.
    """

    def __init__(
        self,
        seen: Sequence[ModelProfile],
        truth: Sequence[ModelProfile],
        level: str,
        optima: FloatArray,
        budgets: Budgets | None = None,
    ) -> None:
        super().__init__(seen, level, budgets)
        self._arguments = (seen, truth, level, optima, budgets)
        self.optimum_fitness = optima
        self.score_with(truth)


class DisguisedSearchArena(SearchArena):
    """The arena of a search whose rules see other models than those they are scored with.

    Args:
        dataset: What rules see.
        level: The information level that rules may read.
        truth: By name, what their allocations are scored with; the optima must be those of what is seen.
        budgets: Score rules as families within these budgets; None scores by the cliff.
        copies: Altered copies of each model, which ``truth`` must name too.
    """

    def __init__(
        self,
        dataset: Dataset,
        level: str,
        truth: Mapping[str, ModelProfile],
        budgets: Budgets | None = None,
        copies: int = 0,
    ) -> None:
        super().__init__(dataset, level, budgets, copies)
        self._arguments = (dataset, level, truth, budgets, copies)
        for arena in (self, self.copied):
            if arena is not None:
                arena.score_with([truth[each.name] for each in arena.profiles])
