"""Search strategies: they are asked for candidates and told the evaluations, and never evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from evolve.errors import InputError
from evolve.search.base import Novelty, Problem, Strategy
from evolve.search.genetic import Genetic
from evolve.search.hillclimb import HillClimb
from evolve.search.islands import ISLANDS, Islands, StrategyFactory
from evolve.search.map_elites import MapElites
from evolve.search.nsga2 import Nsga2
from evolve.search.numbers import NumberSearch, numbers_alone
from evolve.search.random_search import RandomSearch


def _genetic(problem: Problem, novelty: Novelty | None = None) -> Strategy:
    """Return the genetic algorithm; where it had nothing to vary but the numbers of one rule, CMA-ES."""
    return NumberSearch(problem) if numbers_alone(problem) else Genetic(problem, novelty)


def _islands(
    problem: Problem,
    novelty: Novelty | None = None,
    *,
    make: StrategyFactory = _genetic,
    count: int = ISLANDS,
) -> Strategy:
    return Islands(problem, make, count, novelty)


STRATEGIES: Mapping[str, StrategyFactory] = {
    "genetic": _genetic,
    "random": RandomSearch,
    "hillclimb": HillClimb,
    "islands": _islands,
    "map-elites": MapElites,
    "nsga2": Nsga2,
}


def find_strategy(name: str, plugins: Mapping[str, StrategyFactory] | None = None) -> StrategyFactory:
    """Return what makes the strategy of a name.

    ``islands:hillclimb`` is islands of hill climbing, ``islands:8:genetic`` so many of genetic search.

    Args:
        name: The strategy's name.
        plugins: Strategies from plugins, by name.

    Raises:
        InputError: There is none of that name.
    """
    known = {**STRATEGIES, **(plugins or {})}
    if name in known:
        return known[name]
    first, *rest = name.split(":")
    if first == "islands" and rest:
        count = ISLANDS
        if rest[0].isascii() and rest[0].isdecimal():
            count = int(rest.pop(0))
        inner = ":".join(rest) if rest else "genetic"
        if count >= 1 and inner:
            return partial(_islands, make=find_strategy(inner, plugins), count=count)
    raise InputError(
        "unknown strategy",
        field="strategy",
        expected=f"one of {', '.join(known)}, or islands:NAME, islands:COUNT:NAME",
        found=name,
    )


def make_strategy(
    name: str, problem: Problem, plugins: Mapping[str, StrategyFactory] | None = None
) -> Strategy:
    """Return a new strategy by name; ``plugins`` has those from plugins, by name.

    Raises:
        InputError: There is none of that name.
    """
    return find_strategy(name, plugins)(problem, None)
