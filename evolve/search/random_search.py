"""Random search: the rival every other strategy has to beat at equal evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evolve.candidates import Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Problem, check_count
from evolve.search.operators import draw_newcomer


class RandomSearch:
    """Evaluates the seed heuristics, then newcomers only."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._known: set[str] = set()
        self._asked: list[Offspring] = []

    def ask(self) -> list[Offspring]:
        """Return the seeds first, then random candidates; nothing twice."""
        wanted = self._problem.population
        fresh = [] if self._known else list(self._problem.seeds)
        known = self._known | {each.candidate.id for each in fresh}
        with seeded() as reseed:
            while len(fresh) < wanted:
                (draw,) = self._seeds.draw(1)
                reseed(draw)
                offspring = draw_newcomer(self._problem, known)
                known.add(offspring.candidate.id)
                fresh.append(offspring)
        self._asked = fresh
        return fresh

    def tell(self, scored: Sequence[Scored]) -> None:
        """Remember what was evaluated."""
        check_count(self._asked, scored)
        self._known |= {each.candidate.id for each in scored}

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {"seeds": self._seeds.state()}

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._known = set(archive)
