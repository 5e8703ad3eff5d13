"""The genetic algorithm: elites, tournament selection, mutation and crossover of numbers and code."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deap import tools

from evolve.candidates import Offspring, Scored
from evolve.search.base import Novelty, Problem, rank_key
from evolve.search.breeding import Breeder
from evolve.search.operators import Select

#: The elites, from which parents are drawn, are as many as the population divided by this.
_ELITE_SHARE = 3
_TOURNAMENT_SIZE = 2
#: Elites that differ only in their numbers; more of them would crowd out other structures.
_ALIKE = 3
#: The best of each template survive, as many as the elites divided by this.
_NICHE_ELITES = 8
#: Smaller populations have no niches: they need this many elites a template.
_LEAST_NICHE = 3


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
    of everything so far. The code templates are niches: few rules of one structure survive
    (clearing, Pétrowski 1996), the best of each template do, and each template gets as many
    parents. On the suite the form that is good early wins the whole population otherwise, and
    the median share of the optimum after 2000 evaluations falls from above 0.99 to 0.97.
    """

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._problem = problem
        self._breeder = Breeder(problem, novelty)
        self._elites: list[Scored] = []

    @property
    def elites(self) -> int:
        """How many candidates survive as parents (μ)."""
        return max(2, self._problem.population // _ELITE_SHARE)

    def ask(self) -> list[Offspring]:
        """Return the next generation's offspring; elites are not evaluated again."""
        if not self._elites:
            return self._breeder.begin()
        return self._breeder.breed(self._selection(), self._elites)

    def _selection(self) -> Select:
        niches: dict[str, list[_Individual]] = {}
        for each in self._elites:
            if not self._has_niches:
                niches.setdefault("", []).append(_Individual(each))
            elif each.candidate.slots:
                niches.setdefault(each.candidate.template, []).append(_Individual(each))
        # Where only plain functions are left, they are the niche.
        pools = list(niches.values()) or [[_Individual(each) for each in self._elites]]

        def select() -> Scored:
            pool = random.choice(pools) if len(pools) > 1 else pools[0]
            chosen: Scored = tools.selTournament(pool, 1, _TOURNAMENT_SIZE, fit_attr="key")[0].scored
            return chosen

        return select

    @property
    def _has_niches(self) -> bool:
        """Whether templates are niches: where structure varies and each can have a few elites."""
        forms = sum(1 for each in self._problem.templates.values() if each.slots)
        varies = self._problem.operators.get("structure", 0.0) > 0
        return varies and self.elites >= _LEAST_NICHE * forms

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let the best of elites and offspring be the elites."""
        self._breeder.tell(scored)
        self.welcome(scored)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let the best of elites and immigrants be the elites."""
        pool = {each.candidate.id: each for each in (*self._elites, *immigrants)}
        ranked = sorted(pool.values(), key=rank_key, reverse=True)
        # A failure is nobody's parent as long as anything works, however few of its template do.
        working = [each for each in ranked if each.evaluation.status == "ok"]
        self._elites = self._survivors(working or ranked)

    def _survivors(self, ranked: list[Scored]) -> list[Scored]:
        if not self._has_niches:
            return ranked[: self.elites]
        ranked = _first_of(ranked, lambda each: each.candidate.structure, _ALIKE)
        best = ranked[: self.elites]
        kept = {each.candidate.id for each in best}
        quota = max(1, self.elites // _NICHE_ELITES)
        of_niches = _first_of(ranked, lambda each: each.candidate.template, quota)
        return best + [each for each in of_niches if each.candidate.id not in kept]

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "breeder": self._breeder.state(),
            "elites": [each.candidate.id for each in self._elites],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._breeder.restore(state["breeder"], archive)
        self._elites = [archive[each] for each in state["elites"]]


def _first_of(ranked: Sequence[Scored], kind: Callable[[Scored], object], count: int) -> list[Scored]:
    """Return the first so many of each kind, in the order given."""
    seen: dict[object, int] = {}
    first = []
    for each in ranked:
        seen[kind(each)] = seen.get(kind(each), 0) + 1
        if seen[kind(each)] <= count:
            first.append(each)
    return first
