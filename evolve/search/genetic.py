"""The genetic algorithm: elites, tournament selection, mutation and crossover of numbers and code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from deap import tools

from evolve.candidates import Evaluation, Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Problem, check_count, rank_key
from evolve.search.operators import vary

#: One candidate in so many survives as an elite.
_ELITE_SHARE = 6
_TOURNAMENT_SIZE = 3


class _Individual:
    """A candidate as deap's selection wants it: with an attribute to compare by.

    A failure has −∞; deap's own ``Fitness`` would rank a NaN above everything.
    """

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        self.key = rank_key(scored)


class Genetic:
    """A generational genetic algorithm with elites.

    The first generation holds every seed heuristic and, if there is room, variations of them.
    Each later one keeps the elites and fills up with offspring of tournament winners.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._population: list[Scored] = []
        self._known: set[str] = set()
        self._asked: list[Offspring] = []

    @property
    def elites(self) -> int:
        """How many candidates survive unchanged."""
        return max(1, self._problem.population // _ELITE_SHARE)

    def ask(self) -> list[Offspring]:
        """Return the next generation's offspring; elites are not evaluated again."""
        fresh: list[Offspring] = [] if self._population else list(self._problem.seeds)
        wanted = self._problem.population - (self.elites if self._population else 0)
        pool = self._population or [_unscored(each) for each in fresh]
        select = self._selection(pool)
        known = self._known | {each.candidate.id for each in fresh}
        with seeded() as reseed:
            for draw in self._seeds.draw(max(0, wanted - len(fresh))):
                reseed(draw)
                offspring = vary(self._problem, select, known)
                known.add(offspring.candidate.id)
                fresh.append(offspring)
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
        """Let the elites and the offspring be the population."""
        check_count(self._asked, scored)
        self._known |= {each.candidate.id for each in scored}
        elites = sorted(self._population, key=rank_key, reverse=True)[: self.elites]
        kept = {each.candidate.id for each in elites}
        self._population = elites + [each for each in scored if each.candidate.id not in kept]

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "seeds": self._seeds.state(),
            "population": [each.candidate.id for each in self._population],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._population = [archive[each] for each in state["population"]]
        self._known = set(archive)


def _unscored(offspring: Offspring) -> Scored:
    """Let seeds be parents in the first generation, before anything is known of them."""
    return Scored(offspring, Evaluation("ok"))
