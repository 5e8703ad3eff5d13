from __future__ import annotations

import numpy as np
import pytest
from cases import PRICED, REFERENCE, TEMPLATES, ladder, small_suite

from evolve.candidates import Candidate
from evolve.datasets import Dataset, find_dataset
from evolve.profiles import ModelProfile
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


def _rows(profile: ModelProfile) -> list[tuple[int, tuple[float, ...]]]:
    return sorted(zip(profile.num_params, map(tuple, profile.sensitivity), strict=True))


def test_permuting_keeps_the_optimum_and_the_uniform_formats() -> None:
    profiles = small_suite().test
    for before, after in zip(profiles, permuted(profiles, 0), strict=True):
        assert _rows(before) == _rows(after)
        assert before.layer_type == after.layer_type


@pytest.mark.parametrize(
    ("level", "rule", "dataset"),
    [
        ("curves", PRICED, small_suite()),
        ("metadata", ladder(('model.is_type("LayerNorm")', "FP32")), find_dataset(REFERENCE)),
    ],
)
def test_a_real_rule_falls_to_the_uniform_level_whatever_it_reads(
    level: str, rule: Candidate, dataset: Dataset
) -> None:
    split = splits_of(dataset, level)[0]
    (own,) = shares([rule], TEMPLATES, split.arena)
    uniform = uniform_shares(split).mean()
    assert own.mean() > uniform + 0.1
    assert permuted_shares(rule, TEMPLATES, split, 0).mean() <= uniform


def test_a_uniform_format_does_not_mind_the_permutation() -> None:
    split = splits_of(small_suite(), "curves")[-1]
    rule = ladder(otherwise="FP16")
    (own,) = shares([rule], TEMPLATES, split.arena)
    assert permuted_shares(rule, TEMPLATES, split, 0) == pytest.approx(own, rel=1e-9)
