"""Structures whose predicted loss comes near what was measured, whatever they reach so far.

How near a fitted loss comes foretells what a structure can reach once its prices are right. Until then
simpler ones with tuned numbers are better, so these need a place of their own among parents and in
refinement. Which price goes with a loss is judged by what both reach together, as partners are in
cooperative coevolution (Potter & De Jong 2000): the best structures of each price have a place.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from evolve.candidates import Scored
from evolve.search.base import Problem, first_of, rank_key
from evolve.search.refiner import structure_id

#: A loss is near what was measured if its error is at most so many times that of the best few.
_NEAR, _BEST = 1.25, 3
#: So many structures of each price have a place, and so many in all.
_OF_A_PRICE, _PLACES = 2, 24


class WellFitted:
    """The structures of least error in their predicted loss, best objective first.

    There are none where nothing is fitted.

    Args:
        problem: Knows how far a predicted loss is from what was measured.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._fit = problem.fit
        self.members: list[Scored] = []
        # Refinement tunes numbers to shares and away from losses: a structure is as near as it once was.
        self._errors: dict[str, float] = {}

    def welcome(self, scored: Sequence[Scored]) -> None:
        """Give places to those that are near enough."""
        if self._fit is None:
            return
        pool: dict[str, Scored] = {structure_id(each.candidate): each for each in self.members}
        errors = dict(self._errors)
        for each in scored:
            if each.evaluation.status != "ok":
                continue
            name = structure_id(each.candidate)
            errors[name] = min(errors.get(name, math.inf), self._fit.error(each.candidate))
            if name not in pool or rank_key(each) > rank_key(pool[name]):
                pool[name] = each
        least = sorted(errors[name] for name in pool)[:_BEST]
        if not least or not math.isfinite(least[-1]):
            return
        near = [name for name in pool if errors[name] <= _NEAR * least[-1]]
        near.sort(key=lambda name: rank_key(pool[name]), reverse=True)
        self.members = first_of([pool[name] for name in near], self._besides_loss, _OF_A_PRICE)[:_PLACES]
        names = [structure_id(each.candidate) for each in self.members]
        self._errors = {name: errors[name] for name in names}

    def _besides_loss(self, scored: Scored) -> object:
        """Return what a candidate consists of beside its predicted loss."""
        candidate = scored.candidate
        sweep = self._problem.templates[candidate.template].sweep
        assert sweep is not None  # what predicts no loss has no error that is finite
        others = [slot for slot in candidate.slots if slot[0] not in (sweep.loss, sweep.weight)]
        return candidate.template, tuple(others)

    @property
    def structures(self) -> Collection[str]:
        """The ids of the structures."""
        return self._errors.keys()

    def draw(self, tired: Mapping[str, float]) -> Scored:
        """Draw one, the better ones and those less often varied rather; from Python's global generator.

        Args:
            tired: By what the chance of a candidate is divided, by its id; 1 where it is not named.
        """
        merits = [
            1.0 / (1.0 + place) / tired.get(each.candidate.id, 1.0) for place, each in enumerate(self.members)
        ]
        return random.choices(self.members, merits)[0]

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "members": [each.candidate.id for each in self.members],
            "errors": [self._errors[structure_id(each.candidate)] for each in self.members],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self.members = [archive[each] for each in state["members"]]
        names = [structure_id(each.candidate) for each in self.members]
        self._errors = dict(zip(names, state["errors"], strict=True))
