"""Fitted structures enter with several prices, and a search that fits keeps the promises of all searches."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evolve.batches import evaluate_candidates
from evolve.candidates import Candidate
from evolve.configuration import RunConfig
from evolve.engine import search
from evolve.executors import make_executor
from evolve.search.base import MOST_NODES, Novelty
from evolve.search.calibration import spent_by, with_numbers_scaled
from evolve.search.fitting import fitted_family, fitted_newcomer
from evolve.setup import Setup, prepare_run, stored_config
from evolve.store import create_run


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare_run(RunConfig(datasets="suite", signals="gradient", population=60, fit=True))


def two_pass(**parameters: float) -> Candidate:
    slots = (
        ("weight", "model.param_fraction"),
        ("loss", "np.exp(-(p.rate * model.bits)) * (model.gradient_sensitivity + p.weight)"),
        ("price", "spent"),
    )
    return Candidate("two_pass", slots, tuple(parameters.items()))


def objectives(setup: Setup, candidates: list[Candidate]) -> list[float]:
    with make_executor(setup.arena, 1) as executor:
        found = evaluate_candidates(candidates, setup.problem.templates, setup.arena, executor)
    return [each.train.objective for each in found]


START = two_pass(first_price=3.0, second_price=6.0, rate=0.05, weight=90.0)


def test_a_family_has_the_fitted_loss_and_the_one_bred_each_at_its_best_price(setup):
    fitted, bred = fitted_family(setup.problem, START, bits=3.9)
    numbers = [dict(each.parameters) for each in (fitted, bred)]
    assert (numbers[1]["rate"], numbers[1]["weight"]) == (0.05, 90.0)
    assert (numbers[0]["rate"], numbers[0]["weight"]) != (0.05, 90.0)
    reached = [
        objectives(setup, [each, *(with_numbers_scaled(each, ["second_price"], by) for by in (0.7, 1.4))])
        for each in (fitted, bred)
    ]
    for best, *others in reached:
        assert best > max(others)
    assert reached[0][0] > 0.99


def test_where_layers_have_prices_of_their_own_a_family_has_several_prices_around_the_bits_wanted(setup):
    slots = (*START.slots[:2], ("price", "spent * model.gradient_sensitivity"))
    family = fitted_family(setup.problem, replace(START, slots=slots), bits=3.9)
    assert len(family) == 4
    losses = {tuple(dict(each.parameters)[name] for name in ("rate", "weight")) for each in family}
    assert len(losses) == 1
    assert losses != {(0.05, 90.0)}
    assert spent_by(setup.problem, family[0]) == pytest.approx(3.9, abs=0.05)
    first, *others = [dict(each.parameters) for each in family]
    assert first["second_price"] / first["first_price"] == pytest.approx(2.0, rel=0.01)
    for each, factor in zip(others, (0.8, 1.25, 1.6), strict=True):
        for name in ("first_price", "second_price"):
            assert each[name] / first[name] == pytest.approx(factor, rel=0.01)


def test_prices_of_random_rules_begin_equal(setup):
    numbers = dict(fitted_newcomer(setup.problem, START).parameters)
    assert numbers["first_price"] == numbers["second_price"] == 6.0
    assert numbers["rate"] != 0.05


def test_what_cannot_be_fitted_has_no_family(setup):
    ladder = Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")), ())
    assert fitted_family(setup.problem, ladder, 3.9) == []
    assert fitted_newcomer(setup.problem, ladder) == ladder
    unfitted = prepare_run(RunConfig(datasets="suite", signals="gradient", fit=False))
    assert fitted_family(unfitted.problem, START, 3.9) == []


def test_rules_that_differ_on_any_of_sixteen_models_are_told_apart_where_losses_are_fitted(setup):
    """Good rules allocate alike on the first four."""
    unfitted = prepare_run(RunConfig(datasets="suite", signals="gradient", fit=False)).problem
    rules = [two_pass(first_price=200.0, second_price=price, rate=0.45, weight=0.9) for price in (13.0, 13.2)]

    def marks(problem):
        return len({behaviour for behaviour, _ in problem.fingerprint(rules)})

    assert (marks(unfitted), marks(setup.problem)) == (1, 2)


def test_where_losses_may_be_read_only_prices_are_set():
    problem = prepare_run(RunConfig(datasets="suite", fit=True)).problem
    assert problem.fit is None
    slots = (START.slots[0], ("loss", "p.weight * model.loss"), START.slots[2])
    bred = Candidate("two_pass", slots, (("first_price", 3.0), ("second_price", 6.0), ("weight", 90.0)))
    (priced,) = fitted_family(problem, bred, 3.9)
    changed = {name for name, value in priced.parameters if value != dict(bred.parameters)[name]}
    assert changed == {"first_price", "second_price"}


def test_fits_are_the_default_where_rules_predict_losses():
    for signals in ("metadata", "statistics", "gradient"):
        assert RunConfig(signals=signals).to_json()["fit"] is True
        assert RunConfig(signals=signals, fit=False).to_json()["fit"] is False
    assert "fit" not in RunConfig().to_json()
    assert RunConfig(fit=True).to_json()["fit"] is True


def test_runs_of_before_there_were_fits_fit_nothing():
    stored = RunConfig(signals="gradient").to_json()
    assert stored_config(stored).fit is True
    del stored["fit"]
    assert stored_config(stored).fit is False


@pytest.mark.parametrize("strategy", ["genetic", "hillclimb"])
def test_a_search_that_fits_is_the_same_when_it_is_resumed_with_any_number_of_workers(strategy, tmp_path):
    config = RunConfig(
        datasets="suite",
        signals="metadata",
        strategy=strategy,
        population=50,
        generations=4,
        seed=5,
    )
    setup = prepare_run(config)
    assert setup.resolved()["fit"] is True
    whole = create_run("whole", setup.resolved(), tmp_path)
    search(setup, whole)
    parts = create_run("parts", setup.resolved(), tmp_path)
    for workers in (1, 2, 1, 2):
        search(prepare_run(config), parts, workers=workers, should_stop=lambda: True)
    journals = [(each.path / "journal.jsonl").read_bytes() for each in (whole, parts)]
    assert journals[0] == journals[1]
    changes = [json.loads(line).get("change", "") for line in journals[0].splitlines()]
    assert any("its numbers set by fit and price" in each for each in changes if each.startswith("a random"))
    # A genetic search opens with random rules alone.
    assert any("fitted to losses" in each for each in changes) == (strategy == "hillclimb")


def test_fitted_rules_do_not_grow_beyond_what_one_can_read(setup):
    def nested(times: int) -> Candidate:
        slots = dict(START.slots) | {"price": "spent" + " + lost" * times}
        start = two_pass(first_price=30.0, second_price=20.0, rate=0.3 + 0.01 * times, weight=1.0)
        return replace(start, slots=tuple(slots.items()))

    candidates = [nested(times) for times in range(0, 60, 5)]
    sizes = [size for _, size in setup.problem.fingerprint(candidates)]
    assert min(sizes) < MOST_NODES < max(sizes)
    assert Novelty(setup.problem).add(candidates) == [size <= MOST_NODES for size in sizes]
    assert all(Novelty(replace(setup.problem, fit=None)).add(candidates))
