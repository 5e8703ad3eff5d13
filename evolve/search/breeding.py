"""What the strategies share that vary parents: seeds first, then offspring by adapting operators."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.candidates import Evaluation, Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Novelty, Problem, check_count, gather, rank_key
from evolve.search.operators import Select, apply_operator
from evolve.search.rates import OperatorRates
from evolve.search.refinement import Refiner

#: Refinement takes at most one of so many offspring, where other operators are in use.
_REFINED_SHARE = 3
#: Smaller populations are not refined: a CMA-ES generation would take several of theirs.
_LEAST_REFINED = 48


class Breeder:
    """Makes offspring of the parents that a strategy selects, and learns which operators succeed.

    Args:
        problem: What is searched.
        novelty: Knows what was tried; islands share one.
    """

    def __init__(self, problem: Problem, novelty: Novelty | None = None) -> None:
        self._problem = problem
        self._seeds = CandidateSeeds(problem.seed)
        self._novelty = novelty or Novelty(problem)
        self._rates = OperatorRates(problem.operators)
        self._refiner = Refiner(problem)
        self._asked: list[Offspring] = []
        self._parents: dict[str, Scored] = {}
        self._best: Scored | None = None

    def begin(self) -> list[Offspring]:
        """Return the seed heuristics and, if there is room, variations of them."""
        seeds = list(self._problem.seeds)
        self._novelty.add([each.candidate for each in seeds])
        pool = [_unscored(each) for each in seeds]
        self._asked = seeds + self._vary(lambda: random.choice(pool), self._problem.population - len(seeds))
        return self._asked

    def breed(self, select: Select, pool: Sequence[Scored]) -> list[Offspring]:
        """Return one generation of offspring.

        Args:
            select: Draws a parent; called while Python's global generator is seeded.
            pool: What is worth refining.
        """
        population, shares = self._problem.population, self._rates.shares()
        if len(shares) == 1:
            most = population
        else:
            most = population // _REFINED_SHARE if population >= _LEAST_REFINED else 0
        refined = self._refiner.ask(
            pool,
            min(most, round(shares.get("refine", 0.0) * population)),
            lambda: self._seeds.draw(1)[0],
        )
        self._novelty.add([each.candidate for each in refined])
        self._parents = {each.candidate.id: each for each in (*pool, *self._refiner.best)}
        self._asked = refined + self._vary(select, population - len(refined))
        return self._asked

    def _vary(self, select: Select, wanted: int) -> list[Offspring]:
        shares = self._rates.shares()
        # Where nothing is left to refine, its share goes to the others.
        names = [name for name in shares if name != "refine"] or ["parameters"]
        weights = [shares.get(name, 1.0) for name in names]

        def noted() -> Scored:
            parent = select()
            self._parents[parent.candidate.id] = parent
            return parent

        with seeded() as reseed:

            def make(count: int) -> list[Offspring]:
                proposals = []
                for draw in self._seeds.draw(count):
                    reseed(draw)
                    (operator,) = random.choices(names, weights)
                    proposals.append(apply_operator(operator, self._problem, noted))
                return proposals

            return gather(make, self._novelty, wanted)

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the offspring asked for, in the same order."""
        check_count(self._asked, scored)
        known = self._parents | {each.candidate.id: each for each in scored}
        pairs = list(zip(self._asked, scored, strict=True))
        self._rates.tell((asked.operator, self._succeeded(asked, each, known)) for asked, each in pairs)
        self._refiner.tell([each for asked, each in pairs if asked.operator == "refine"])
        for each in scored:
            if self._best is None or rank_key(each) > rank_key(self._best):
                self._best = each
        self._asked, self._parents = [], {}

    def _succeeded(self, asked: Offspring, scored: Scored, known: Mapping[str, Scored]) -> bool:
        """Tell whether an offspring is better than its parents; a newcomer, than everything so far."""
        parents = [known[each] for each in asked.parents if each in known]
        if asked.operator == "newcomer" or not parents:
            parents = [] if self._best is None else [self._best]
        return all(rank_key(scored) > rank_key(each) for each in parents)

    def state(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "seeds": self._seeds.state(),
            "best": None if self._best is None else self._best.candidate.id,
            "rates": self._rates.state(),
            "refiner": self._refiner.state(),
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._best = None if state["best"] is None else archive[state["best"]]
        self._rates.restore(state["rates"])
        self._refiner.restore(state["refiner"], archive)
        self._novelty.add([each.candidate for each in archive.values()])


def _unscored(offspring: Offspring) -> Scored:
    """Let seeds be parents in the first generation, before anything is known of them."""
    return Scored(offspring, Evaluation("ok"))
