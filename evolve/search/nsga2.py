"""NSGA-II: rules that achieve much, say little and need to know little, all at once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from deap import base, tools

from evolve.candidates import Offspring, Scored
from evolve.search.base import Novelty, Problem
from evolve.search.breeding import Breeder
from evolve.search.fronts import Point, objectives_of, pareto_front


class _Fitness(base.Fitness):  # type: ignore[misc]
    """Share of the optimum, complexity, information level: the first is maximised."""

    weights = (1.0, -1.0, -1.0)


class _Individual:
    """A candidate as deap's selection wants it."""

    def __init__(self, scored: Scored, point: Point) -> None:
        self.scored = scored
        self.fitness = _Fitness(point)
        self.rank = 0


class Nsga2:
    """NSGA-II (Deb 2002) over share of the optimum, complexity and information level."""

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._problem = problem
        self._breeder = Breeder(problem, novelty)
        self._population: list[_Individual] = []

    def front(self) -> list[str]:
        """Return the ids of the candidates that no other dominates, one a point, the shortest first."""
        scored = [each.scored for each in self._population]
        return [each.candidate.id for each in pareto_front(scored, self._problem.templates)]

    def ask(self) -> list[Offspring]:
        """Return offspring of winners of binary tournaments by rank and crowding."""
        population = self._population
        if not population:
            return self._breeder.begin()

        def select() -> Scored:
            first, second = random.choice(population), random.choice(population)
            keys = [(each.rank, -each.fitness.crowding_dist) for each in (first, second)]
            return first.scored if keys[0] <= keys[1] else second.scored

        return self._breeder.breed(select, [each.scored for each in population])

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let the next population be the best fronts of the old one and the offspring."""
        self._breeder.tell(scored)
        self.welcome(scored)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let the next population be the best fronts of the old one and the immigrants."""
        self._choose([*(each.scored for each in self._population), *immigrants])

    def _choose(self, pool: Sequence[Scored]) -> None:
        points: dict[Point, Scored] = {}
        for each in pool:
            if each.evaluation.status == "ok":
                # The same point twice would crowd out others.
                points.setdefault(objectives_of(each, self._problem.templates), each)
        individuals = [_Individual(each, point) for point, each in points.items()]
        count = min(len(individuals), self._problem.population)
        self._settle(tools.selNSGA2(individuals, count, nd="log") if individuals else [])

    def _settle(self, population: list[_Individual]) -> None:
        """Rank a population by itself, so that its ranks and crowding can be computed again."""
        if population:
            for rank, front in enumerate(tools.sortLogNondominated(population, len(population))):
                tools.emo.assignCrowdingDist(front)
                for each in front:
                    each.rank = rank
        self._population = population

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "breeder": self._breeder.state(),
            "population": [each.scored.candidate.id for each in self._population],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._breeder.restore(state["breeder"], archive)
        scored = [archive[each] for each in state["population"]]
        self._settle([_Individual(each, objectives_of(each, self._problem.templates)) for each in scored])
