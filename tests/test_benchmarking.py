"""Benchmarks on tiny cells: equal evaluations, resumed exactly, the same bytes with any workers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evolve import benchmarking, search
from evolve.benchmark_cells import CellResult, read_timing
from evolve.benchmarking import BenchOutcome, Plan, Setting, run_bench
from evolve.candidates import Offspring, Scored
from evolve.comparison import (
    best_so_far,
    summarise_setting,
)
from evolve.errors import RunError
from evolve.reports.benchmark import bench_command, bench_json, write_bench
from evolve.reports.benchmark_tables import collect_bench
from evolve.search.base import Problem
from evolve.store import RunStore

BASE = {"datasets": "reference", "population": 8}
RIVALS = (Setting("genetic", {"strategy": "genetic"}), Setting("random", {"strategy": "random"}))
PLAN = Plan("tiny", RIVALS, 2, 29, BASE)


def files(folder: Path) -> dict[str, bytes]:
    """All files that may not differ between equal benchmarks."""
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in sorted(folder.rglob("*"))
        if each.is_file()
        and each.name not in ("manifest.json", "timing.jsonl", "timing.json", "timing.md", ".lock")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BenchOutcome]:
    """A benchmark and its report; not to be changed."""
    folder = tmp_path_factory.mktemp("bench")
    outcome = run_bench(PLAN, runs=folder / "runs")
    assert outcome is not None
    write_bench(collect_bench(outcome), folder / "reports")
    return folder, outcome


def test_every_run_has_exactly_as_many_evaluations(made: tuple[Path, BenchOutcome]) -> None:
    folder, outcome = made
    assert [each.evaluations for each in outcome.results] == [29] * 4
    for path in (folder / "runs" / "bench-tiny").glob("*/seed-*"):
        assert len(RunStore(path).scored()) == 29


def test_the_limit_only_cuts_the_search_off(made: tuple[Path, BenchOutcome], tmp_path: Path) -> None:
    longer = run_bench(Plan("tiny", RIVALS, 1, 37, BASE), runs=tmp_path)
    assert longer is not None
    for setting in ("genetic", "random"):
        cut = RunStore(made[0] / "runs" / "bench-tiny" / setting / "seed-0").scored()
        whole = RunStore(tmp_path / "bench-tiny" / setting / "seed-0").scored()
        assert [each.candidate.id for each in whole[:29]] == [each.candidate.id for each in cut]


def test_results_come_from_the_journal(made: tuple[Path, BenchOutcome]) -> None:
    folder, outcome = made
    for result in outcome.results:
        store = RunStore(folder / "runs" / "bench-tiny" / result.setting / f"seed-{result.seed}")
        shares = [
            0.0 if each.evaluation.train is None else each.evaluation.train.optimum_ratio
            for each in store.scored()
        ]
        running = np.maximum.accumulate(shares)
        assert best_so_far([result], range(1, 30))[0] == pytest.approx(running)
        assert result.best == max(shares)
        champion = next(each for each in store.scored() if each.candidate.id == result.champion)
        assert champion.evaluation.train is not None
        assert result.mean("train") == pytest.approx(champion.evaluation.train.optimum_ratio)
        assert len(result.shares["test"]) == len(outcome.dataset.test)


class OnlySeeds:
    """A strategy that has nothing but the seed heuristics."""

    def __init__(self, problem: Problem, *_: object) -> None:
        self._seeds = list(problem.seeds)

    def ask(self) -> list[Offspring]:
        return self._seeds

    def tell(self, scored: Sequence[Scored]) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any], archive: Mapping[str, Scored]) -> None:
        pass


def test_a_strategy_that_runs_dry_ends_with_what_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(search.STRATEGIES, "only-seeds", OnlySeeds)  # type: ignore[arg-type]
    outcome = run_bench(
        Plan("dry", (Setting("dry", {"strategy": "only-seeds"}),), 1, 500, BASE), runs=tmp_path
    )
    assert outcome is not None
    (result,) = outcome.results
    assert 0 < result.evaluations < 30
    summary = summarise_setting(outcome, outcome.plan.settings[0])
    assert (summary.fewest, summary.most) == (result.evaluations, result.evaluations)


def test_stopped_anywhere_it_ends_in_the_same_bytes(made: tuple[Path, BenchOutcome], tmp_path: Path) -> None:
    for patience in range(1, 40, 3):
        asked = iter(range(10_000))
        outcome = run_bench(
            PLAN, runs=tmp_path / "runs", should_stop=lambda p=patience, a=asked: next(a) >= p
        )
        if outcome is not None:
            break
    assert patience > 1
    assert outcome is not None
    assert outcome.results == made[1].results
    assert files(tmp_path / "runs") == files(made[0] / "runs")
    for path in (tmp_path / "runs" / "bench-tiny").glob("*/seed-*"):
        timing = read_timing(path)
        assert [each["generation"] for each in timing] == list(range(len(timing)))
        assert [each["seconds"] for each in timing] == sorted(each["seconds"] for each in timing)


def test_workers_change_no_byte(made: tuple[Path, BenchOutcome], tmp_path: Path) -> None:
    outcome = run_bench(PLAN, runs=tmp_path / "runs", workers=2)
    assert outcome is not None
    write_bench(collect_bench(outcome), tmp_path / "reports")
    assert files(tmp_path / "runs") == files(made[0] / "runs")
    assert files(tmp_path / "reports") == files(made[0] / "reports")


def test_finished_runs_are_not_repeated(
    made: tuple[Path, BenchOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(benchmarking, "run_cell", fail)
    seen: list[int] = []
    again = run_bench(PLAN, runs=made[0] / "runs", observe=lambda _, result: seen.append(result.seed))
    assert again is not None
    assert again.results == made[1].results
    assert seen == [0, 1, 0, 1]


def test_another_benchmark_of_that_name_is_refused(made: tuple[Path, BenchOutcome]) -> None:
    with pytest.raises(RunError, match=r"evaluations.*expected 30, found 29.*another --name"):
        run_bench(Plan("tiny", RIVALS, 2, 30, BASE), runs=made[0] / "runs")


def test_a_fault_in_a_worker_arrives_as_itself(tmp_path: Path) -> None:
    run_bench(Plan("tiny", RIVALS[:1], 1, 9, BASE), runs=tmp_path)
    cell = tmp_path / "bench-tiny" / "genetic" / "seed-0"
    (cell / "result.json").unlink()
    (cell / "journal.jsonl").write_text("")
    with pytest.raises(RunError, match="cut short"):
        run_bench(Plan("tiny", RIVALS[:1], 2, 9, BASE), runs=tmp_path, workers=2)


def test_json_holds_every_number(made: tuple[Path, BenchOutcome]) -> None:
    folder, outcome = made
    data = json.loads((folder / "reports" / "bench-tiny" / "bench.json").read_text())
    assert data == json.loads(json.dumps(bench_json(collect_bench(outcome))))
    assert data["command"] == bench_command(outcome)
    assert set(data) == {
        "name", "version", "dataset", "dataset_hash", "models", "evaluations", "seeds", "command",
        "configurations", "settings", "comparisons", "price_of_information", "runs",
    }  # fmt: skip
    assert data["models"] == {"train": 1, "valid": 1, "test": 1}
    assert [each["name"] for each in data["settings"]] == ["genetic", "random"]
    assert set(data["settings"][0]["shares"]) == {"search", "train", "valid", "test"}
    assert [each["measure"] for each in data["comparisons"]] == ["search", "train", "valid", "test"]
    for each in data["comparisons"]:
        assert each["first"] == "genetic"
        assert 0 <= each["p_value"] <= each["corrected"] <= 1
        assert each["wins"] + each["ties"] + each["losses"] == 2
    assert "seconds" not in json.dumps(data)
    assert [CellResult.from_json(each) for each in data["runs"]] == list(outcome.results)


def test_csv_has_a_row_a_run(made: tuple[Path, BenchOutcome]) -> None:
    frame = pd.read_csv(made[0] / "reports" / "bench-tiny" / "results.csv")
    assert frame[["setting", "seed"]].to_numpy().tolist() == [
        ["genetic", 0], ["genetic", 1], ["random", 0], ["random", 1],
    ]  # fmt: skip
    assert frame["test"].tolist() == [each.mean("test") for each in made[1].results]


def test_the_report_is_listed_in_the_index(made: tuple[Path, BenchOutcome]) -> None:
    index = (made[0] / "reports" / "README.md").read_text()
    assert "| [bench-tiny](bench-tiny/bench.md) | reference | genetic, random | 2 | 29 |" in index
    page = (made[0] / "reports" / "bench-tiny" / "bench.md").read_text()
    for name in ("curves.svg", "timing.md", "results.csv", "bench.json"):
        assert f"({name})" in page
        assert (made[0] / "reports" / "bench-tiny" / name).is_file()
    assert "price of information" not in page


def test_the_command_makes_the_same_plan(made: tuple[Path, BenchOutcome]) -> None:
    expected = "--strategies genetic,random --seeds 2 --evaluations 29 --datasets reference --population 8"
    assert expected in bench_command(made[1])
    plan = made[1].plan
    fitted = replace(made[1], plan=replace(plan, base={**plan.base, "copies": 2, "fit": True}))
    assert bench_command(fitted).endswith("--population 8 --copies 2 --fit --name tiny")
    plain = replace(made[1], plan=replace(plan, base={**plan.base, "fit": False}))
    assert bench_command(plain).endswith("--population 8 --no-fit --name tiny")
