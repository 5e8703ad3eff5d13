from __future__ import annotations

import numpy as np
import pytest
from cases import small_suite

from evolve.allocators import lagrangian, log_loss
from evolve.scoring import score
from evolve.verdicts.alternatives import (
    GREEDY,
    LAGRANGIAN,
    UNIFORM,
    gradient_program,
    judge_alternatives,
)
from evolve.verdicts.models import splits_of


def _ones(splits):
    return {split.name: np.ones(len(split.profiles)) for split in splits}


def test_the_optimum_is_better_or_equal_and_never_worse() -> None:
    splits = splits_of(small_suite(), "curves")
    found = judge_alternatives(_ones(splits), splits, seed=0)
    assert not found.worse
    assert UNIFORM in found.better
    assert len(found.better) + len(found.equal) == len(found.rows) == 4
    for row in found.rows:
        assert all(each.worst <= each.mean <= 1 + 1e-9 for each in row.scores)


def test_a_useless_rule_is_worse_than_greedy() -> None:
    splits = splits_of(small_suite(), "curves")
    found = judge_alternatives({name: 0.01 * ones for name, ones in _ones(splits).items()}, splits, seed=0)
    assert GREEDY in found.worse
    assert not found.better


def test_the_lagrangian_is_the_allocator_at_the_price_found() -> None:
    splits = splits_of(small_suite(), "curves")
    found = judge_alternatives(_ones(splits), splits, seed=0)
    row = next(each for each in found.rows if each.name == LAGRANGIAN)
    for split, told in zip(splits, row.scores, strict=True):
        fitness = []
        for each in split.profiles:
            choice = lagrangian(each.num_params, each.bits, log_loss(each.sensitivity), found.price)
            fitness.append(score(choice, each.num_params, each.bits, each.sensitivity).fitness[0])
        assert told.mean == pytest.approx(np.mean(fitness / split.arena.optimum_fitness))


def test_the_integer_program_keeps_to_its_budget() -> None:
    profile = small_suite().train[0]
    loss = profile.gradient_sensitivity[:, None] * 4.0**-profile.bits
    choice = gradient_program(profile, 0.01)
    assert loss[np.arange(len(choice)), choice].sum() <= 0.01 * loss.max(axis=1).sum() * (1 + 1e-9)
