"""The statistics against published values, brute force and their own properties."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.statistics import (
    bootstrap,
    cliffs_delta,
    evaluations_to_target,
    expected_running_time,
    holm,
    median_to_target,
    paired_bootstrap,
    probability_of_improvement,
    quartiles,
    vargha_delaney,
    wilcoxon,
)

# Darwin's maize: cross- minus self-fertilised heights in eighths of an inch (Fisher 1935, §17).
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)
LISTS = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


def generator() -> np.random.Generator:
    return np.random.default_rng(7)


def test_quartiles_of_a_known_sample() -> None:
    assert quartiles([4, 1, 3, 2]) == (1.75, 2.5, 3.25)
    assert quartiles([5]) == (5, 5, 5)


def test_wilcoxon_of_the_maize() -> None:
    # Two-sided p of the signed-rank test on Darwin's data, V = 96.
    assert wilcoxon(MAIZE, np.zeros(15)) == pytest.approx(0.04126, abs=1e-5)
    assert wilcoxon(MAIZE, np.zeros(15)) == pytest.approx(scipy.stats.wilcoxon(MAIZE, mode="exact").pvalue)


@given(LISTS)
def test_wilcoxon_is_the_share_of_sign_assignments(values: list[float]) -> None:
    differences = np.array([each for each in values if each])
    p = wilcoxon(values, np.zeros(len(values)))
    if not len(differences):
        assert p == 1
        return
    ranks = scipy.stats.rankdata(np.abs(differences))
    observed = ranks[differences > 0].sum()
    sums = np.array([np.dot(signs, ranks) for signs in product((0, 1), repeat=len(ranks))])
    tail = min((sums <= observed).mean(), (sums >= observed).mean())
    assert p == pytest.approx(min(1, 2 * tail))


@given(LISTS)
def test_wilcoxon_does_not_care_who_is_first(values: list[float]) -> None:
    zeros = [0.0] * len(values)
    assert wilcoxon(values, zeros) == pytest.approx(wilcoxon(zeros, values))


def test_wilcoxon_of_twenty_wins() -> None:
    assert wilcoxon(np.arange(1, 21) / 7, np.zeros(20)) == pytest.approx(2 / 2**20)


def test_wilcoxon_ignores_rounding() -> None:
    assert wilcoxon([0.3, 1.0], [0.1 + 0.2, 1.0]) == 1


def test_holm_on_the_usual_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    assert holm([0.9, 0.9]).tolist() == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_stepping_down_rejects(values: list[float]) -> None:
    corrected = holm(values)
    ordered = sorted(range(len(values)), key=lambda index: values[index])
    running = 0.0
    for step, index in enumerate(ordered):
        running = max(running, min(1.0, values[index] * (len(values) - step)))
        assert corrected[index] == pytest.approx(running)
    assert (corrected >= np.array(values)).all()


@given(LISTS, LISTS)
def test_effect_size_counts_wins(first: list[float], second: list[float]) -> None:
    wins = sum((a > b) + 0.5 * (a == b) for a in first for b in second)
    assert vargha_delaney(first, second) == pytest.approx(wins / len(first) / len(second))
    assert vargha_delaney(second, first) == pytest.approx(1 - vargha_delaney(first, second))
    u = scipy.stats.mannwhitneyu(first, second).statistic
    assert cliffs_delta(first, second) == pytest.approx(2 * u / len(first) / len(second) - 1)


def test_bca_agrees_with_scipy() -> None:
    expected = scipy.stats.bootstrap(
        (MAIZE,), np.mean, method="BCa", n_resamples=20_000, random_state=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap(MAIZE, generator(), resamples=20_000)
    assert found.estimate == pytest.approx(MAIZE.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.6)


def test_paired_means_are_the_mean_of_differences() -> None:
    offsets = np.linspace(0, 3, 15)
    paired = paired_bootstrap(MAIZE + offsets, offsets, generator())
    alone = bootstrap(MAIZE, generator())
    for end in ("low", "estimate", "high"):
        assert getattr(paired, end) == pytest.approx(getattr(alone, end))


def test_median_interval_holds_the_median() -> None:
    found = paired_bootstrap(MAIZE, np.zeros(15), generator(), np.median, "percentile")
    assert found.low <= found.estimate == 24 <= found.high


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_constant_differences_have_no_width(method: str) -> None:
    found = paired_bootstrap([2.0, 3.0, 9.0], [1.0, 2.0, 8.0], generator(), method=method)
    assert (found.low, found.estimate, found.high) == pytest.approx((1, 1, 1))
    single = paired_bootstrap([2.0], [1.0], generator(), method=method)
    assert (single.low, single.high) == (1, 1)


def test_same_generator_same_interval() -> None:
    assert bootstrap(MAIZE, generator()) == bootstrap(MAIZE, generator())


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    draws = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        sample = draws.exponential(size=30)
        found = bootstrap(sample, draws, resamples=500)
        held += found.low <= 1 <= found.high
    assert 0.89 <= held / 300 <= 0.99


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_improvement_is_the_mean_effect_over_models(runs: int, rivals: int, models: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    first, second = draws.integers(4, size=(runs, models)), draws.integers(4, size=(rivals, models))
    found = probability_of_improvement(first, second, generator(), resamples=50)
    expected = np.mean([vargha_delaney(first[:, each], second[:, each]) for each in range(models)])
    assert found.estimate == pytest.approx(expected)
    assert 0 <= found.low <= found.high <= 1 + 1e-9


def test_improvement_of_the_always_better() -> None:
    found = probability_of_improvement(np.ones((5, 3)), np.zeros((4, 3)), generator(), resamples=100)
    assert (found.low, found.estimate, found.high) == pytest.approx((1, 1, 1))


def test_evaluations_to_target_count_from_one() -> None:
    assert evaluations_to_target([0.5, 0.9, 0.95], 0.9) == 2
    assert evaluations_to_target([0.5, 0.9], 0.5) == 1
    assert evaluations_to_target([0.5, 0.9], 0.99) is None
    assert evaluations_to_target([], 0.1) is None


def test_median_to_target_counts_the_censored_as_late() -> None:
    assert median_to_target([10, None, 30]) == 30
    assert median_to_target([10, 20, None, None]) is None
    assert median_to_target([10, 20, 30, None]) == 25
    assert median_to_target([]) is None


def test_expected_running_time_charges_failures_to_successes() -> None:
    assert expected_running_time([10, None, 30], [100, 100, 100]) == 70
    assert expected_running_time([None], [100]) is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quartiles([]), "values: expected shape"),
        (lambda: quartiles([float("nan")]), "finite"),
        (lambda: wilcoxon([1, 2], [1]), "expected pairs"),
        (lambda: bootstrap([1, 2], generator(), method="t"), "expected bca or percentile"),
        (lambda: holm([1.5]), "p_values"),
        (lambda: probability_of_improvement([[1, 2]], [[1]], generator()), r"\(R, M\) and \(Q, M\)"),
    ],
)
def test_wrong_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]
