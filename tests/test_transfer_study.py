"""The study that leaves out families: who trains, what rivals choose, who is chosen, what is written."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'evolve-precision[torch]'")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install scikit-learn")

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.parameters import Parameter
from evolve.python_source import compile_rule
from evolve.rule_calls import Task

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    from transfer_study import comparing, folds, pictures, rivals, searching, spending, tables
    from transfer_study.allocating import FISHER, KL, RANDOM, RIVALS, UNIFORM, Proposal
    from transfer_study.study import CHEAP_RULE, CURVES_RULE
finally:
    sys.path.remove(str(BENCHMARKS))

PROFILES = folds.measured_networks("measured")
NETWORKS = [PROFILES[0], next(each for each in PROFILES if each.tied_layers)]
LAGRANGIAN = """
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * model.loss)
"""
LADDER = """
def allocate(model, p):
    return model.narrowest(model.loss <= p.price)
"""
PRICE = Parameter("price", 1.0, 1e-6, 1e8, "log")


def loss_of(profile, choices):
    return profile.loss[np.arange(profile.num_layers), choices].sum()


def test_every_family_is_left_out_once_and_decides_nothing():
    found = folds.folds_of(PROFILES)
    assert len(found) == 9
    assert sorted(each.name for fold in found for each in fold.left_out) == sorted(p.name for p in PROFILES)
    for fold in found:
        absent = {each.name for each in fold.left_out}
        assert not absent & {each.name for each in (*fold.training, *fold.choosing)}
        assert len(fold.training) + len(fold.choosing) + len(fold.left_out) == len(PROFILES)
        assert len(set(map(folds.family_of, fold.training))) == 6
    shared = {}
    for fold in found:
        shared.setdefault(fold.name, []).append(fold.training)
    assert [len(each) for each in shared.values()] == [3, 3, 3]
    assert all(one == first for first, *others in shared.values() for one in others)


@pytest.mark.parametrize("profile", NETWORKS, ids=lambda each: each.name)
@pytest.mark.parametrize("bits", [2.5, 3.5])
def test_rivals_keep_budgets_and_ties(profile, bits):
    lagrangian = rivals.lagrangian_within(profile, profile.loss, bits)
    exact = rivals.exact_within(profile, profile.loss, bits)
    assert loss_of(profile, exact) <= loss_of(profile, lagrangian) + 1e-12
    drawn = rivals.random_within(profile, bits, 0)
    assert len(drawn) == rivals.RANDOM
    assert [each.tolist() for each in drawn] == [
        each.tolist() for each in rivals.random_within(profile, bits, 0)
    ]
    for each in (lagrangian, exact, *drawn, *rivals.uniform_formats(profile, bits)):
        assert rivals.bits_of(profile, each) <= bits + 1e-9
        assert all(len(set(each[list(group)].tolist())) == 1 for group in profile.tied_layers)
    assert min(rivals.bits_of(profile, each) for each in drawn) > bits - 0.25
    assert rivals.lagrangian_within(profile, profile.loss, 1.0) is None
    assert rivals.exact_within(profile, profile.loss, 1.0) is None
    assert rivals.random_within(profile, 1.0, 0) == []


@pytest.mark.parametrize("profile", NETWORKS, ids=lambda each: each.name)
def test_a_lagrangian_implies_the_losses_it_is_made_of(profile):
    task = Task(LAGRANGIAN, "", ("price",), np.ones((1, 1)), PRICE)
    implied = spending.implied_losses(compile_rule(LAGRANGIAN), task, "curves", profile)
    for bits in (2.6, 3.0, 3.5, 4.5):
        lagrangian = rivals.lagrangian_within(profile, profile.loss, bits)
        spent = rivals.exact_within(profile, implied, bits)
        least = loss_of(profile, rivals.exact_within(profile, profile.loss, bits))
        # A fine grid of prices still rounds the losses, and formats off the hull are never chosen.
        assert least <= loss_of(profile, spent) <= 1.02 * loss_of(profile, lagrangian)


def test_a_price_that_falls_as_bits_rise_and_a_rule_that_fails():
    profile = NETWORKS[0]
    limit = replace(PRICE, low=1e-6, high=10.0)
    task = Task(LADDER, "", ("price",), np.ones((1, 1)), limit)
    implied = spending.implied_losses(compile_rule(LADDER), task, "curves", profile)
    assert (np.isfinite(implied) & (implied >= 0)).all()
    wide = rivals.exact_within(profile, implied, 32.0)
    assert loss_of(profile, wide) < 1e-5
    assert spending.implied_losses(compile_rule(LADDER), task, "gradient", profile) is None


def scored(name, complexity, objective):
    score = SplitScore(objective, objective, 1.0, 1.0, 1.0, objective, objective)
    candidate = Candidate("weighted", (("loss", name),))
    return Scored(Offspring(candidate, "seed", (), ""), Evaluation("ok", "", "", score, None, complexity), 0)


def test_the_front_is_thinned_and_has_the_best():
    rules = [scored(f"r{at}", 10 + at, 0.8 + 0.01 * at) for at in range(12)]
    rules += [scored("worse", 40, 0.81), scored("poor", 3, 0.1)]
    found = searching.front(rules)
    assert len(found) == searching.MOST
    assert [each.evaluation.complexity for each in found] == sorted(
        each.evaluation.complexity for each in found
    )
    assert found[0] is rules[0]
    assert found[-1] is rules[11]
    assert searching.front(rules[:2]) == rules[:2]


def test_the_simplest_within_a_standard_error_is_chosen():
    best = np.array([0.0, 1.0, 2.0, 3.0])
    noisy = best + np.array([0.3, -0.25, 0.3, -0.25])
    assert comparing.choose([best + 0.5, noisy, best]) == 1
    assert comparing.choose([best + 0.5, best + 0.1, best]) == 2
    assert comparing.choose([np.full(4, np.inf), best]) == 1


def test_what_is_left_out_has_no_say_and_of_several_one_counts():
    fold = folds.folds_of(PROFILES)[0]
    inside, outside = fold.training[0], fold.left_out[0]
    narrow, wide = (
        np.full(each.num_layers, at, np.uint8).tobytes() for each, at in ((inside, 0), (outside, 3))
    )
    measured = {(inside.name, narrow): np.exp(-1.0), (outside.name, wide): 1e9}
    proposals = [Proposal("w", inside, 3.0, narrow), Proposal("w", outside, 3.0, wide)]
    found = comparing.merits(proposals, fold, measured)
    assert found[np.isfinite(found)].tolist() == [-1.0]
    several = [np.full(outside.num_layers, at, np.uint8).tobytes() for at in (0, 1, 2)]
    measured = {(outside.name, each): float(at) for at, each in enumerate(several)}
    for way, expected in ((UNIFORM, 0.0), (RANDOM, 1.0)):
        proposals = [Proposal(way, outside, 3.0, each) for each in several]
        (row,) = comparing.rows_of(way, proposals, fold, measured)
        assert (row.divergence, row.network, row.family) == (expected, outside.name, fold.family)


def test_what_is_handed_out_is_chosen_on_calibration_data():
    fold = folds.folds_of(PROFILES)[0]
    outside = fold.left_out[0]
    own, narrow, wide = (np.full(outside.num_layers, at, np.uint8).tobytes() for at in (0, 1, 2))
    proposals = [
        Proposal("w", outside, 3.0, own),
        Proposal(UNIFORM, outside, 3.0, narrow),
        Proposal(UNIFORM, outside, 3.0, wide),
        Proposal(UNIFORM, outside, 2.0, narrow),
    ]
    held_out = {(outside.name, own): 0.1, (outside.name, narrow): 0.2, (outside.name, wide): 0.3}

    def divergence(*on_calibration):
        calibration = dict(zip(held_out, on_calibration, strict=True))
        (row,) = comparing.handed_out("w", proposals, fold, calibration, held_out)
        return row.divergence

    assert divergence(1.0, 1.0, 2.0) == 0.1
    assert divergence(1.0, 0.9, 2.0) == 0.2
    assert divergence(1.0, 0.9, 0.8) == 0.3


def rows():
    def row(network, way, divergence, budget=2.5):
        return comparing.Row("f", network, budget, way, budget, divergence)

    found = [row(name, way, 1.0) for name in ("a", "b", "c") for way in RIVALS]
    found += [row(name, CHEAP_RULE, value) for name, value in (("a", 0.5), ("b", 1.0), ("c", 1.2))]
    found += [row(name, CURVES_RULE, 0.9) for name in ("a", "b")]
    return found


def test_ratios_and_goals():
    found = tables.ratio(rows(), CHEAP_RULE, KL)
    assert (found.median, found.won, found.tied, found.count) == (1.0, 1, 1, 3)
    assert str(found) == "1.00 (1 + 1 equal of 3)"
    assert tables.ratio(rows(), CURVES_RULE, FISHER, 3.0).count == 0
    assert [each.kept for each in tables.goals(rows())] == [False, False, True, True]
    table = tables.ratio_table(rows(), CURVES_RULE)
    assert "| 2.5 | 0.90 (2 of 2) |" in table
    assert "`c`" in tables.network_table(rows(), 2.5)
    assert tables.family_table(rows(), CHEAP_RULE).count("\n") == 2
    assert tables.as_csv(rows()).startswith("family,network,budget,way,bits,divergence\nf,a,2.5,")


def test_a_network_is_won_by_its_geometric_mean_over_the_budgets():
    rival = [comparing.Row("f", name, bits, UNIFORM, bits, 1.0) for name in "ab" for bits in (2.5, 3.0)]
    own = {("a", 2.5): 1.5, ("a", 3.0): 0.6, ("b", 2.5): 1.9, ("b", 3.0): 0.6}
    rule = [comparing.Row("f", name, bits, CHEAP_RULE, bits, value) for (name, bits), value in own.items()]
    found = tables.ratio_by_network([*rival, *rule], CHEAP_RULE, UNIFORM)
    assert (found.won, found.tied, found.count) == (1, 0, 2)
    # The same rows miss the goal by case and by network, with other figures.
    kept = [listed([*rows(), *rival, *rule])[0] for listed in (tables.goals, tables.goals_by_network)]
    assert [each.kept for each in kept] == [False, False]
    assert [each.found for each in kept] == [
        "better in 2 of 5 cases, worse in 3",
        "better in 1 of 3 networks, worse in 2",
    ]
    assert found.median == pytest.approx((0.9**0.5 + 1.14**0.5) / 2)


def test_the_picture_is_the_same_twice():
    drawn = pictures.draw(rows())
    assert drawn.startswith(b"<?xml")
    assert drawn == pictures.draw(rows())
