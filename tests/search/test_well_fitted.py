"""Structures whose predicted loss is near the measured one have a place of their own."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.configuration import RunConfig
from evolve.grammar import seeded
from evolve.search.base import Problem
from evolve.search.refiner import Refiner, structure_id
from evolve.search.well_fitted import WellFitted
from evolve.setup import prepare_run


class ErrorsGiven:
    """Fits nothing; the error of a rule's loss is the number that it calls `rate`."""

    def __call__(self, candidate: Candidate, /) -> Candidate:
        return candidate

    def error(self, candidate: Candidate) -> float:
        return dict(candidate.parameters).get("rate", float("inf"))


@pytest.fixture(scope="module")
def problem() -> Problem:
    setup = prepare_run(RunConfig(datasets="suite", signals="gradient", population=60))
    return replace(setup.problem, fit=ErrorsGiven())


def scored(price: str, objective: float, error: float, per: str = "model.param_fraction") -> Scored:
    slots = (("weight", per), ("loss", "np.exp(-(p.rate * model.bits))"), ("price", price))
    numbers = (("first_price", 1.0), ("second_price", 2.0), ("rate", error))
    score = SplitScore(objective, 1, 1, 1, 1, objective, objective)
    made = Offspring(Candidate("two_pass", slots, numbers), "structure")
    return Scored(made, Evaluation("ok", train=score, complexity=9))


def prices_of(places: WellFitted) -> list[str]:
    return [str(dict(each.candidate.slots)["price"]) for each in places.members]


def test_places_go_to_the_best_of_those_with_little_error(problem):
    places = WellFitted(problem)
    places.welcome([scored("spent", 0.7, 0.13), scored("lost", 0.9, 0.12), scored("model.depth", 0.8, 0.14)])
    assert prices_of(places) == ["lost", "model.depth", "spent"]
    # One that does far better, by numbers tuned to the shares, is no well-fitted one.
    places.welcome([scored("1.0 / spent", 0.99, 0.4)])
    assert prices_of(places) == ["lost", "model.depth", "spent"]
    # Those that are nearer by far make the others leave.
    nearer = [scored(price, 0.5, 0.05) for price in ("-spent", "-lost", "spent * lost")]
    places.welcome(nearer)
    assert sorted(prices_of(places)) == ["-lost", "-spent", "spent * lost"]


def test_each_price_has_two_places(problem):
    places = WellFitted(problem)
    signals = ("model.param_fraction", "model.num_params", "model.weight_std")
    places.welcome([scored("spent", 0.9 + i / 100, 0.13, each) for i, each in enumerate(signals)])
    places.welcome([scored("lost", 0.1, 0.13)])
    assert prices_of(places) == ["spent", "spent", "lost"]


def test_a_structure_stays_as_near_as_it_was_when_its_numbers_are_tuned(problem):
    places = WellFitted(problem)
    places.welcome([scored("spent", 0.7, 0.13), scored("lost", 0.8, 0.13), scored("-lost", 0.1, 0.13)])
    places.welcome([scored("spent", 0.95, 0.9)])
    assert prices_of(places) == ["spent", "lost", "-lost"]
    assert places.members[0].evaluation.objective == 0.95


def test_what_fails_or_predicts_no_loss_has_no_place(problem):
    places = WellFitted(problem)
    ladder = Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")))
    simple = replace(scored("spent", 0.9, 0.1), offspring=Offspring(ladder, "seed"))
    failed = replace(scored("lost", 0.9, 0.1), evaluation=Evaluation("failed", "raised", "…"))
    places.welcome([simple, failed])
    assert not places.members
    unfitted = WellFitted(replace(problem, fit=None))
    unfitted.welcome([scored("spent", 0.9, 0.1)])
    assert not unfitted.members


def test_a_state_is_json_and_makes_the_same_again(problem):
    told = [scored("spent", 0.7, 0.13), scored("lost", 0.8, 0.14), scored("-lost", 0.1, 0.15)]
    original = WellFitted(problem)
    original.welcome(told)
    state = json.loads(json.dumps(original.state()))
    again = WellFitted(problem)
    again.restore(state, {each.candidate.id: each for each in told})
    more = [scored("spent", 0.9, 0.5), scored("-spent", 0.6, 0.17)]
    for each in (original, again):
        each.welcome(more)
    assert again.members == original.members
    assert again.structures == original.structures


def test_the_better_and_the_less_varied_are_drawn_more_often(problem):
    places = WellFitted(problem)
    places.welcome([scored("spent", 0.7, 0.13), scored("lost", 0.8, 0.13), scored("-lost", 0.1, 0.13)])
    with seeded() as reseed:
        reseed(1)
        fresh = Counter(places.draw({}).candidate.id for _ in range(600))
        best = places.members[0].candidate.id
        tired = Counter(places.draw({best: 10.0}).candidate.id for _ in range(600))
    assert [name for name, _ in fresh.most_common()] == [each.candidate.id for each in places.members]
    assert tired[best] == min(tired.values())


def new_structures() -> tuple[list[Scored], list[Scored]]:
    """Return some that are far better when they come, and some that are well fitted."""
    names = ("depth", "num_params", "weight_mean", "weight_std", "weight_range", "gradient_sensitivity")
    signals = [f"model.{name}" for name in names]
    others = [scored("spent", 0.99, 0.9, each) for each in signals]
    return others, [scored("lost", 0.9, 0.5, each) for each in signals[:4]]


def test_half_of_what_is_refined_first_is_well_fitted(problem):
    others, fitted = new_structures()
    wanted = {structure_id(each.candidate) for each in fitted}

    def first(seed: int, well_fitted: set[str]) -> str:
        (asked,) = Refiner(problem).ask([*others, *fitted], 1, lambda: seed, well_fitted)
        return structure_id(asked.candidate)

    assert 25 <= sum(first(seed, wanted) in wanted for seed in range(80)) <= 60
    assert sum(first(seed, set()) in wanted for seed in range(80)) < 15


def test_the_well_fitted_are_refined_narrowly(problem):
    others, fitted = new_structures()
    wanted = {structure_id(each.candidate) for each in fitted}
    moved: dict[str, list[float]] = {"spent": [], "lost": []}
    for each in Refiner(problem).ask([*others, *fitted], 400, lambda: 3, wanted):
        price, rate = str(dict(each.candidate.slots)["price"]), dict(each.candidate.parameters)["rate"]
        moved[price].append(abs(rate / {"spent": 0.9, "lost": 0.5}[price] - 1.0))
    assert 0.0 < max(moved["lost"]) < 0.1 < max(moved["spent"])
