"""Offspring made from what was drawn for them: the costly part of breeding, in whichever process.

Which operator makes an offspring, and of which parents, is drawn where the search is. All the rest needs no
more than the problem: to vary, to fit, to see whom a rule allocates like. So it can be spread over processes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from evolve.candidates import Candidate, Offspring, Scored
from evolve.grammar import seeded
from evolve.search.base import CandidateSeeds, Made, Problem
from evolve.search.calibration import calibrated
from evolve.search.fitting import family_of, newcomer_of
from evolve.search.operators import apply_operator
from evolve.variation import redraw_parameters, words_for_numbers

#: How many are drawn at once, for each offspring wanted and at least: about one of four is new.
_AHEAD, _LEAST_AHEAD = 2, 8


class Order(NamedTuple):
    """What was drawn for one offspring.

    Attributes:
        operator: What is to make it.
        parents: Whom it is to be made of.
        state: State of Python's global generator, from which the operator draws on.
        bits: Binary logarithm of the bits a weight that a random rule is to spend, once it is fitted; NaN
            where nobody knows, None to leave it as it is drawn.
    """

    operator: str
    parents: tuple[Candidate, ...]
    state: tuple[Any, ...]
    bits: float | None


class Siblings(NamedTuple):
    """What is to come beside a new structure: the same with other numbers.

    Attributes:
        first: The structure as it was bred.
        parent: What it was made from; None where nobody knows.
        best: Binary logarithm of the bits a weight that the best rule so far spends; None without one.
        most: How many siblings at most.
        seed: Seed of what is drawn.
    """

    first: Offspring
    parent: Candidate | None
    best: float | None
    most: int
    seed: int


def made_ahead(
    problem: Problem,
    seeds: CandidateSeeds,
    draw: Callable[[int], tuple[Order, Sequence[Scored]]],
    count: int,
    unselect: Callable[[Scored], None],
) -> Generator[Made]:
    """Yield offspring without end, drawn ahead of what is asked for, so that no process need wait.

    Closed, it leaves everything as if what nobody took had never been drawn.

    Args:
        problem: What is searched.
        seeds: Draws a seed for each.
        draw: Returns what was drawn with a seed, and the parents that were selected for it.
        count: How many offspring are wanted, of about four times as many.
        unselect: Takes back that a parent was selected.
    """
    while True:
        states, drawn = [], []
        for _ in range(max(_LEAST_AHEAD, _AHEAD * count)):
            states.append(seeds.state())
            drawn.append(draw(*seeds.draw(1)))
        taken = 0
        try:
            with closing(_made(problem, [order for order, _ in drawn])) as made:
                for each in made:
                    taken += 1
                    yield each
        finally:
            if taken < len(drawn):
                seeds.restore(states[taken])
            for _, parents in drawn[taken:]:
                for parent in parents:
                    unselect(parent)


def _made(problem: Problem, orders: Sequence[Order]) -> Generator[Made]:
    """Make what was drawn; what an operator from a plugin makes, here, where plugins are."""
    spread = [each for each in orders if each.operator not in problem.plugins]
    with closing(problem.each(made_by, spread)) as others:
        for each in orders:
            yield made_by(problem, each) if each.operator in problem.plugins else next(others)


def made_by(problem: Problem, order: Order) -> Made:
    """Make one offspring; a random rule gets fitted numbers, where there are fits, and a price."""
    with seeded():
        random.setstate(order.state)
        made = apply_operator(order.operator, problem, order.parents)
    if made.operator == "newcomer" and order.bits is not None:
        candidate, is_fitted = newcomer_of(problem, made.candidate, order.bits)
        how = ", its numbers set by fit and price" if is_fitted else ""
        made = replace(made, candidate=candidate, change=made.change + how)
    return marked(problem, [made])[0]


def siblings_of(problem: Problem, wanted: Siblings) -> list[Made]:
    """Return a new structure with other numbers too, so that it is not judged by those it came with."""
    bred = wanted.first.candidate
    family, bits = family_of(problem, bred, wanted.parent, wanted.best)
    if family:
        how = "its price set: " if problem.fit is None else "fitted to losses: "
        drawn = family[: wanted.most]
    else:
        how = ""
        kept: Mapping[str, float] = {} if wanted.parent is None else dict(wanted.parent.parameters)
        with seeded() as reseed:
            reseed(wanted.seed)
            template = problem.templates[bred.template]
            drawn = [redraw_parameters(bred, template, kept) for _ in range(wanted.most)]
        drawn = calibrated(problem, drawn, bits)
    changes = [f"{wanted.first.change}; {how}{words_for_numbers(bred, each)}" for each in drawn]
    made = zip(drawn, changes, strict=True)
    return marked(problem, [replace(wanted.first, candidate=each, change=change) for each, change in made])


def marked(problem: Problem, offspring: list[Offspring]) -> list[Made]:
    """Return offspring with the marks by which novelty knows them."""
    marks = problem.fingerprint([each.candidate for each in offspring])
    return [Made(*pair) for pair in zip(offspring, marks, strict=True)]
