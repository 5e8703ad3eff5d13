"""Search strategies: they are asked for candidates and told the evaluations, and never evaluate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from evolve.errors import InputError
from evolve.search.base import Problem, Strategy
from evolve.search.genetic import Genetic
from evolve.search.random_search import RandomSearch

STRATEGIES: Mapping[str, Callable[[Problem], Strategy]] = {"genetic": Genetic, "random": RandomSearch}


def make_strategy(name: str, problem: Problem) -> Strategy:
    """Return a new strategy by name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in STRATEGIES:
        raise InputError(
            "unknown strategy", field="strategy", expected=f"one of {', '.join(STRATEGIES)}", found=name
        )
    return STRATEGIES[name](problem)
