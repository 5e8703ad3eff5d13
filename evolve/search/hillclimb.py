"""Hill climbing: the best so far is the parent of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evolve.candidates import Offspring, Scored
from evolve.search.base import Novelty, Problem, rank_key
from evolve.search.breeding import Breeder

#: Generations without a better candidate after which the climb starts again from another seed.
_PATIENCE = 5


class HillClimb:
    """Stochastic hill climbing with restarts: a (1 + λ) strategy, λ being the population.

    A climb starts from the best seed heuristic; after some generations without a better
    candidate the next one starts from the next best, and so on in a circle.
    """

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        # With a single parent there is nothing to cross.
        weights = {name: weight for name, weight in problem.operators.items() if name != "crossover"}
        usable = any(weight > 0 for weight in weights.values())
        self._breeder = Breeder(replace(problem, operators=weights if usable else problem.operators), novelty)
        self._starts: list[Scored] = []
        self._climbs = 0
        self._idle = 0
        self._current: Scored | None = None

    def ask(self) -> list[Offspring]:
        """Return variations of the best candidate of this climb; the seed heuristics first."""
        current = self._current
        if current is None:
            return self._breeder.begin()
        return self._breeder.breed(lambda: current, [current])

    def tell(self, scored: Sequence[Scored]) -> None:
        """Step up where an offspring is better; start again after too long without."""
        self._breeder.tell(scored)
        if self._current is None:
            seeds = [each for each in scored if each.offspring.operator == "seed"]
            self._starts = sorted(seeds or scored, key=rank_key, reverse=True)
        before = self._current
        self.welcome(scored)
        self._idle = 0 if self._current is not before else self._idle + 1
        if self._idle >= _PATIENCE and self._starts:
            self._idle = 0
            self._climbs += 1
            self._current = self._starts[self._climbs % len(self._starts)]

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Step up where an immigrant is better."""
        for each in immigrants:
            if self._current is None or rank_key(each) > rank_key(self._current):
                self._current = each

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "breeder": self._breeder.state(),
            "starts": [each.candidate.id for each in self._starts],
            "climbs": self._climbs,
            "idle": self._idle,
            "current": None if self._current is None else self._current.candidate.id,
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._breeder.restore(state["breeder"], archive)
        self._starts = [archive[each] for each in state["starts"]]
        self._climbs = state["climbs"]
        self._idle = state["idle"]
        self._current = None if state["current"] is None else archive[state["current"]]
