"""Offspring are the same wherever they are made, and what is gathered of them is new."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import islice

import pytest

from evolve.candidates import Evaluation, Scored
from evolve.configuration import RunConfig
from evolve.executors import make_executor
from evolve.grammar import seeded
from evolve.search.base import OPERATORS, CandidateSeeds, Made, Novelty, Problem, gather
from evolve.search.making import Order, Siblings, made_ahead, made_by, siblings_of
from evolve.search.operators import draw_newcomer, parents_of
from evolve.setup import Setup, prepare_run


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare_run(RunConfig(datasets="reference", population=60))


def orders(problem: Problem, count: int) -> list[Order]:
    """What might be drawn: each operator in turn, parents at random."""
    found = []
    names = [name for name in OPERATORS if name != "refine"]
    with seeded() as reseed:
        for place in range(count):
            reseed(place)
            operator = names[place % len(names)]
            parents = [draw_newcomer(problem).candidate for _ in range(parents_of(operator, problem))]
            found.append(Order(operator, tuple(parents), random.getstate(), 3.0 if place % 2 else None))
    return found


def test_offspring_are_the_same_wherever_they_are_made(setup):
    problem = setup.problem
    drawn = orders(problem, 60)
    here = list(problem.each(made_by, drawn))
    assert {each.offspring.operator for each in here} >= {"newcomer", "structure", "crossover", "template"}
    wanted = [
        Siblings(made.offspring, order.parents[0], 3.0, 4, place)
        for place, (made, order) in enumerate(zip(here, drawn, strict=True))
        if order.parents
        and problem.templates[made.offspring.candidate.template].parameters_of(made.offspring.candidate)
    ]
    families = list(problem.each(siblings_of, wanted))
    assert any(len(each) == 4 for each in families)
    with make_executor(setup.arena, 2, problem) as executor:
        elsewhere = replace(problem, spread=executor.spread)
        assert list(elsewhere.each(made_by, drawn)) == here
        assert list(elsewhere.each(siblings_of, wanted)) == families
        with closing(elsewhere.each(made_by, drawn)) as found:
            assert next(found) == here[0]
        assert list(elsewhere.each(made_by, drawn[:3])) == here[:3]


def test_making_leaves_the_global_generator_alone(setup):
    random.seed(9)
    expected = random.getstate()
    made_by(setup.problem, orders(setup.problem, 3)[2])
    assert random.getstate() == expected


@pytest.mark.parametrize("taken", [0, 1, 5, 8, 23])
def test_what_is_drawn_in_vain_leaves_nothing(setup, taken):
    problem = setup.problem
    parents = [draw_newcomer(problem) for _ in range(4)]
    scored = [Scored(each, Evaluation("ok")) for each in parents]

    def ways(count: int) -> tuple[list[Made], dict[str, int], object]:
        """Offspring, how often each parent counts as selected, and the state of the seeds."""
        seeds, selected = CandidateSeeds(4), dict.fromkeys((each.candidate.id for each in parents), 0)

        def draw(seed: int) -> tuple[Order, list[Scored]]:
            random.seed(seed)
            chosen = random.choice(scored)
            selected[chosen.candidate.id] += 1
            return Order("structure", (chosen.candidate,), random.getstate(), None), [chosen]

        def unselect(parent: Scored) -> None:
            selected[parent.candidate.id] -= 1

        with seeded(), closing(made_ahead(problem, seeds, draw, count, unselect)) as found:
            made = list(islice(found, taken))
        return made, selected, seeds.state()

    few, many = ways(1), ways(9)
    assert few == many
    assert len(few[0]) == sum(few[1].values()) == taken


def test_what_is_gathered_is_new(setup):
    tried: list[Made] = []

    def make(count: int) -> Generator[Made]:
        for each in setup.problem.each(made_by, orders(setup.problem, 12 * count)):
            tried.append(each)
            yield each

    novelty = Novelty(setup.problem)
    found = gather(make, novelty, 7)
    assert 0 < len(found) <= 7
    assert len({each.candidate.id for each in found}) == len(found)
    # All that was seen is known now.
    assert not any(novelty.is_new(each) for each in tried)


def test_what_nobody_can_make_is_given_up(setup):
    (only,) = setup.problem.each(made_by, orders(setup.problem, 1))
    tried = []

    def make(count: int) -> Generator[Made]:
        while True:
            tried.append(count)
            yield only

    assert gather(make, Novelty(setup.problem), 5) == [only.offspring]
    assert len(tried) == 5 + 11 * 4
