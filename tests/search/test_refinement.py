from __future__ import annotations

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.configuration import RunConfig
from evolve.parameters import linear, log
from evolve.search.refinement import Refinement
from evolve.search.refiner import Refiner, structure_id
from evolve.setup import prepare_run
from evolve.templates import Template

TARGET = {"limit": 0.0321, "share": 0.618}
BODY = """
def allocate(model, p):
    return model.where(model.param_fraction > p.limit + p.share, "FP16", "INT8")
"""
FORM = Template(
    "toy", BODY, (), (log("limit", 0.3, 1e-4, 1.0), linear("share", 0.1, 0.0, 1.0)), kind="function"
)
ONE = replace(FORM, name="single", parameters=FORM.parameters[:1])


def scored(offspring: Offspring, template: Template = FORM) -> Scored:
    """A quadratic bowl in unit coordinates: 1 at the target, less around it."""
    loss = sum(
        (each.to_unit(value) - each.to_unit(TARGET[each.name])) ** 2
        for each, (_, value) in zip(template.parameters, offspring.candidate.parameters, strict=True)
    )
    return Scored(offspring, Evaluation("ok", train=SplitScore(1 - loss, 1, 1, 1, 1, 1 - loss, 1 - loss)))


def start(template: Template = FORM) -> Scored:
    candidate = Candidate(template.name, (), tuple((each.name, each.default) for each in template.parameters))
    return scored(Offspring(candidate, "seed"), template)


def climb(refinement: Refinement, template: Template, generations: int) -> None:
    for _ in range(generations):
        for each in [refinement.ask() for _ in range(refinement.waiting)]:
            refinement.tell(scored(each, template))


@pytest.mark.parametrize("template", [FORM, ONE])
def test_the_numbers_of_a_bowl_are_found(template):
    first = start(template)
    refinement = Refinement(template, first, seed=1)
    climb(refinement, template, 25)
    loss = 1 - refinement.best.evaluation.objective
    assert loss < 1e-4 < 0.01 * (1 - first.evaluation.objective)


def test_from_the_best_of_widely_drawn_samples_another_hill_is_found():
    """A narrow hill beside a higher one: from its top, narrow samples see nothing better."""
    target, other = FORM.parameters[0].to_unit(0.0321), FORM.parameters[1].to_unit(0.95)

    def two_hills(offspring: Offspring) -> Scored:
        first, second = (
            each.to_unit(value)
            for each, (_, value) in zip(FORM.parameters, offspring.candidate.parameters, strict=True)
        )
        high = 1.0 - 4 * (first - target) ** 2 - 4 * (second - other) ** 2
        low = 0.9 - 400 * (first - target) ** 2 - 400 * (second - 0.75) ** 2
        value = max(high, low)
        return Scored(offspring, Evaluation("ok", train=SplitScore(value, 1, 1, 1, 1, value, value)))

    top = (("limit", 0.0321), ("share", 0.75))
    first = two_hills(Offspring(Candidate(FORM.name, (), top), "seed"))
    reached = []
    for scattered in (0, 16):
        refinement = Refinement(FORM, first, seed=4, spread=0.01, scattered=scattered)
        while not refinement.finished:
            for each in [refinement.ask() for _ in range(refinement.waiting)]:
                refinement.tell(two_hills(each))
        reached.append(refinement.best.evaluation.objective)
        again = Refinement.from_state(
            json.loads(json.dumps(refinement.state())),
            {each.candidate.id: each for each in [first, *refinement.told]},
            {FORM.name: FORM},
        )
        assert [again.ask() for _ in range(again.waiting)] == [
            refinement.ask() for _ in range(refinement.waiting)
        ]
    assert reached[0] < 0.95 < 0.999 < reached[1]


def test_numbers_stay_in_bounds_and_have_few_digits():
    at_the_edge = tuple((each.name, each.low) for each in FORM.parameters)
    first = scored(Offspring(Candidate(FORM.name, (), at_the_edge), "seed"))
    refinement = Refinement(FORM, first, seed=2)
    for _ in range(refinement.waiting):
        offspring = refinement.ask()
        for each, (name, value) in zip(FORM.parameters, offspring.candidate.parameters, strict=True):
            assert each.name == name
            assert each.low <= value <= each.high
            assert value == float(f"{value:.5g}")
        assert offspring.operator == "refine"
        assert offspring.parents == (first.candidate.id,)
        assert f"limit {FORM.parameters[0].low:.5g} → " in offspring.change


@pytest.mark.parametrize("told", range(0, 40, 3))
def test_a_state_through_json_is_the_same_refinement(told):
    """Also in the middle of a CMA-ES generation."""
    original = Refinement(FORM, start(), seed=3)
    archive = {start().candidate.id: start()}
    for _ in range(told):
        each = scored(original.ask())
        archive[each.candidate.id] = each
        original.tell(each)
    state = json.loads(json.dumps(original.state()))
    copy = Refinement.from_state(state, archive, {FORM.name: FORM})
    assert copy.state() == original.state()
    for _ in range(30):
        one, other = original.ask(), copy.ask()
        assert one == other
        original.tell(scored(one))
        copy.tell(scored(other))
    assert copy.finished == original.finished


def test_failures_everywhere_end_it():
    refinement = Refinement(FORM, start(), seed=4)
    with np.errstate(all="raise"):
        while not refinement.finished:
            refinement.tell(Scored(refinement.ask(), Evaluation("failed", "raised", "…")))
    assert refinement.best == start()
    assert len(refinement.told) < 100


def refiner() -> Refiner:
    problem = prepare_run(RunConfig()).problem
    return Refiner(replace(problem, templates={FORM.name: FORM, ONE.name: ONE}))


def test_the_refiner_refines_structures_with_numbers_and_then_lets_them_be():
    bare = Scored(Offspring(Candidate("toy"), "seed"), Evaluation("ok", train=start().evaluation.train))
    broken = replace(start(ONE), evaluation=Evaluation("failed", "raised", "…"))
    under_test = refiner()
    pool = [bare, broken, start()]
    asked = under_test.ask(pool, 100, lambda: 5)
    assert asked
    assert {each.candidate.template for each in asked} == {"toy"}
    rounds = 0
    while asked:
        told = [scored(each) for each in asked]
        pool += told
        under_test.tell(told)
        asked = under_test.ask(pool, 4, lambda: 6)
        assert len(asked) <= 4
        rounds += 1
        assert rounds < 2000
    assert max(each.evaluation.objective for each in pool) > 0.995
    # A better rule of the same structure is reason enough to begin again.
    best = max(pool, key=lambda each: each.evaluation.objective)
    higher = replace(best.evaluation.train, objective=best.evaluation.objective + 0.1)
    better = replace(best, evaluation=replace(best.evaluation, train=higher))
    assert under_test.ask([*pool, better], 4, lambda: 7)


def test_a_structure_is_refined_again_by_larger_generations_and_from_elsewhere():
    under_test = refiner()
    sizes = []
    while asked := under_test.ask([start()], 1000, lambda: 1):
        sizes.append(len(asked))
        under_test.tell([replace(start(), offspring=each) for each in asked])
    smallest = sizes[0]
    assert list(dict.fromkeys(sizes)) == [smallest, 2 * smallest, 16]


def test_what_rises_is_followed_and_what_is_new_gets_its_turn():
    flat = {f"flat{place}": replace(FORM, name=f"flat{place}") for place in range(12)}
    problem = prepare_run(RunConfig()).problem
    under_test = Refiner(replace(problem, templates={FORM.name: FORM, **flat}))
    level = 0.75

    def judged(offspring: Offspring) -> Scored:
        if offspring.candidate.template == FORM.name:
            return scored(offspring)
        score = SplitScore(level, 1, 1, 1, 1, level, level)
        return Scored(offspring, Evaluation("ok", train=score))

    starts = [start(form) for form in (FORM, *flat.values())]
    pool = [judged(each.offspring) for each in starts]
    assert pool[0].evaluation.objective < level
    samples = dict.fromkeys((FORM.name, *flat), 0)
    best = 0.0
    while best < 0.99:
        told = [judged(each) for each in under_test.ask(pool, 40, lambda: 1)]
        under_test.tell(told)
        for each in told:
            samples[each.candidate.template] += 1
            best = max(best, each.evaluation.objective)
    assert min(samples.values()) > 0
    assert samples[FORM.name] > 2 * statistics.median(samples[name] for name in flat)


def test_nothing_is_asked_where_nothing_is_wanted():
    assert not refiner().ask([start()], 0, lambda: pytest.fail("a seed was drawn"))


def test_structures_differ_by_more_than_their_numbers():
    other = replace(start().candidate, parameters=(("limit", 0.5), ("share", 0.2)))
    assert structure_id(other) == structure_id(start().candidate)
    assert structure_id(start(ONE).candidate) != structure_id(start().candidate)
