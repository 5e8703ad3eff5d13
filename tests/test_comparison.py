"""What a benchmark says of its runs: comparisons, arrivals, and the price of information."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt

from evolve.benchmark_cells import CellResult, seconds_to
from evolve.benchmarking import BenchOutcome, Plan, Setting, run_bench
from evolve.comparison import (
    compare,
    measures,
    measuring_cost,
    price_of_information,
    summarise_setting,
)
from evolve.datasets import Dataset, find_dataset
from evolve.reports.benchmark import bench_json, bench_page, write_bench
from evolve.reports.benchmark_figures import draw_bench
from evolve.reports.benchmark_tables import collect_bench, price_table
from evolve.synthetic import generate

BASE = {"datasets": "reference", "population": 8}


def outcome_of(shares: Mapping[str, Sequence[Sequence[float]]], dataset: Dataset, level: str) -> BenchOutcome:
    """A benchmark whose champions have these shares, (R, M) by setting."""
    settings = tuple(Setting(name, {"signals": level}) for name in shares)
    results = [
        CellResult(name, seed, 9, "id", 5, "", {}, {"test": tuple(row)}, ((1, 0.5), (4, float(np.mean(row)))))
        for name, rows in shares.items()
        for seed, row in enumerate(rows)
    ]
    plan = Plan("made", settings, len(next(iter(shares.values()))), 9, {})
    return BenchOutcome(plan, dataset, tuple(results), ([],) * len(results))


def test_names_on_the_page_are_read_as_they_are() -> None:
    name = "od d|d`[x]`"
    outcome = outcome_of({"a": [[0.9]]}, find_dataset("reference"), "curves")
    results = tuple(replace(each, shares={"train": (0.9,), **each.shares}) for each in outcome.results)
    outcome = replace(outcome, plan=replace(outcome.plan, base={"datasets": name}), results=results)
    page = bench_page(collect_bench(outcome), False)
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    spans = [child.content for each in tokens for child in each.children or () if child.type == "code_inline"]
    assert spans.count(name) == 1
    assert json.dumps({"datasets": name, "signals": "curves"}) in spans


def test_comparisons_of_what_is_known() -> None:
    better = [[0.9 + seed / 100, 0.8] for seed in range(8)]
    worse = [[0.7 + seed / 90, 0.8] for seed in range(8)]
    outcome = outcome_of({"a": better, "b": worse, "c": better}, find_dataset("reference"), "curves")
    found = {(each.measure, each.second): each for each in compare(outcome)}
    assert measures(outcome) == ("search", "test")
    won = found["test", "b"]
    assert (won.wins, won.ties, won.losses) == (8, 0, 0)
    assert won.p_value == pytest.approx(2 / 2**8)
    assert won.corrected == pytest.approx(4 * won.p_value)  # of four, with two at p = 1
    assert won.effect_size == 1
    assert won.improvement.estimate == pytest.approx(0.75)  # always on one model, a draw on the other
    assert won.mean_difference.low > 0
    equal = found["test", "c"]
    assert (equal.ties, equal.p_value, equal.effect_size) == (8, 1, 0.5)
    assert (equal.mean_difference.low, equal.mean_difference.high) == (0, 0)


def test_arrivals_count_runs_that_never_arrive() -> None:
    outcome = outcome_of({"a": [[0.96], [0.5], [0.999]]}, find_dataset("reference"), "curves")
    ninety_five, ninety_nine, _ = summarise_setting(outcome, outcome.plan.settings[0]).arrivals
    assert (ninety_five.reached, ninety_five.median) == (2, 4)
    assert ninety_five.expected == pytest.approx((4 + 9 + 4) / 2)
    assert (ninety_nine.reached, ninety_nine.median) == (1, None)


def test_seconds_count_whole_generations() -> None:
    timing = [{"evaluations": 8, "seconds": 1.5}, {"evaluations": 16, "seconds": 2.5}]
    assert [seconds_to(timing, each) for each in (1, 8, 9, 17, None)] == [1.5, 1.5, 2.5, None, None]


def test_levels_cost_what_measuring_takes() -> None:
    (profile,) = generate(1, 0)
    layers, formats = profile.sensitivity.shape
    assert [measuring_cost(each, profile) for each in ("metadata", "statistics", "gradient")] == [0, 1, 3]
    assert measuring_cost("curves", profile) == layers * (formats - 1) + 1


def test_the_price_of_information(tmp_path: Path) -> None:
    levels = ("metadata", "curves")
    settings = tuple(Setting(each, {"signals": each}) for each in levels)
    outcome = run_bench(Plan("price", settings, 2, 16, BASE), runs=tmp_path / "runs")
    assert outcome is not None
    metadata, curves = price_of_information(outcome)
    assert (metadata.level, metadata.cost) == ("metadata", 0)
    assert curves.cost == np.mean([measuring_cost(curves.reads, each) for each in outcome.dataset.test])
    for price in (metadata, curves):
        own = [each for each in outcome.results if each.setting == price.level]
        assert price.best.mean("valid") == max(each.mean("valid") for each in own)
        assert price.mean == price.best.mean("test")
    folder = write_bench(collect_bench(outcome), tmp_path / "reports")
    assert "## The price of information" in (folder / "bench.md").read_text()
    assert (folder / "price.svg").is_file()


def test_a_rule_is_charged_for_what_it_reads_not_for_what_it_might_have_read() -> None:
    sources = {
        "metadata": "def allocate(model, p):\n    return model.cheapest(model.depth)\n",
        "statistics": "def allocate(model, p):\n    return model.cheapest(model.num_params)\n",
        "curves": "def allocate(model, p):\n    return model.cheapest(model.fisher * model.weight_std)\n",
    }
    settings = tuple(Setting(each, {"signals": each}) for each in sources)
    shares = {"train": (0.9, 0.8), "test": (0.9, 0.8)}
    results = tuple(
        CellResult(level, 0, 9, "id", 5, source, {}, shares, ((1, 0.5),)) for level, source in sources.items()
    )
    plan = Plan("made", settings, 1, 9, {})
    contents = collect_bench(BenchOutcome(plan, find_dataset("reference"), results, ([],) * 3))
    assert [(each.level, each.reads, each.cost) for each in contents.prices] == [
        ("metadata", "metadata", 0),
        ("statistics", "metadata", 0),
        ("curves", "gradient", 3),
    ]
    table = price_table(contents)
    assert [row[:3] for row in table.rows] == [
        ["metadata", "metadata", "0"],
        ["statistics", "metadata", "0"],
        ["curves", "gradient", "3"],
    ]
    assert [each["reads"] for each in bench_json(contents)["price_of_information"]] == [
        *("metadata", "metadata", "gradient")
    ]
    picture = draw_bench(contents.outcome, contents.prices)["price.svg"].decode()
    assert "<!-- reads only gradient -->" in picture
    assert picture.count("reads only") == 2
