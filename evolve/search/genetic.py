"""The genetic algorithm: elites, tournament selection, mutation and crossover of numbers and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from deap import tools

from evolve.candidates import Evaluation, Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Novelty, Problem, check_count, gather, rank_key
from evolve.search.operators import vary

#: The elites, from which parents are drawn, are as many as the population divided by this. Of
#: shares from 2 to 12 and tournaments of 2 to 6, these failed least often at 144 evaluations.
_ELITE_SHARE = 3
_TOURNAMENT_SIZE = 2


class _Individual:
    """A candidate as deap's selection wants it: with an attribute to compare by.

    A failure has −∞; deap's own ``Fitness`` would rank a NaN above everything.
    """

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        self.key = rank_key(scored)


class Genetic:
    """A genetic algorithm with (μ + λ) selection (Bäck 1996), λ being the population.

    The first generation holds every seed heuristic and, if there is room, variations of them.
    Each later one is the offspring of tournament winners among the elites, which are the best
    of everything so far.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._elites: list[Scored] = []
        self._novelty = Novelty(problem)
        self._asked: list[Offspring] = []

    @property
    def elites(self) -> int:
        """How many candidates survive as parents (μ)."""
        return max(2, self._problem.population // _ELITE_SHARE)

    def ask(self) -> list[Offspring]:
        """Return the next generation's offspring; elites are not evaluated again."""
        wanted = self._problem.population
        fresh: list[Offspring] = [] if self._elites else list(self._problem.seeds)
        self._novelty.add([each.candidate for each in fresh])
        select = self._selection(self._elites or [_unscored(each) for each in fresh])
        with seeded() as reseed:

            def make(count: int) -> list[Offspring]:
                proposals = []
                for draw in self._seeds.draw(count):
                    reseed(draw)
                    proposals.append(vary(self._problem, select))
                return proposals

            fresh += gather(make, self._novelty, wanted - len(fresh))
        self._asked = fresh
        return fresh

    @staticmethod
    def _selection(pool: Sequence[Scored]) -> Any:
        individuals = [_Individual(each) for each in pool]
        tournament = partial(
            tools.selTournament, individuals, k=1, tournsize=_TOURNAMENT_SIZE, fit_attr="key"
        )
        return lambda: tournament()[0].scored

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let the best of elites and offspring be the elites."""
        check_count(self._asked, scored)
        pool = {each.candidate.id: each for each in (*self._elites, *scored)}
        self._elites = sorted(pool.values(), key=rank_key, reverse=True)[: self.elites]

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "seeds": self._seeds.state(),
            "elites": [each.candidate.id for each in self._elites],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._elites = [archive[each] for each in state["elites"]]
        self._novelty.add([each.candidate for each in archive.values()])


def _unscored(offspring: Offspring) -> Scored:
    """Let seeds be parents in the first generation, before anything is known of them."""
    return Scored(offspring, Evaluation("ok"))
