"""The genetic algorithm: elites, tournament selection, mutation and crossover of numbers and code."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from deap import tools

from evolve.candidates import Offspring, Scored
from evolve.search.base import Novelty, Problem, first_of, rank_key
from evolve.search.breeding import Breeder
from evolve.search.operators import Select
from evolve.search.well_fitted import WellFitted

#: The elites, from which parents are drawn, are as many as the population divided by this.
_ELITE_SHARE = 3
_TOURNAMENT_SIZE = 2
#: Rules of a template that survive, each of another structure, where templates are niches.
_NICHE = 12
#: After so many offspring a rule gets half as many as before.
_TIRES = 40.0
#: Structures that wait to be refined, elites or not: a structure is good only once its numbers are.
_PROMISING = 100
#: Part of the parents that are structures of a well-fitted loss, where losses are fitted.
_FITTED_PARENTS = 0.5
#: Generations of random rules that an epoch begins with at most, in large populations and in small ones,
#: and how many rules suffice.
_LONGEST, _LONGEST_OF_SMALL, _OPENING = 10, 20, 1000
#: A search starts anew after so many generations in which the gap that its best rule leaves to the optimum
#: has not closed by such a part.
_PATIENCE, _CLOSED = 150, 0.1
#: Operators that leave the structure as it is.
_FOR_NUMBERS = ("parameters", "refine")
#: Rules that an epoch leaves behind, and fresh epochs after which one starts from what all left.
_LEGACY, _FRESH_EPOCHS = 20, 3


class _Individual:
    """A candidate as deap's selection wants it: with an attribute to compare by.

    A failure has −∞; deap's own ``Fitness`` would rank a NaN above everything.
    """

    def __init__(self, scored: Scored) -> None:
        self.scored = scored
        self.key = rank_key(scored)


def _winner(pool: Sequence[_Individual]) -> Scored:
    chosen: Scored = tools.selTournament(pool, 1, _TOURNAMENT_SIZE, fit_attr="key")[0].scored
    return chosen


class Genetic:
    """A genetic algorithm with (μ + λ) selection (Bäck 1996), λ being the population.

    The first generation holds every seed heuristic and, if there is room, variations of them.
    Each later one is the offspring of tournament winners among the elites, which are the best
    of everything so far. Once numbers are tuned, which in small populations takes a few generations,
    the code templates are niches: of each the best structures survive, once each (clearing, Pétrowski
    1996), and have offspring. On the suite the form that is good early wins the whole population
    otherwise, and the median share of the optimum after 2000 evaluations falls from above 0.99 to 0.97.

    A search that has come to rest starts anew: epochs from random rules, and after every third
    one from the best of all, so that what they found is combined.
    """

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._problem = problem
        self._breeder = Breeder(problem, novelty)
        # Islands share what is known, and are each other's way out.
        self._restarts = novelty is None
        self._elites: list[Scored] = []
        self._promising: list[Scored] = []
        self._fitted = WellFitted(problem)
        self._legacy: list[Scored] = []
        self._varied: dict[str, int] = {}
        self._epoch = 0
        self._opening = self._opening_generations
        self._idle = 0
        self._gap = math.inf

    @property
    def _opening_generations(self) -> int:
        longest = _LONGEST_OF_SMALL if self._breeder.is_small else _LONGEST
        return min(longest, max(1, _OPENING // self._problem.population))

    @property
    def elites(self) -> int:
        """How many candidates survive as parents (μ)."""
        return max(2, self._problem.population // _ELITE_SHARE)

    def ask(self) -> list[Offspring]:
        """Return the next generation's offspring; elites are not evaluated again."""
        if self._opening and self._opens:
            return self._breeder.begin_anew() if self._epoch or self._elites else self._breeder.begin()
        if not self._elites:
            return self._breeder.begin()
        pool = [*self._elites, *self._promising, *self._fitted.members]
        return self._breeder.breed(self._selection(), pool, self._fitted.structures, self._unselect)

    def _selection(self) -> Select:
        niches: dict[str, list[_Individual]] = {}
        for each in self._elites:
            if not self._has_niches:
                niches.setdefault("", []).append(_Individual(each))
            elif each.candidate.slots:
                niches.setdefault(each.candidate.template, []).append(_Individual(each))
        # Where only plain functions are left, they are the niche.
        pools = list(niches.values()) or [[_Individual(each) for each in self._elites]]
        if not self._has_niches:
            return lambda: _winner(pools[0])
        # Ranked: the better a template does, and a rule within it, the more offspring it gets. A rule that
        # was varied often without being surpassed by its own structure gives way.
        for pool in pools:
            pool.sort(key=lambda each: each.key, reverse=True)
        pools.sort(key=lambda pool: pool[0].key, reverse=True)
        weights = [1.0 / (place + 1.0) for place in range(len(pools))]

        def select() -> Scored:
            if self._fitted.members and random.random() < _FITTED_PARENTS:
                names = [each.candidate.id for each in self._fitted.members]
                tired = {name: 1.0 + self._varied.get(name, 0) / _TIRES for name in names}
                chosen = self._fitted.draw(tired)
            else:
                (pool,) = random.choices(pools, weights)
                merits = [
                    1.0 / (1.0 + place) / (1.0 + self._varied.get(each.scored.candidate.id, 0) / _TIRES)
                    for place, each in enumerate(pool)
                ]
                chosen = random.choices(pool, merits)[0].scored
            self._varied[chosen.candidate.id] = self._varied.get(chosen.candidate.id, 0) + 1
            return chosen

        return select

    def _unselect(self, parent: Scored) -> None:
        """Take back that a rule was selected."""
        name = parent.candidate.id
        if name in self._varied:
            self._varied[name] -= 1
            if not self._varied[name]:
                del self._varied[name]

    @property
    def _has_niches(self) -> bool:
        """Whether templates are niches: where structure varies, and numbers are tuned."""
        return self._breeder.tunes and any(
            weight > 0 and name not in _FOR_NUMBERS for name, weight in self._problem.operators.items()
        )

    @property
    def _opens(self) -> bool:
        """Whether epochs begin with random rules: where there are to be any."""
        return self._has_niches and self._restarts and self._problem.operators.get("newcomer", 0.0) > 0

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let the best of elites and offspring be the elites; start anew where nothing has risen for long."""
        self._breeder.tell(scored)
        self._opening = max(0, self._opening - 1)
        self.welcome(scored)
        if not (self._restarts and self._has_niches and scored):
            return
        gap = 1.0 - self._elites[0].evaluation.objective
        self._idle += 1
        if gap < (1.0 - _CLOSED) * self._gap:
            self._gap, self._idle = gap, 0
        if self._idle >= _PATIENCE:
            self._start_anew(1 + max(each.generation for each in scored))

    def _start_anew(self, generation: int) -> None:
        """Begin another epoch, from random rules or, now and then, from the best of those before it.

        What one epoch has settled on is often a local optimum, and the way out of it leads through rules
        that were tried already; so an epoch knows nothing of what was tried before.
        """
        self._legacy += first_of(self._elites, lambda each: each.candidate.structure, 1)[:_LEGACY]
        self._epoch += 1
        self._idle, self._gap = 0, math.inf
        self._opening = self._opening_generations
        self._elites, self._promising, self._varied = [], [], {}
        self._fitted = WellFitted(self._problem)
        if self._epoch % (_FRESH_EPOCHS + 1) == _FRESH_EPOCHS:
            self._opening = 0
            self.welcome(self._legacy)
            self._legacy = []
        self._breeder.forget(generation, self._elites)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Let the best of elites and immigrants be the elites."""
        pool = {each.candidate.id: each for each in (*self._elites, *immigrants)}
        ranked = sorted(pool.values(), key=rank_key, reverse=True)
        # A failure is nobody's parent as long as anything works, however few of its template do.
        working = [each for each in ranked if each.evaluation.status == "ok"]
        self._elites = self._survivors(working or ranked)
        pool = {each.candidate.id: each for each in (*self._promising, *immigrants)}
        ranked = sorted(pool.values(), key=rank_key, reverse=True)
        self._promising = first_of(ranked, lambda each: each.candidate.structure, 1)[:_PROMISING]
        self._fitted.welcome(immigrants)

    def _survivors(self, ranked: list[Scored]) -> list[Scored]:
        if not self._has_niches:
            return ranked[: self.elites]
        ranked = first_of(ranked, lambda each: each.candidate.structure, 1)
        return first_of(ranked, lambda each: each.candidate.template, _NICHE)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "breeder": self._breeder.state(),
            "elites": [each.candidate.id for each in self._elites],
            "promising": [each.candidate.id for each in self._promising],
            "fitted": self._fitted.state(),
            "legacy": [each.candidate.id for each in self._legacy],
            "varied": dict(self._varied),
            "epoch": self._epoch,
            "opening": self._opening,
            "idle": self._idle,
            "gap": self._gap if math.isfinite(self._gap) else None,
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._breeder.restore(state["breeder"], archive)
        self._elites = [archive[each] for each in state["elites"]]
        self._promising = [archive[each] for each in state["promising"]]
        self._fitted.restore(state["fitted"], archive)
        self._legacy = [archive[each] for each in state["legacy"]]
        self._varied = dict(state["varied"])
        self._epoch = state["epoch"]
        self._opening = state["opening"]
        self._idle = state["idle"]
        self._gap = math.inf if state["gap"] is None else state["gap"]
