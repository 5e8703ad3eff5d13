from __future__ import annotations

import numpy as np
import pytest
from cases import TEMPLATES, THRESHOLD, ladder, small_suite

from evolve.verdicts.alternatives import uniform_shares
from evolve.verdicts.control import permuted, permuted_shares
from evolve.verdicts.luck import corrected_share
from evolve.verdicts.models import shares, splits_of


def test_the_best_of_random_noise_is_corrected_to_the_mean() -> None:
    found, apparent = [], []
    for seed in range(20):
        table = 0.9 + 0.01 * np.random.default_rng(seed).standard_normal((30, 20))
        found.append(corrected_share(table, seed)[0])
        apparent.append(table.mean(axis=1).max())
    assert np.mean(apparent) > 0.904
    assert np.mean(found) == pytest.approx(0.9, abs=0.0015)


def test_a_candidate_that_is_really_better_stays_so() -> None:
    table = 0.9 + 0.001 * np.random.default_rng(0).standard_normal((30, 20))
    table[7] += 0.05
    corrected, interval = corrected_share(table, 0)
    assert corrected == pytest.approx(table[7].mean(), abs=5e-4)
    assert interval.low < corrected < interval.high


def test_permuting_keeps_the_optimum_and_the_uniform_formats() -> None:
    profiles = small_suite().test
    for before, after in zip(profiles, permuted(profiles, 0), strict=True):
        rows = [
            sorted(zip(each.num_params, map(tuple, each.sensitivity), strict=True))
            for each in (before, after)
        ]
        assert rows[0] == rows[1]
        assert before.layer_type == after.layer_type


def test_a_real_rule_falls_to_the_level_of_uniform_formats_on_permuted_models() -> None:
    split = splits_of(small_suite(), "curves")[-1]
    (own,) = shares([THRESHOLD], TEMPLATES, split.arena)
    uniform = uniform_shares(split).mean()
    assert own.mean() > uniform
    assert permuted_shares(THRESHOLD, TEMPLATES, split, 0).mean() <= uniform


def test_a_uniform_format_does_not_mind_the_permutation() -> None:
    split = splits_of(small_suite(), "curves")[-1]
    rule = ladder(otherwise="FP16")
    (own,) = shares([rule], TEMPLATES, split.arena)
    assert permuted_shares(rule, TEMPLATES, split, 0) == pytest.approx(own, rel=1e-9)
