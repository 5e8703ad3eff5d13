"""What the strategies share that vary parents: seeds first, then offspring by adapting operators."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

from evolve.candidates import Evaluation, Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Made, Novelty, Problem, check_count, gather, rank_key
from evolve.search.calibration import spent_by
from evolve.search.making import Order, Siblings, made_ahead, siblings_of
from evolve.search.operators import Select, parents_of
from evolve.search.rates import OperatorRates
from evolve.search.refiner import Refiner

#: Refinement takes at most one of so many offspring, where other operators are in use.
_REFINED_SHARE = 2
#: Populations below this are small. They do without tuned numbers until they have seen so many candidates:
#: the numbers of one structure would take all of a short search.
_LEAST_LARGE, _BEFORE_TUNING = 48, 144
#: Candidates that a varied structure enters with, where there is refinement: itself and others that
#: differ from it in their numbers. Random rules enter alone: five structures tell more than one five times.
_BROOD = 5


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
        self._spent: tuple[str, float] | None = None  # by the best, once somebody asked
        # What was evaluated before this generation is forgotten, but for what was met again.
        self._since = 0
        self._met_again: list[str] = []
        self._told = 0

    @property
    def is_small(self) -> bool:
        """Whether the population is too small to tune numbers from the start."""
        return self._problem.population < _LEAST_LARGE

    @property
    def tunes(self) -> bool:
        """Whether numbers are tuned by refinement, and new structures enter with several sets of them."""
        return not self.is_small or self._told >= _BEFORE_TUNING

    def begin(self) -> list[Offspring]:
        """Return the seed heuristics and, if there is room, variations of them."""
        seeds = list(self._problem.seeds)
        self._novelty.add([each.candidate for each in seeds])
        pool = [_unscored(each) for each in seeds]
        self._asked = seeds + self._vary(lambda: random.choice(pool), self._problem.population - len(seeds))
        return self._asked

    def begin_anew(self) -> list[Offspring]:
        """Return random rules."""
        pool = [_unscored(each) for each in self._problem.seeds]
        self._asked = self._vary(lambda: random.choice(pool), self._problem.population, {"newcomer": 1.0})
        return self._asked

    def forget(self, generation: int, known: Sequence[Scored]) -> None:
        """Treat nothing evaluated before this generation as known but these, and refine nothing of it."""
        self._since = generation
        self._met_again = [each.candidate.id for each in known]
        self._novelty = Novelty(self._problem)
        self._novelty.add([each.candidate for each in known])
        self._refiner = Refiner(self._problem)
        self._best = None

    def breed(
        self,
        select: Select,
        pool: Sequence[Scored],
        well_fitted: Collection[str] = (),
        unselect: Callable[[Scored], None] = lambda _: None,
    ) -> list[Offspring]:
        """Return one generation of offspring.

        Args:
            select: Draws a parent; called while Python's global generator is seeded.
            pool: What is worth refining.
            well_fitted: Ids of the structures among these whose predicted loss is near the measured one.
            unselect: Takes back that a parent was selected, where that has effects: some are drawn in vain.
        """
        population, shares = self._problem.population, self._rates.shares()
        most = 0
        if len(shares) == 1:
            most = population
        elif self.tunes:
            most = population // _REFINED_SHARE
        refined = self._refiner.ask(
            pool,
            min(most, round(shares.get("refine", 0.0) * population)),
            lambda: self._seeds.draw(1)[0],
            well_fitted,
        )
        self._novelty.add([each.candidate for each in refined])
        self._parents = {each.candidate.id: each for each in (*pool, *self._refiner.best)}
        self._asked = refined + self._vary(select, population - len(refined), unselect=unselect)
        return self._asked

    def _vary(
        self,
        select: Select,
        wanted: int,
        shares: Mapping[str, float] | None = None,
        unselect: Callable[[Scored], None] = lambda _: None,
    ) -> list[Offspring]:
        shares = shares or self._rates.shares()
        # Where nothing is left to refine, its share goes to the others.
        names = [name for name in shares if name != "refine"] or ["parameters"]
        weights = [shares.get(name, 1.0) for name in names]

        with seeded() as reseed:

            def draw(seed: int) -> tuple[Order, list[Scored]]:
                reseed(seed)
                (operator,) = random.choices(names, weights)
                parents = [select() for _ in range(parents_of(operator, self._problem))]
                self._parents |= {each.candidate.id: each for each in parents}
                rules = tuple(each.candidate for each in parents)
                return Order(operator, rules, random.getstate(), self._bits_of_newcomers), parents

            def make(count: int) -> Generator[Made]:
                return made_ahead(self._problem, self._seeds, draw, count, unselect)

            if not self.tunes:
                return gather(make, self._novelty, wanted)
            brood = 1 if names == ["newcomer"] else _BROOD
            found: list[Offspring] = []
            while len(found) < wanted:
                first = gather(make, self._novelty, -(-(wanted - len(found)) // brood))
                if not first:
                    break
                found += first
                siblings = self._siblings(first)[: wanted - len(found)]
                found += [each.offspring for each in siblings if self._novelty.is_new(each)]
            return found

    def _siblings(self, first: Sequence[Offspring]) -> list[Made]:
        """Give new structures other numbers too, so that they are not judged by those they came with."""
        draws = self._seeds.draw(len(first))
        wanted = []
        for each, draw in zip(first, draws, strict=True):
            if self._has_new_numbers(each):
                parent = self._parents.get(each.parents[0])
                rule = None if parent is None else parent.candidate
                wanted.append(Siblings(each, rule, self._bits_of_best, _BROOD - 1, draw))
        families = self._problem.each(siblings_of, wanted)
        return [each for family in families for each in family]

    @property
    def _bits_of_newcomers(self) -> float:
        """What random rules are to spend; NaN where nobody knows yet."""
        bits = self._bits_of_best if self.tunes else None
        return math.nan if bits is None else bits

    @property
    def _bits_of_best(self) -> float | None:
        """Binary logarithm of the bits a weight that the best rule so far spends; None without one."""
        if self._best is None:
            return None
        candidate = self._best.candidate
        if self._spent is None or self._spent[0] != candidate.id:
            self._spent = candidate.id, spent_by(self._problem, candidate)
        return self._spent[1]

    def _has_new_numbers(self, offspring: Offspring) -> bool:
        """Whether others with other numbers come beside an offspring."""
        template = self._problem.templates[offspring.candidate.template]
        varied = offspring.operator not in ("parameters", "newcomer")
        return varied and bool(template.parameters_of(offspring.candidate))

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the offspring asked for, in the same order."""
        check_count(self._asked, scored)
        self._told += len(scored)
        known = self._parents | {each.candidate.id: each for each in scored}
        pairs = list(zip(self._asked, scored, strict=True))
        self._rates.tell((asked.operator, self._succeeded(asked, each, known)) for asked, each in pairs)
        self._refiner.tell([each for asked, each in pairs if asked.operator == "refine"])
        self._met_again += [each.candidate.id for each in scored if each.generation < self._since]
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
            "since": self._since,
            "met_again": list(self._met_again),
            "told": self._told,
        }

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state."""
        self._seeds.restore(state["seeds"])
        self._best = None if state["best"] is None else archive[state["best"]]
        self._rates.restore(state["rates"])
        self._refiner.restore(state["refiner"], archive)
        self._since = state["since"]
        if self._since:
            self._novelty = Novelty(self._problem)
        self._met_again = list(state["met_again"])
        # Runs that an earlier version began did not count.
        self._told = state.get("told", 0)
        known = [each for each in archive.values() if each.generation >= self._since]
        known += [archive[each] for each in self._met_again]
        self._novelty.add([each.candidate for each in known])


def _unscored(offspring: Offspring) -> Scored:
    """Let seeds be parents in the first generation, before anything is known of them."""
    return Scored(offspring, Evaluation("ok"))
