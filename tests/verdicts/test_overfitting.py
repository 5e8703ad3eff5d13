from __future__ import annotations

import numpy as np

from evolve.verdicts.overfitting import TOLERANCE, judge_overfitting


def _shares(mean: float, models: int, seed: int) -> np.ndarray:
    return np.minimum(mean + 0.01 * np.random.default_rng(seed).standard_normal(models), 1.0)


def test_a_rule_that_is_clearly_better_on_train_overfits() -> None:
    found = judge_overfitting(
        {"train": np.array([1.0]), "valid": _shares(0.98, 3, 1), "test": _shares(0.9, 24, 2)}, seed=0
    )
    assert found.finding == "overfits"
    assert "overfits" in found.verdict
    assert "single model" in found.verdict
    assert found.splits[0].interval is None
    assert found.gap_on("test").interval.low > TOLERANCE
    assert found.gap_on("train") is None


def test_a_rule_that_is_alike_everywhere_does_not() -> None:
    shares = {
        name: _shares(0.95, count, seed)
        for seed, (name, count) in enumerate((("train", 64), ("valid", 32), ("test", 64)))
    }
    found = judge_overfitting(shares, seed=0)
    assert found.finding == "no sign"
    assert all(each.interval.low < each.mean < each.interval.high for each in found.splits)


def test_a_gap_that_valid_does_not_have_is_a_shift() -> None:
    shares = {"train": _shares(0.95, 64, 1), "valid": _shares(0.95, 32, 2), "test": _shares(0.8, 64, 3)}
    assert judge_overfitting(shares, seed=0).finding == "does not carry over"


def test_single_models_tell_nothing_and_have_no_interval() -> None:
    shares = {name: np.array([share]) for name, share in (("train", 1.0), ("valid", 1.0), ("test", 0.9))}
    found = judge_overfitting(shares, seed=0)
    assert found.finding == "cannot be told"
    assert all(each.interval is None for each in (*found.splits, *found.gaps))
    assert "one model a split" in found.verdict


def test_the_same_seed_gives_the_same_intervals() -> None:
    shares = {"train": _shares(0.95, 20, 1), "test": _shares(0.9, 20, 2)}
    assert judge_overfitting(shares, seed=3) == judge_overfitting(shares, seed=3)
