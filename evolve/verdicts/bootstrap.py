"""Bootstrap intervals over models: how far a mean would move had other models of the same kind been drawn.

Percentile intervals of 95 % (Efron 1979). All draws are seeded: the same shares give the same interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evolve.verdicts.models import FloatArray

RESAMPLES = 2000
_TAILS = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def mean_interval(values: FloatArray, seed: int) -> Interval | None:
    """Return the interval of the mean of (M,) values; None for a single model, which tells of no other."""
    return None if len(values) < 2 else _percentiles(_resampled_means(values, np.random.default_rng(seed)))


def difference_interval(first: FloatArray, second: FloatArray, seed: int) -> Interval | None:
    """Return the interval of ``first.mean() - second.mean()`` of different models.

    A single model is taken as it is, so that the interval tells of the other side's models only; None
    where both sides are single.
    """
    if len(first) < 2 and len(second) < 2:
        return None
    generator = np.random.default_rng(seed)
    return _percentiles(_resampled_means(first, generator) - _resampled_means(second, generator))


def _resampled_means(values: FloatArray, generator: np.random.Generator) -> FloatArray:
    drawn = generator.integers(len(values), size=(RESAMPLES, len(values)))
    means: FloatArray = values[drawn].mean(axis=1)
    return means


def _percentiles(values: FloatArray) -> Interval:
    low, high = np.percentile(values, _TAILS)
    return Interval(float(low), float(high))
