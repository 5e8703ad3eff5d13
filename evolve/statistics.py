"""The statistics that comparisons of searches need: arrays in, numbers out.

Shapes: n paired observations, R and Q runs, M models, B bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
#: Reduces an array along an axis, as ``numpy.mean`` does.
Statistic = Callable[..., FloatArray]

RESAMPLES = 10_000
#: Share of all intervals that hold the true value.
CONFIDENCE = 0.95
#: Values that differ by less are equal: sums in another order differ that much.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        low: Lower end.
        estimate: The statistic of the sample itself.
        high: Upper end.
    """

    low: float
    estimate: float
    high: float


def quartiles(values: ArrayLike) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of (n,) values (Hyndman and Fan 1996, type 7)."""
    low, middle, high = np.quantile(_sample("values", values), (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def bootstrap(
    values: ArrayLike,
    generator: np.random.Generator,
    statistic: Statistic = np.mean,
    method: str = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a bootstrap interval of a statistic of one sample.

    ``bca`` is the bias-corrected and accelerated interval (Efron 1987), for smooth statistics like
    the mean; ``percentile`` also serves quantiles, whose jackknife is inconsistent.

    Args:
        values: The sample, (n,), or (n, D) with rows that stay together.
        generator: Source of the resamples.
        statistic: Called with an array and the ``axis`` of length n; for each sample one number.
        method: ``bca`` or ``percentile``.
        resamples: B.

    Raises:
        ValueError: A value is wrong.
    """
    if method not in ("bca", "percentile"):
        raise ValueError(f"method: expected bca or percentile, found {method!r}")
    sample = _sample("values", values, dimensions=(1, 2))
    n = len(sample)
    replicates = statistic(sample[generator.integers(n, size=(resamples, n))], axis=1)
    estimate = float(statistic(sample, axis=0))
    tails = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    if method == "bca" and n > 1:
        left_out = np.array([np.delete(np.arange(n), each) for each in range(n)])
        tails = _accelerated(tails, estimate, replicates, statistic(sample[left_out], axis=1))
    low, high = np.quantile(replicates, tails)
    return Interval(float(low), estimate, float(high))


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    generator: np.random.Generator,
    statistic: Statistic = np.mean,
    method: str = "bca",
    resamples: int = RESAMPLES,
) -> Interval:
    """Return a bootstrap interval of ``statistic(first) − statistic(second)``, pairs kept together.

    Args:
        first: (n,) one value a pair.
        second: (n,) the other.
        generator: Source of the resamples.
        statistic: As for `bootstrap`; for the median take ``percentile``.
        method: ``bca`` or ``percentile``.
        resamples: B.

    Raises:
        ValueError: A shape or a value is wrong.
    """

    def difference(pairs: FloatArray, axis: int) -> FloatArray:
        reduced = statistic(pairs, axis=axis)
        return np.asarray(reduced[..., 0] - reduced[..., 1])

    pairs = np.column_stack(_pairs(first, second))
    return bootstrap(pairs, generator, difference, method, resamples)


def _accelerated(
    tails: FloatArray, estimate: float, replicates: FloatArray, jackknife: FloatArray
) -> FloatArray:
    """Move the tails of a percentile interval by bias and acceleration (Efron 1987)."""
    from scipy.special import ndtr, ndtri

    share = float(_wins(np.asarray(estimate), replicates).mean())
    if not 0 < share < 1:
        return tails
    bias = ndtri(share)
    spread = jackknife.mean() - jackknife
    scale = float((spread**2).sum()) ** 1.5
    acceleration = float((spread**3).sum()) / (6 * scale) if scale > _ROUNDING**3 else 0.0
    shifted = bias + ndtri(tails)
    moved: FloatArray = np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)), dtype=np.float64)
    return moved


def wilcoxon(first: ArrayLike, second: ArrayLike) -> float:
    """Return the two-sided p-value of the signed-rank test (Wilcoxon 1945) of paired observations.

    Pairs without a difference are left out; where none has one, p is 1. The distribution is exact,
    also with ties: over all 2ⁿ assignments of signs to the ranks of the absolute differences.

    Args:
        first: (n,) one value a pair.
        second: (n,) the other.

    Raises:
        ValueError: A shape or a value is wrong.
    """
    from scipy.stats import rankdata

    one, other = _pairs(first, second)
    differences = one - other
    differences = differences[np.abs(differences) > _ROUNDING]
    if not len(differences):
        return 1.0
    # Rounded, so that equal differences are ties; doubled, for tied ranks are halves.
    ranks = np.rint(2 * rankdata(np.round(np.abs(differences), 12))).astype(np.int64)
    observed = int(ranks[differences > 0].sum())
    probabilities = np.zeros(int(ranks.sum()) + 1)
    probabilities[0] = 1.0
    for rank in ranks:
        moved = np.zeros_like(probabilities)
        moved[rank:] = probabilities[: len(probabilities) - rank]
        probabilities = (probabilities + moved) / 2
    tail = min(probabilities[: observed + 1].sum(), probabilities[observed:].sum())
    return float(min(1.0, 2 * tail))


def holm(p_values: ArrayLike) -> FloatArray:
    """Return p-values corrected for their number by the step-down method of Holm 1979.

    Args:
        p_values: (n,) in [0, 1]; n may be 0.

    Returns:
        (n,) corrected p-values, in the order given.

    Raises:
        ValueError: A value is no probability.
    """
    given = np.asarray(p_values, dtype=np.float64)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise ValueError(f"p_values: expected shape (n,) with values in [0, 1], found {p_values!r}")
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def vargha_delaney(first: ArrayLike, second: ArrayLike) -> float:
    """Return the effect size A₁₂: the probability that a value of first is above one of second.

    Ties count half; 0.5 is no effect, 0.56 a small, 0.64 a medium, 0.71 a large one
    (Vargha and Delaney 2000).

    Args:
        first: (R,).
        second: (Q,).
    """
    one, other = _sample("first", first), _sample("second", second)
    return float(_wins(one[:, None], other[None, :]).mean())


def cliffs_delta(first: ArrayLike, second: ArrayLike) -> float:
    """Return Cliff's delta (Cliff 1993), 2·A₁₂ − 1: in [−1, 1], 0 is no effect."""
    return 2 * vargha_delaney(first, second) - 1


def probability_of_improvement(
    first: ArrayLike,
    second: ArrayLike,
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return how likely a run of first is to do better than one of second on a model drawn at random.

    The mean over models of A₁₂ (Agarwal et al. 2021, probability of improvement), with a percentile
    bootstrap interval. Runs are resampled whole, for one run has one rule for all its models.

    Args:
        first: (R, M) values of R runs on M models.
        second: (Q, M) values of Q runs on the same models.
        generator: Source of the resamples.
        resamples: B.

    Raises:
        ValueError: A shape is wrong.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or not one.size or not other.size:
        raise ValueError(
            f"first, second: expected shapes (R, M) and (Q, M), found {one.shape} and {other.shape}"
        )
    wins = np.array([_wins(row, other).mean(axis=1) for row in one])  # (R, Q)
    rows = _multiplicities(generator, len(one), resamples)
    columns = _multiplicities(generator, len(other), resamples)
    replicates = np.einsum("br,rq,bq->b", rows, wins, columns, optimize=True)
    low, high = np.quantile(replicates, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(float(low), float(wins.mean()), float(high))


def _multiplicities(generator: np.random.Generator, count: int, resamples: int) -> FloatArray:
    """Draw how often each of so many is in a resample, as shares: (B, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count


def _wins(one: FloatArray, other: FloatArray) -> FloatArray:
    difference = one - other
    tied = np.abs(difference) <= _ROUNDING
    return np.where(tied, 0.5, difference > 0)


def evaluations_to_target(best_so_far: ArrayLike, target: float) -> int | None:
    """Return after how many evaluations a search first reached a target; None if it never did.

    Args:
        best_so_far: (N,) best value after 1, 2, …, N evaluations.
        target: The value to reach.
    """
    reached = np.flatnonzero(np.asarray(best_so_far, dtype=np.float64) >= target - _ROUNDING)
    return int(reached[0]) + 1 if len(reached) else None


def median_to_target(counts: Sequence[float | None]) -> float | None:
    """Return the median of what runs needed; None (never arrived) counts as later than all others."""
    ordered = np.sort([np.inf if each is None else float(each) for each in counts])
    if not len(ordered):
        return None
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return float(middle) if np.isfinite(middle) else None


def expected_running_time(counts: Sequence[float | None], spent: Sequence[float]) -> float | None:
    """Return the expected cost to reach a target with restarts (ERT; Hansen et al. 2009).

    All that was spent, by runs until they arrived and by those that never did, over the number
    that arrived.

    Args:
        counts: What each run needed; None where it never arrived.
        spent: What each run spent in all.

    Returns:
        None where no run arrived.
    """
    arrived = sum(each is not None for each in counts)
    if not arrived:
        return None
    total = sum(whole if needed is None else needed for needed, whole in zip(counts, spent, strict=True))
    return total / arrived


def _sample(name: str, values: ArrayLike, dimensions: tuple[int, ...] = (1,)) -> FloatArray:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim not in dimensions or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"{name}: expected shape (n,), n ≥ 1, with finite values, found {values!r}")
    return sample


def _pairs(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    one, other = _sample("first", first), _sample("second", second)
    if len(one) != len(other):
        raise ValueError(f"first, second: expected pairs, found {len(one)} and {len(other)} values")
    return one, other
