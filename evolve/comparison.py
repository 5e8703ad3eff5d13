"""What a benchmark says: each setting in numbers, each against the first, and the price of information."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evolve.benchmark_cells import CellResult
from evolve.benchmarking import BenchOutcome, Setting
from evolve.profiles import ModelProfile
from evolve.search.fronts import source_level
from evolve.signals import LEVELS
from evolve.statistics import (
    FloatArray,
    Interval,
    expected_running_time,
    holm,
    median_to_target,
    paired_bootstrap,
    probability_of_improvement,
    quartiles,
    vargha_delaney,
    wilcoxon,
)

#: Shares of the optimum that a search is to reach.
TARGETS = (0.95, 0.99, 0.995)
#: The measure of the search itself: the best share on train of any candidate.
SEARCH = "search"
#: Model evaluations that measuring a level's signals costs, per calibration batch. A backward pass
#: counts as two forward passes (Kaplan et al. 2020, §2.1). Curves cost one for each layer and format.
FORWARD_PASSES = {"metadata": 0.0, "statistics": 1.0, "gradient": 3.0}
_BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Spread:
    """Shares of the optimum over seeds: quartiles, mean, and the mean over seeds of the worst model."""

    lower_quartile: float
    median: float
    upper_quartile: float
    mean: float
    worst: float


@dataclass(frozen=True)
class Arrival:
    """How fast a setting reached a share of the optimum on train.

    Attributes:
        target: The share.
        reached: Runs that reached it.
        median: Median evaluations, runs that never arrived being later than all others; None where
            it lies among them.
        expected: Expected evaluations with restarts; None where no run arrived.
    """

    target: float
    reached: int
    median: float | None
    expected: float | None


@dataclass(frozen=True)
class SettingSummary:
    """A setting over its seeds.

    Attributes:
        name: Its name.
        fewest, most: Evaluations of its runs; fewer than planned where a strategy ran dry.
        complexity: Median nodes of the champions' syntax trees.
        shares: Spread of the shares, by measure: ``search`` and the splits, for the champions.
        arrivals: One a target.
    """

    name: str
    fewest: int
    most: int
    complexity: float
    shares: dict[str, Spread]
    arrivals: tuple[Arrival, ...]


@dataclass(frozen=True)
class Comparison:
    """One measure of the first setting beside another's, paired by seed; above 0 the first is better.

    Attributes:
        measure: ``search``, or the split on which the champions are compared.
        first, second: Names of the settings.
        mean_difference: Difference of means, with its BCa bootstrap interval.
        median_difference: Difference of medians, with its percentile bootstrap interval.
        wins, ties, losses: Seeds.
        p_value: Of Wilcoxon's signed-rank test.
        corrected: Holm's correction of it, over all comparisons of the benchmark.
        effect_size: A₁₂ of Vargha and Delaney.
        improvement: Probability of improvement on a model drawn at random, with its interval.
    """

    measure: str
    first: str
    second: str
    mean_difference: Interval
    median_difference: Interval
    wins: int
    ties: int
    losses: int
    p_value: float
    corrected: float
    effect_size: float
    improvement: Interval


@dataclass(frozen=True)
class LevelPrice:
    """The best rule that an information level allows, and what its signals cost.

    Attributes:
        level: The level that was allowed.
        reads: The level of what the rule reads, which may be lower.
        cost: Model evaluations to measure all signals of that level: mean over the models of the split.
        best: The run whose champion did best on the split that chooses.
        mean, worst: Its share of the optimum on unseen models.
        others: Mean shares there of the champions of all runs at this level.
    """

    level: str
    reads: str
    cost: float
    best: CellResult
    mean: float
    worst: float
    others: tuple[float, ...]


def measures(outcome: BenchOutcome) -> tuple[str, ...]:
    """Return what is compared: the search itself, then the champions on each split."""
    return SEARCH, *outcome.results[0].shares


def summarise_setting(outcome: BenchOutcome, setting: Setting) -> SettingSummary:
    """Summarise the runs of a setting."""
    results = outcome.of(setting)
    spent = [each.evaluations for each in results]
    arrivals = []
    for target in TARGETS:
        counts = [each.evaluations_to(target) for each in results]
        reached = sum(each is not None for each in counts)
        arrivals.append(
            Arrival(target, reached, median_to_target(counts), expected_running_time(counts, spent))
        )
    return SettingSummary(
        name=setting.name,
        fewest=min(spent),
        most=max(spent),
        complexity=float(np.median([each.complexity for each in results])),
        shares={measure: _spread(_by_model(results, measure)) for measure in measures(outcome)},
        arrivals=tuple(arrivals),
    )


def _by_model(results: Sequence[CellResult], measure: str) -> FloatArray:
    """Return the shares of R runs on the M models of a split, (R, M); one column for the search itself."""
    rows = [(each.best,) if measure == SEARCH else each.shares[measure] for each in results]
    return np.array(rows, dtype=np.float64)


def _spread(shares: FloatArray) -> Spread:
    means = shares.mean(axis=1)
    return Spread(*quartiles(means), mean=float(means.mean()), worst=float(shares.min(axis=1).mean()))


def compare(outcome: BenchOutcome) -> tuple[Comparison, ...]:
    """Compare every setting with the first, on every measure."""
    first, *others = outcome.plan.settings
    pairs = [(measure, each) for measure in measures(outcome) for each in others]
    shares = [
        (_by_model(outcome.of(first), measure), _by_model(outcome.of(each), measure))
        for measure, each in pairs
    ]
    p_values = [wilcoxon(one.mean(axis=1), other.mean(axis=1)) for one, other in shares]
    return tuple(
        _comparison(measure, first.name, second.name, one, other, p_value, float(corrected))
        for (measure, second), (one, other), p_value, corrected in zip(
            pairs, shares, p_values, holm(p_values), strict=True
        )
    )


def _comparison(
    measure: str,
    first: str,
    second: str,
    one: FloatArray,
    other: FloatArray,
    p_value: float,
    corrected: float,
) -> Comparison:
    means, other_means = one.mean(axis=1), other.mean(axis=1)
    signs = np.sign(np.round(means - other_means, 12))

    def generator() -> np.random.Generator:
        # One for each interval, so that none depends on which others are computed.
        return np.random.default_rng(_BOOTSTRAP_SEED)

    return Comparison(
        measure=measure,
        first=first,
        second=second,
        mean_difference=paired_bootstrap(means, other_means, generator()),
        median_difference=paired_bootstrap(means, other_means, generator(), np.median, "percentile"),
        wins=int((signs > 0).sum()),
        ties=int((signs == 0).sum()),
        losses=int((signs < 0).sum()),
        p_value=p_value,
        corrected=corrected,
        effect_size=vargha_delaney(means, other_means),
        improvement=probability_of_improvement(one, other, generator()),
    )


def measuring_cost(level: str, profile: ModelProfile) -> float:
    """Return how many model evaluations measuring all signals of a level costs.

    Curves take one for each layer in each format but the widest, which is the reference, and one
    for the reference itself: L·(K − 1) + 1.
    """
    if level in FORWARD_PASSES:
        return FORWARD_PASSES[level]
    return float(profile.num_layers * (len(profile.format_names) - 1) + 1)


def price_of_information(outcome: BenchOutcome) -> tuple[LevelPrice, ...]:
    """Return for each information level its best rule and its cost; nothing where there is but one level.

    The rule is chosen on valid (on train where there is none), so that test selects nothing.
    """
    found = tuple(_prices(outcome))
    return found if len(found) > 1 else ()


def _prices(outcome: BenchOutcome) -> Iterator[LevelPrice]:
    splits = list(outcome.results[0].shares)
    chooser, unseen = ("valid" if "valid" in splits else "train"), splits[-1]
    levels = {each.name: outcome.plan.config(each, 0).signals for each in outcome.plan.settings}
    for level in LEVELS:
        results = [each for each in outcome.results if levels[each.setting] == level]
        if not results:
            continue
        # The simpler rule, then the earlier run, where two do equally well.
        best = max(results, key=lambda each: (round(each.mean(chooser), 9), -each.complexity))
        reads = LEVELS[source_level(best.source)]
        costs = [measuring_cost(reads, each) for each in outcome.dataset.split(unseen)]
        yield LevelPrice(
            level=level,
            reads=reads,
            cost=float(np.mean(costs)),
            best=best,
            mean=best.mean(unseen),
            worst=best.worst(unseen),
            others=tuple(each.mean(unseen) for each in results),
        )


def best_so_far(results: Sequence[CellResult], evaluations: Sequence[int]) -> FloatArray:
    """Return the best share on train of R runs after each of some numbers of evaluations.

    Args:
        results: R runs.
        evaluations: E increasing numbers.

    Returns:
        (R, E) shares; NaN before a run's first rule that works.
    """
    curves = np.full((len(results), len(evaluations)), np.nan)
    for row, each in zip(curves, results, strict=True):
        numbers = np.array([number for number, _ in each.improvements], dtype=np.int64)
        shares = np.array([share for _, share in each.improvements], dtype=np.float64)
        places = np.searchsorted(numbers, np.asarray(evaluations), side="right") - 1
        row[places >= 0] = shares[places[places >= 0]]
    return curves
