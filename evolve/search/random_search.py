"""Random search: the rival every other strategy has to beat at equal evaluations."""

from __future__ import annotations

import random
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from evolve.candidates import Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Made, Novelty, Problem, check_count, gather
from evolve.search.making import Order, made_ahead


class RandomSearch:
    """Evaluates the seed heuristics, then newcomers only."""

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._novelty = novelty or Novelty(problem)
        self._started = False
        self._asked: list[Offspring] = []

    def ask(self) -> list[Offspring]:
        """Return the seeds first, then random candidates; nothing twice."""
        fresh = [] if self._started else list(self._problem.seeds)
        self._novelty.add([each.candidate for each in fresh])
        with seeded() as reseed:

            def draw(seed: int) -> tuple[Order, list[Scored]]:
                reseed(seed)
                return Order("newcomer", (), random.getstate(), None), []

            def make(count: int) -> Generator[Made]:
                return made_ahead(self._problem, self._seeds, draw, count, lambda _: None)

            fresh += gather(make, self._novelty, self._problem.population - len(fresh))
        self._asked = fresh
        return fresh

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take note; random search learns nothing."""
        check_count(self._asked, scored)
        self._started = True

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Ignore them: random search has no parents."""

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {"seeds": self._seeds.state()}

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._novelty.add([each.candidate for each in archive.values()])
        self._started = bool(archive)
