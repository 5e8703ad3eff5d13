"""New structures spend what the rule spends that they were made from."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evolve.batches import make_batch
from evolve.candidates import Candidate
from evolve.configuration import RunConfig
from evolve.grammar import seeded
from evolve.search.calibration import calibrated, spent_by
from evolve.setup import Setup, prepare_run
from evolve.variation import newcomer


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare_run(RunConfig(datasets="suite", signals="gradient", population=60, fit=False))


def weighted(loss: str, **parameters: float) -> Candidate:
    return Candidate(
        "weighted", (("weight", "model.param_fraction"), ("loss", loss)), tuple(parameters.items())
    )


def test_a_loss_on_another_scale_gets_another_price(setup):
    problem = setup.problem
    plain = weighted("np.exp(-(p.rate * model.bits))", price=40.0, rate=0.5)
    spent = spent_by(problem, plain)
    scaled = weighted("p.weight * np.exp(-(p.rate * model.bits))", price=40.0, weight=50.0, rate=0.5)
    far = weighted("p.weight * np.exp(-(p.rate * model.bits))", price=4000.0, weight=0.5, rate=0.5)
    found, other = calibrated(problem, [scaled, far], spent)
    assert spent_by(problem, other) == pytest.approx(spent, abs=0.02)
    assert 0.5 < dict(found.parameters)["price"] / (40.0 / 50.0) < 2.0
    assert spent_by(problem, found) == pytest.approx(spent, abs=0.02)
    assert abs(spent_by(problem, scaled) - spent) > 0.2
    assert replace(found, parameters=scaled.parameters) == scaled


def test_random_rules_spend_what_is_wanted_wherever_their_number_reaches_it(setup):
    problem = setup.problem
    forms = [each for each in problem.templates.values() if each.slots and each.sweep is not None]
    with seeded() as reseed:
        reseed(3)
        drawn = [newcomer(form, problem.templates, problem.words)[0] for form in forms for _ in range(30)]
    target = math.log2(15.0)
    found = [calibrated(problem, [each], target)[0] for each in drawn]
    changed = [new for each, new in zip(drawn, found, strict=True) if new != each]
    after = [abs(spent_by(problem, each) - target) < 0.1 for each in changed]
    before = [abs(spent_by(problem, each) - target) < 0.1 for each in drawn]
    assert len(after) >= 20
    assert sum(after) > 0.8 * len(after)
    assert sum(before) < 0.2 * len(before)


def test_what_is_spent_is_the_mean_over_the_first_models(setup):
    plain = weighted("np.exp(-(p.rate * model.bits))", price=40.0, rate=0.5)
    (result,) = setup.arena.evaluate(make_batch([plain], setup.problem.templates).tasks[0])
    expected = np.log2(result.avg_bits[:4]).mean()
    assert spent_by(setup.problem, plain) == pytest.approx(expected)
    ((first, second),) = setup.problem.spending([plain], "price", np.array([[40.0, 400.0]]), ())
    assert first == pytest.approx(expected)
    assert second > first


def test_what_cannot_be_set_is_left_alone(setup):
    plain = weighted("np.exp(-(p.rate * model.bits))", price=40.0, rate=0.5)
    ladder = Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")), ())
    assert calibrated(setup.problem, [plain], math.nan) == [plain]
    assert calibrated(setup.problem, [plain, plain], math.log2(100.0)) == [plain, plain]
    assert calibrated(setup.problem, [ladder], math.log2(12.0)) == [ladder]
    assert math.isnan(spent_by(setup.problem, ladder))


def test_families_have_no_number_to_set():
    setup = prepare_run(RunConfig(objective="budgets:4,8", population=60, start_from=("all",)))
    plain = weighted("np.exp(-(p.rate * model.bits))", price=40.0, rate=0.5)
    assert math.isnan(spent_by(setup.problem, plain))
