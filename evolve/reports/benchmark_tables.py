"""The tables of a benchmark in markdown: shares, comparisons, arrivals, prices and seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from evolve.benchmark_cells import seconds_to
from evolve.benchmarking import BenchOutcome
from evolve.comparison import (
    SEARCH,
    TARGETS,
    Comparison,
    LevelPrice,
    SettingSummary,
    Spread,
    compare,
    measures,
    price_of_information,
    summarise_setting,
)
from evolve.reports.markdown import MISSING, code_cell, number, percent, signed
from evolve.statistics import Interval, median_to_target

#: Effect sizes from which on A₁₂ is called so (Vargha and Delaney 2000).
_MAGNITUDES = ((0.71, "large"), (0.64, "medium"), (0.56, "small"), (0.0, "none"))

CURVES_FIGURE = "curves.svg"
PRICE_FIGURE = "price.svg"


@dataclass(frozen=True)
class BenchContents:
    """All that a benchmark's report shows."""

    outcome: BenchOutcome
    settings: tuple[SettingSummary, ...]
    comparisons: tuple[Comparison, ...]
    prices: tuple[LevelPrice, ...]


@dataclass(frozen=True)
class Table:
    """A markdown table; the columns after the first ``texts`` hold numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1

    @property
    def alignment(self) -> list[str]:
        """The line below the head."""
        return ["---" if place < self.texts else "---:" for place in range(len(self.columns))]


def collect_bench(outcome: BenchOutcome) -> BenchContents:
    """Compute everything that the report of a benchmark shows."""
    summaries = tuple(summarise_setting(outcome, each) for each in outcome.plan.settings)
    return BenchContents(outcome, summaries, compare(outcome), price_of_information(outcome))


def title(measure: str) -> str:
    """Return what a measure is called in a table."""
    return "best on train" if measure == SEARCH else f"champion, {measure}"


def shares_table(contents: BenchContents) -> Table:
    """Return a row a setting: its shares of the optimum."""
    shown = measures(contents.outcome)
    last = shown[-1]
    rows = []
    for each in contents.settings:
        spent = str(each.most) if each.fewest == each.most else f"{each.fewest}–{each.most}"
        spreads = [_spread(each.shares[measure]) for measure in shown]
        rows.append(
            [code_cell(each.name), spent, *spreads, percent(each.shares[last].worst), f"{each.complexity:g}"]
        )
    titles = [title(measure) for measure in shown]
    return Table(["setting", "evaluations", *titles, f"worst model, {last}", "nodes"], rows)


def comparison_table(contents: BenchContents) -> Table:
    """Return a row a comparison, with the difference in points of a percent."""
    rows = [
        [
            title(each.measure),
            code_cell(each.second),
            _points(each.mean_difference),
            _points(each.median_difference),
            f"{each.wins}–{each.ties}–{each.losses}",
            _probability(each.p_value),
            _probability(each.corrected),
            f"{number(each.effect_size, 2)}, {_magnitude(each.effect_size)}",
            _chance(each.improvement),
        ]
        for each in contents.comparisons
    ]
    columns = ["measure", "against", "difference of means, %", "of medians, %", "won–tied–lost", "p"]
    return Table([*columns, "p, Holm", "A₁₂", "probability of improvement"], rows, 2)


def arrivals_table(contents: BenchContents) -> Table:
    """Return a row a setting: how often and how fast it reached each share of the optimum on train."""
    columns = ["setting"]
    for target in TARGETS:
        columns += [f"{100 * target:g} %: reached", "median", "expected"]
    rows = []
    for each in contents.settings:
        row = [code_cell(each.name)]
        for arrival in each.arrivals:
            reached = f"{arrival.reached} of {contents.outcome.plan.seeds}"
            row += [reached, _count(arrival.median), _count(arrival.expected)]
        rows.append(row)
    return Table(columns, rows)


def price_table(contents: BenchContents) -> Table:
    """Return a row a level: what its best rule reads, what that costs, and what the rule reaches unseen."""
    unseen = measures(contents.outcome)[-1]
    rows = [
        [
            each.level,
            each.reads,
            f"{each.cost:,.4g}" if each.cost < 1000 else f"{each.cost:,.0f}",
            percent(each.mean),
            percent(each.worst),
            str(each.best.complexity),
            f"{code_cell(each.best.setting)}, seed {each.best.seed}",
        ]
        for each in contents.prices
    ]
    columns = ["level", "the rule reads", "model evaluations", f"mean, {unseen}", "worst model", "nodes"]
    return Table([*columns, "run"], rows, 2)


def timing_json(outcome: BenchOutcome) -> list[dict[str, Any]]:
    """Return the seconds of every run: in all, and to each share of the optimum, None if never reached."""
    found = []
    for result, timing in zip(outcome.results, outcome.timings, strict=True):
        arrivals = {f"{each:g}": seconds_to(timing, result.evaluations_to(each)) for each in TARGETS}
        spent = float(timing[-1]["seconds"]) if timing else None
        found.append(
            {"setting": result.setting, "seed": result.seed, "seconds": spent, "seconds_to": arrivals}
        )
    return found


def timing_table(outcome: BenchOutcome) -> Table:
    """Return a row a setting: medians of its seconds."""
    rows = []
    found = timing_json(outcome)
    for setting in outcome.plan.settings:
        own = [each for each in found if each["setting"] == setting.name]
        whole = [each["seconds"] for each in own if each["seconds"]]
        arrivals = [
            median_to_target([each["seconds_to"][f"{target:g}"] for each in own]) for target in TARGETS
        ]
        spent = sum(each.evaluations for each in outcome.of(setting))
        rows.append(
            [
                code_cell(setting.name),
                number(median(whole), 2) if whole else MISSING,
                *(number(each, 2) for each in arrivals),
                f"{spent / sum(whole):,.0f}" if whole else MISSING,
            ]
        )
    return Table(
        ["setting", "whole run", *(f"to {100 * each:g} %" for each in TARGETS), "evaluations/s"], rows
    )


def _spread(spread: Spread) -> str:
    ends = f"{percent(spread.lower_quartile)[:-2]}–{percent(spread.upper_quartile)[:-2]}"
    return f"{percent(spread.median)} ({ends})"


def _points(interval: Interval) -> str:
    low, middle, high = (signed(100 * each, 2) for each in (interval.low, interval.estimate, interval.high))
    return f"{middle} ({low} to {high})"


def _chance(interval: Interval) -> str:
    return f"{number(interval.estimate, 2)} ({number(interval.low, 2)} to {number(interval.high, 2)})"


def _probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}".replace("e-0", "e-").replace("-", "−")


def _magnitude(effect_size: float) -> str:
    distance = max(effect_size, 1 - effect_size)
    return next(word for least, word in _MAGNITUDES if distance >= least)


def _count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"
