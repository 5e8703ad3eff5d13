"""The search where nothing but the numbers of one rule can vary: CMA-ES with restarts.

There a genetic algorithm has nothing to recombine but vectors, which CMA-ES (Hansen 2001) does better:
it learns along which directions numbers belong together. What it needs is a place to begin at. The numbers
that a rule comes with are one; the middle of all ranges is another, since ranges are laid around
what is neutral. Both are tried for a generation, and the better one goes on. A run that has come
to rest gives way to another, from the best of some random numbers (Auger & Hansen 2005).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evolve.candidates import Candidate, Offspring, Scored
from evolve.search.base import CandidateSeeds, Problem, check_count, rank_key
from evolve.search.refinement import Refinement
from evolve.templates import Template

#: Operators that change nothing but numbers where all rules have one structure.
_NUMBER_OPERATORS = frozenset({"parameters", "crossover", "refine"})
#: Samples of one CMA-ES generation, in parts of the population: two runs fit into it at first.
_RUNS, _LEAST_SAMPLES, _MOST_SAMPLES = 2, 4, 24
#: Spread of the first samples, in parts of each parameter's range: near a given start, and near a random one.
_SPREAD, _SPREAD_ANEW = 0.05, 0.2


def numbers_alone(problem: Problem) -> bool:
    """Tell whether a search varies the numbers of a single structure, and may refine them."""
    used = {name for name, weight in problem.operators.items() if weight > 0}
    rules = [each.candidate for each in problem.seeds]
    structures = {(each.structure, tuple(name for name, _ in each.parameters)) for each in rules}
    return (
        "refine" in used and used <= _NUMBER_OPERATORS and len(structures) == 1 and bool(rules[0].parameters)
    )


class NumberSearch:
    """CMA-ES from the seeds and the middle of the ranges, then from random numbers, as long as one asks.

    A generation is one of CMA-ES, which learns more from two small ones than from one large one;
    so it has fewer candidates than the population.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._samples = min(max(problem.population // _RUNS, _LEAST_SAMPLES), _MOST_SAMPLES)
        self._runs: list[Refinement] = []
        self._begun = False
        self._asked: list[Offspring] = []

    @property
    def _seed(self) -> Candidate:
        return self._problem.seeds[0].candidate

    @property
    def _template(self) -> Template:
        return self._problem.templates[self._seed.template]

    def ask(self) -> list[Offspring]:
        """Return the next generation of each CMA-ES at work, or where to begin one."""
        if self._runs:
            self._asked = [run.ask() for run in self._runs for _ in range(run.waiting)]
        elif self._begun:
            self._asked = self._random_starts()
        else:
            middle = self._at(
                [0.5] * len(self._problem.seeds[0].candidate.parameters), "middle of all ranges"
            )
            known = {each.candidate.id for each in self._problem.seeds}
            self._asked = [*self._problem.seeds, *([] if middle.candidate.id in known else [middle])]
        return self._asked

    def _at(self, units: Sequence[float], change: str) -> Offspring:
        """Return the rule with these numbers, each in parts of its range."""
        seed = self._seed
        parameters = self._template.parameters_of(seed)
        numbers = {each.name: each.from_unit(unit) for each, unit in zip(parameters, units, strict=True)}
        candidate = replace(seed, parameters=tuple((name, numbers[name]) for name, _ in seed.parameters))
        return Offspring(candidate, "parameters", (seed.id,), change)

    def _random_starts(self) -> list[Offspring]:
        (draw,) = self._seeds.draw(1)
        points = np.random.default_rng(draw).random((self._samples, len(self._seed.parameters)))
        return [self._at(each.tolist(), "random numbers") for each in points]

    def tell(self, scored: Sequence[Scored]) -> None:
        """Let each run take its samples; the best run goes on, unless it has come to rest."""
        check_count(self._asked, scored)
        if self._runs:
            for place, each in enumerate(scored):
                self._runs[place // self._samples].tell(each)
            best = max(self._runs, key=lambda run: rank_key(run.best))
            self._runs = [] if best.converged else [best]
        elif scored:
            ranked = sorted(scored, key=rank_key, reverse=True)
            starts = ranked[:1] if self._begun else self._first_starts(ranked)
            spread = _SPREAD_ANEW if self._begun else _SPREAD
            self._runs = [self._run(each, spread) for each in starts]
            self._begun = True
        self._asked = []

    def _first_starts(self, ranked: Sequence[Scored]) -> list[Scored]:
        """Return the best seed, and the middle of the ranges if it is none."""
        seeds = {each.candidate.id for each in self._problem.seeds}
        given = [each for each in ranked if each.candidate.id in seeds]
        return given[:1] + [each for each in ranked if each.candidate.id not in seeds]

    def _run(self, start: Scored, spread: float) -> Refinement:
        (draw,) = self._seeds.draw(1)
        return Refinement(self._template, start, draw % 2**32, spread, self._samples)

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Ignore immigrants: a run keeps to what it has learnt."""

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "seeds": self._seeds.state(),
            "begun": self._begun,
            "runs": [each.state() for each in self._runs],
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._begun = state["begun"]
        self._runs = [Refinement.from_state(each, archive, self._problem.templates) for each in state["runs"]]
