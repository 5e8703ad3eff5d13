"""The search of numbers alone: when it is used, that it keeps the contract, and that it finds the bottom."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.configuration import RunConfig
from evolve.parameters import linear, log
from evolve.search import make_strategy
from evolve.search.base import OPERATORS, Problem
from evolve.search.genetic import Genetic
from evolve.search.numbers import NumberSearch
from evolve.setup import prepare_run
from evolve.templates import Template

TARGET = {"limit": 0.0321, "share": 0.618, "part": 0.3}
BODY = """
def allocate(model, p):
    return model.where(model.param_fraction > p.limit + p.share * p.part, "FP16", "INT8")
"""
NUMBERS = (log("limit", 0.9, 1e-4, 1.0), linear("share", 0.1, 0.0, 1.0), linear("part", 0.9, 0.0, 1.0))
FORM = Template("toy", BODY, (), NUMBERS, kind="function")
START = Offspring(
    Candidate("toy", (), tuple((each.name, each.default) for each in NUMBERS)), "seed", (), "toy"
)
USED = {"parameters": 2.0, "crossover": 4.0, "refine": 8.0}


def problem(seed: int = 0, population: int = 24, **changes: object) -> Problem:
    made = replace(
        prepare_run(RunConfig()).problem,
        seeds=(START,),
        templates={"toy": FORM},
        operators=USED,
        seed=seed,
        population=population,
    )
    return replace(made, **changes)


def scored(offspring: Offspring) -> Scored:
    """A bowl in unit coordinates: 1 at the target, less around it."""
    values = dict(offspring.candidate.parameters)
    loss = sum((each.to_unit(values[each.name]) - each.to_unit(TARGET[each.name])) ** 2 for each in NUMBERS)
    return Scored(offspring, Evaluation("ok", train=SplitScore(1 - loss, 1, 1, 1, 1, 1 - loss, 1 - loss)))


def failed(offspring: Offspring) -> Scored:
    return Scored(offspring, Evaluation("failed", "raised", "…"))


def test_it_is_used_where_the_numbers_of_one_structure_are_refined_and_nothing_else_varies():
    assert isinstance(make_strategy("genetic", problem()), NumberSearch)
    other = Offspring(Candidate("toy"), "seed", (), "bare")
    for changed in (
        {"operators": OPERATORS},
        {"operators": {"parameters": 1.0}},
        {"operators": {**USED, "mine": 1.0}},
        {"seeds": (START, other)},
        {"seeds": (other,)},
    ):
        assert isinstance(make_strategy("genetic", problem(**changed)), Genetic)


def test_the_rule_as_it_stands_and_the_middle_of_the_ranges_come_first():
    search = make_strategy("genetic", problem())
    first, middle = search.ask()
    assert first == START
    assert dict(middle.candidate.parameters) == {"limit": 0.01, "share": 0.5, "part": 0.5}
    assert middle.parents == (START.candidate.id,)
    search.tell([scored(first), scored(middle)])
    asked = search.ask()
    assert len(asked) == 24
    assert {each.parents for each in asked} == {(first.candidate.id,), (middle.candidate.id,)}
    search.tell([scored(each) for each in asked])
    # The better of both goes on.
    assert len(search.ask()) == 12
    assert {each["start"] for each in search.state()["runs"]} == {middle.candidate.id}


def test_a_middle_that_is_the_rule_itself_is_evaluated_once():
    middle = make_strategy("genetic", problem()).ask()[1]
    search = make_strategy("genetic", problem(seeds=(replace(middle, operator="seed", parents=()),)))
    assert len(search.ask()) == 1


@pytest.mark.parametrize("population", [2, 24, 500])
@pytest.mark.parametrize("judge", [scored, failed])
def test_a_restored_search_goes_on_as_the_original(population, judge):
    """Also where a run has come to rest and another begins from random numbers."""
    searched = problem(3, population)
    search = make_strategy("genetic", searched)
    archive: dict[str, Scored] = {}
    changes: set[str] = set()
    for _ in range(60):
        copy = make_strategy("genetic", searched)
        copy.restore(json.loads(json.dumps(search.state())), archive)
        assert copy.state() == search.state()
        asked = search.ask()
        assert copy.ask() == asked
        assert 0 < len(asked) <= max(8, population)
        changes |= {each.change for each in asked}
        archive |= {each.candidate.id: judge(each) for each in asked if each.candidate.id not in archive}
        told = [archive[each.candidate.id] for each in asked]
        search.tell(told)
        copy.tell(told)
        assert copy.state() == search.state()
    assert judge is scored or "random numbers" in changes
    if judge is scored:
        assert max(each.evaluation.objective for each in archive.values()) > 0.9999


def test_tell_wants_one_evaluation_an_offspring():
    search = make_strategy("genetic", problem())
    asked = search.ask()
    with pytest.raises(ValueError, match="expected 2 evaluations"):
        search.tell([scored(asked[0])])
