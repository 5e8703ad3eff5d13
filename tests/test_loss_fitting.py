"""Numbers of predicted losses are fitted to what was measured on train."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.grammar import seeded, vocabulary
from evolve.loss_fitting import LossFit
from evolve.plugin_files import general_templates
from evolve.search.operators import mutate_structure
from evolve.variation import newcomer

TEMPLATES = general_templates()
MODELS = find_dataset("suite").train[:4]
LOSS = "p.weight * np.exp(-(p.rate * model.bits)) * model.gradient_sensitivity"
WORDS = vocabulary(("INT2", "INT4", "INT8", "FP16", "FP32"), "gradient")


def weighted(per: str, loss: str, **parameters: float) -> Candidate:
    return Candidate("weighted", (("weight", per), ("loss", loss)), (("price", 7.0), *parameters.items()))


def with_losses(function):
    """Return models whose loss is a function of gradient, (L,), and bits, (K,)."""
    return [
        replace(each, sensitivity=1.0 - np.exp(-function(each.gradient_sensitivity[:, None], each.bits)))
        for each in MODELS
    ]


@pytest.mark.parametrize(
    ("per", "loss"),
    [
        ("model.param_fraction", "p.weight * np.exp(-(p.rate * model.bits)) * model.gradient_sensitivity"),
        ("model.param_fraction / p.weight", "np.exp(-(p.rate * model.bits)) * model.gradient_sensitivity"),
        (
            "model.param_fraction / (model.gradient_sensitivity * p.weight)",
            "np.exp(-(p.rate * model.bits))",
        ),
    ],
)
def test_numbers_that_losses_were_made_from_are_found(per, loss):
    models = with_losses(lambda gradient, bits: 0.4 * np.exp(-0.3 * bits) * gradient)
    fitted = LossFit(models, "gradient", TEMPLATES)(weighted(per, loss, rate=2.0, weight=30.0))
    numbers = dict(fitted.parameters)
    assert numbers["rate"] == pytest.approx(0.3, rel=0.01)
    assert numbers["weight"] == pytest.approx(0.4, rel=0.02)
    assert numbers["price"] == 7.0  # what a loss costs cannot be told from losses


def test_a_form_without_a_scale_is_fitted_up_to_one():
    models = with_losses(lambda gradient, bits: 0.4 * np.exp(-0.3 * bits) * gradient)
    loss = "np.exp(-(p.rate * model.bits)) * model.gradient_sensitivity"
    fitted = LossFit(models, "gradient", TEMPLATES)(weighted("model.param_fraction", loss, rate=2.0))
    assert dict(fitted.parameters)["rate"] == pytest.approx(0.3, rel=0.02)


def test_losses_far_below_what_matters_do_not_count():
    tolerance = -math.log(0.95) / max(each.num_layers for each in MODELS)

    def loss(gradient, bits):
        usual = 0.4 * np.exp(-0.3 * bits) * gradient
        return np.where(usual < 1e-3 * tolerance, 0.0, usual)

    candidate = weighted("model.param_fraction", LOSS, rate=2.0, weight=30.0)
    fitted = LossFit(with_losses(loss), "gradient", TEMPLATES)(candidate)
    assert dict(fitted.parameters)["rate"] == pytest.approx(0.3, rel=0.01)


def test_losses_count_in_the_formats_next_to_the_best_one():
    def kinked(gradient, bits):
        return np.where(bits < 6, 0.4 * np.exp(-0.3 * bits), 0.8 * np.exp(-0.5 * bits)) * gradient

    models = with_losses(kinked)
    bits = models[0].bits
    candidate = weighted("model.param_fraction", LOSS, rate=2.0, weight=30.0)
    for best, rate in ((0, 0.3), (3, 0.5)):
        allocations = [np.full(each.num_layers, best, dtype=np.uint8) for each in models]
        fit = LossFit(models, "gradient", TEMPLATES, allocations)
        fitted = fit(candidate)
        assert bits[[0, 1]].max() < 6 < bits[[2, 3]].min()
        assert dict(fitted.parameters)["rate"] == pytest.approx(rate, rel=0.01)
        assert fit.error(fitted) < 0.02
    everywhere = LossFit(models, "gradient", TEMPLATES)
    assert 0.33 < dict(everywhere(candidate).parameters)["rate"] < 0.49
    assert everywhere.error(everywhere(candidate)) > 0.1


def test_what_foretells_nothing_is_left_alone():
    fit = LossFit(MODELS, "gradient", TEMPLATES)
    ladder = Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")), ())
    without_numbers = weighted("model.param_fraction", "np.exp(-model.bits)")
    never_finite = weighted("model.param_fraction", "np.log(-(p.rate * model.bits))", rate=0.5)
    above_its_level = weighted("model.param_fraction", "p.weight * model.loss", weight=0.5)
    for each in (ladder, without_numbers, never_finite, above_its_level):
        assert fit(each) == each


def test_any_rule_can_be_fitted_and_stays_within_its_bounds():
    fit = LossFit(MODELS[:2], "gradient", TEMPLATES)
    forms = [TEMPLATES["weighted"], TEMPLATES["two_pass"]]
    changed = 0
    with seeded() as reseed:
        for seed in range(120):
            reseed(seed)
            candidate, _ = newcomer(forms[seed % 2], TEMPLATES, WORDS)
            candidate, _ = mutate_structure(candidate, TEMPLATES[candidate.template], WORDS)
            template = TEMPLATES[candidate.template]
            found = fit(candidate)
            changed += found != candidate
            assert found.structure == candidate.structure
            for each, (name, value) in zip(
                template.parameters_of(found), sorted_like(template, found), strict=True
            ):
                assert (each.name, each.default) == (name, value)
            assert fit(candidate) == found
    assert changed > 60


def sorted_like(template, candidate):
    """Return the parameters of a candidate in the order that its template names them."""
    values = dict(candidate.parameters)
    return [(each.name, values[each.name]) for each in template.parameters_of(candidate)]


def test_the_error_is_what_is_left_at_the_best_factor():
    models = with_losses(lambda gradient, bits: 0.4 * np.exp(-0.3 * bits) * gradient)
    fit = LossFit(models, "gradient", TEMPLATES)
    right, scaled, steep = (
        weighted("model.param_fraction", LOSS, weight=weight, rate=rate)
        for weight, rate in ((0.4, 0.3), (4000.0, 0.3), (0.4, 0.4))
    )
    assert fit.error(right) < 1e-3
    assert fit.error(scaled) == pytest.approx(fit.error(right), abs=1e-3)
    assert fit.error(fit(steep)) < 0.05 < fit.error(steep)


def test_what_predicts_nothing_or_nothing_finite_has_an_infinite_error():
    fit = LossFit(MODELS, "gradient", TEMPLATES)
    assert fit.error(Candidate("ladder", (("clauses", ()), ("otherwise", "FP16")))) == math.inf
    undefined = "np.log(-model.num_params) * model.bits"
    assert fit.error(weighted("model.param_fraction", undefined)) == math.inf
