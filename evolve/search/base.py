"""The contract of a search strategy, and what all of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from evolve.candidates import Candidate, Offspring, Scored
from evolve.extensions import OperatorPlugin
from evolve.grammar import Vocabulary
from evolve.templates import Template

FloatArray = NDArray[np.float64]
Item = TypeVar("Item")
Found = TypeVar("Found")

#: What may vary a candidate, with the default weight of each: its share of the offspring before
#: anything is known of its success (see `evolve.search.rates`).
OPERATORS: Mapping[str, float] = {
    "parameters": 2.0,
    "structure": 12.0,
    "crossover": 4.0,
    "template": 1.0,
    "newcomer": 2.0,
    "refine": 20.0,
}
#: Objectives that differ by less are equal, so that no rule grows for the sake of rounding.
RESOLUTION = 1e-6
#: Complexity of the largest rule in a search that fits losses: some fifteen lines, two numbers a layer type.
MOST_NODES = 240


class Fit(Protocol):
    """What fits predicted losses to measured ones."""

    def __call__(self, candidate: Candidate, /) -> Candidate:
        """Return a candidate with the numbers of its predicted loss fitted; as it is where there are none."""

    def error(self, candidate: Candidate) -> float:
        """Return how far a candidate's predicted loss is from the measured one; infinite without one."""


@dataclass(frozen=True)
class Problem:
    """What a strategy searches.

    Attributes:
        seeds: The seed heuristics, named by their ``change``.
        templates: Every code template, by name.
        words: What random expressions are made of.
        population: Candidates a generation.
        seed: The run's seed.
        fingerprint: Returns, for each candidate, a text that is equal where two rules allocate alike,
            and the candidate's complexity. It costs no evaluation.
        spending: Returns the binary logarithm of the bits a weight that C candidates of one structure
            spend, on average over some models, for (C, S) values of the named parameter, with which others
            may change by the same factor; NaN where a rule fails. It costs no evaluation either.
        operators: Weight of each operator; those left out or at 0 are not used.
        plugins: Operators from plugins, by name.
        fit: Fits the numbers of a candidate's predicted loss to measured ones; None where that is not wanted.
        prices: Sets the numbers of a candidate's price to what does best; as it is where that cannot be told.
            None where losses are not fitted either.
        spread: Spreads the calls of a function, with this problem and each of some items, over processes;
            None calls one after the other.
    """

    seeds: tuple[Offspring, ...]
    templates: Mapping[str, Template]
    words: Vocabulary
    population: int
    seed: int
    fingerprint: Callable[[Sequence[Candidate]], list[tuple[str, int]]]
    spending: Callable[[Sequence[Candidate], str, FloatArray, Sequence[str]], FloatArray]
    operators: Mapping[str, float] = field(default_factory=lambda: dict(OPERATORS))
    plugins: Mapping[str, OperatorPlugin] = field(default_factory=dict)
    fit: Fit | None = None
    prices: Callable[[Candidate], Candidate] | None = None
    spread: Spread | None = None

    def each(self, function: Callable[[Problem, Item], Found], items: Sequence[Item]) -> Generator[Found]:
        """Yield what a function of a module, one without side effects, finds for each item, in order."""
        if self.spread is None:
            yield from (function(self, each) for each in items)
        else:
            with closing(self.spread(function, items)) as found:
                yield from found


class Made(NamedTuple):
    """An offspring with the mark by which novelty knows it, as `Problem.fingerprint` gives it."""

    offspring: Offspring
    mark: tuple[str, int]


class Spread(Protocol):
    """Calls a function for many items at once."""

    def __call__(
        self, function: Callable[[Problem, Item], Found], items: Sequence[Item], /
    ) -> Generator[Found]:
        """Yield what the function finds for each item, in order; closed, it calls it no more."""


#: Rounds of proposals a strategy makes to find rules that allocate in a new way.
_ROUNDS = 12


class Strategy(Protocol):
    """Asked for offspring, told what they scored.

    A strategy's state is JSON: restored in another object, no public method can tell the two apart.
    """

    def ask(self) -> list[Offspring]:
        """Return the offspring of the next generation."""

    def tell(self, scored: Sequence[Scored]) -> None:
        """Take the evaluations of the offspring asked for, in the same order."""

    def state(self) -> dict[str, Any]:
        """Return the state as JSON; candidates by their ids."""

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        """Take over a state; ``archive`` holds every candidate evaluated so far, by id."""

    def welcome(self, immigrants: Sequence[Scored]) -> None:
        """Take in candidates that another strategy found; they may become parents, or be ignored."""


def objective_bucket(objective: float) -> float:
    """Return the objective in steps of `RESOLUTION`; −∞ stays what it is."""
    return float(round(objective / RESOLUTION)) if math.isfinite(objective) else objective


def rank_key(scored: Scored) -> tuple[float, int]:
    """Order candidates: by objective on train, the simpler first at equal objective. Larger is better.

    This is lexicographic parsimony with buckets (Luke 2002), the buckets being as narrow as `RESOLUTION`.
    """
    return objective_bucket(scored.evaluation.objective), -scored.evaluation.complexity


def first_of(ranked: Sequence[Scored], kind: Callable[[Scored], object], count: int) -> list[Scored]:
    """Return the first so many of each kind, in the order given."""
    seen: dict[object, int] = {}
    first = []
    for each in ranked:
        seen[kind(each)] = seen.get(kind(each), 0) + 1
        if seen[kind(each)] <= count:
            first.append(each)
    return first


class Novelty:
    """Knows which allocations were tried, so that no evaluation is spent on one twice.

    A rule that allocates as a known one does is new only if it is simpler. In a search that fits losses, one
    beyond `MOST_NODES` never is: every number more comes nearer to train there, and so rules would grow until
    nobody can read them.
    """

    def __init__(self, problem: Problem) -> None:
        self._fingerprint = problem.fingerprint
        self._most_nodes = math.inf if problem.fit is None else MOST_NODES
        self._simplest: dict[str, int] = {}
        self._known: set[str] = set()

    def add(self, candidates: Sequence[Candidate]) -> list[bool]:
        """Remember candidates; tells for each whether it was new."""
        # Fingerprinting costs far more than looking up what was seen.
        unseen = {each.id: each for each in candidates if each.id not in self._known}
        marks = dict(zip(unseen, self._fingerprint(list(unseen.values())), strict=True))
        return [self._is_new(each.id, marks.get(each.id)) for each in candidates]

    def is_new(self, made: Made) -> bool:
        """Remember an offspring whose mark is known; tells whether it was new."""
        return self._is_new(made.offspring.candidate.id, made.mark)

    def _is_new(self, name: str, mark: tuple[str, int] | None) -> bool:
        if mark is None or name in self._known:
            return False
        self._known.add(name)
        behaviour, size = mark
        is_new = size < self._simplest.get(behaviour, size + 1) and size <= self._most_nodes
        if is_new:
            self._simplest[behaviour] = size
        return is_new


def gather(make: Callable[[int], Generator[Made]], novelty: Novelty, wanted: int) -> list[Offspring]:
    """Collect new offspring, in a few rounds of proposals; what is missing then is not made up.

    Args:
        make: Yields proposals without end, when so many are wanted.
        novelty: Says which of them are new.
        wanted: How many are wanted.
    """
    found: list[Offspring] = []
    with closing(make(wanted)) as proposals:
        for _ in range(_ROUNDS):
            if len(found) >= wanted:
                break
            tried = islice(proposals, wanted - len(found))
            found += [each.offspring for each in tried if novelty.is_new(each)]
    return found


class CandidateSeeds:
    """Draws one seed a candidate from the run's numpy generator, so that candidates are independent."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def draw(self, count: int) -> list[int]:
        """Return the next seeds."""
        return [int(each) for each in self._generator.integers(2**63, size=count)]

    def state(self) -> dict[str, Any]:
        """Return the generator's state as JSON."""
        return dict(self._generator.bit_generator.state)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state."""
        self._generator.bit_generator.state = state


def check_count(asked: Sequence[Offspring], told: Sequence[Scored]) -> None:
    """Raise `ValueError` unless as many evaluations are told as offspring were asked for."""
    if len(asked) != len(told):
        raise ValueError(f"tell: expected {len(asked)} evaluations, one an offspring, found {len(told)}")
