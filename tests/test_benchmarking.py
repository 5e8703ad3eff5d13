"""Benchmarks on tiny cells: equal evaluations, resumed exactly, the same bytes with any workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evolve import benchmarking, search
from evolve.benchmark_cells import CellResult, read_timing, seconds_to
from evolve.benchmarking import BenchOutcome, Plan, Setting, cross, run_bench
from evolve.candidates import Offspring, Scored
from evolve.cli import main
from evolve.comparison import (
    best_so_far,
    compare,
    measures,
    measuring_cost,
    price_of_information,
    summarise_setting,
)
from evolve.datasets import Dataset, find_dataset
from evolve.errors import InputError, RunError
from evolve.reports.benchmark import bench_command, bench_json, write_bench
from evolve.reports.benchmark_tables import collect_bench
from evolve.search.base import Problem
from evolve.store import RunStore
from evolve.synthetic import generate

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
    assert curves.cost == np.mean([measuring_cost("curves", each) for each in outcome.dataset.test])
    for price in (metadata, curves):
        own = [each for each in outcome.results if each.setting == price.level]
        assert price.best.mean("valid") == max(each.mean("valid") for each in own)
        assert price.mean == price.best.mean("test")
    folder = write_bench(collect_bench(outcome), tmp_path / "reports")
    assert "## The price of information" in (folder / "bench.md").read_text()
    assert (folder / "price.svg").is_file()


def test_settings_must_share_their_models(tmp_path: Path) -> None:
    one = Setting("one", {"datasets": "reference"})
    other = Setting("other", {"datasets": str(Path(__file__).parents[1] / "datasets/reference/train.json")})
    with pytest.raises(InputError, match="same models for all settings"):
        run_bench(Plan("models", (one, other), 1, 9, {"population": 8}), runs=tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": 0}, "seeds: bad benchmark"),
        ({"evaluations": 1}, "evaluations: bad benchmark"),
        ({"settings": ()}, "settings: bad benchmark"),
        ({"settings": RIVALS[:1] * 2}, "none twice"),
        ({"name": "../up"}, "bad run name"),
    ],
)
def test_bad_plans(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan(**{"name": "x", "settings": RIVALS, "seeds": 1, "evaluations": 9, "base": BASE, **values})


def test_every_combination_is_a_setting_named_by_what_differs() -> None:
    axes = {"strategy": ["genetic"], "signals": ["curves"]}
    assert [each.name for each in cross(axes)] == ["genetic"]
    rivals = {"strategy": ["genetic", "islands:2:random"], "operators": ["default", "x,y=0.5"]}
    crossed = cross({**axes, **rivals})
    assert [each.name for each in crossed] == [
        *("genetic-default", "genetic-x-y-0.5", "islands-2-random-default", "islands-2-random-x-y-0.5")
    ]
    assert crossed[1].overrides == {"strategy": "genetic", "signals": "curves", "operators": "x,y=0.5"}


class TestCommand:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def call(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["evolve", "bench", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--strategies", "genetic,magic"], "unknown strategy"),
            (["--signals", "metadata,magic"], "unknown level"),
            (["--datasets", "nowhere"], "no such data set"),
            (["--population", "1"], "population: bad configuration"),
            (["--evaluations", "1"], "--evaluations"),
            (["--seeds", "0"], "--seeds"),
            (["--workers", "0"], "--workers"),
            (["--name", "a/b"], "bad run name"),
            (["--strategies", ","], "settings: bad benchmark"),
            (["--operators", "default", "--operators", "default,magic"], "unknown operator"),
            (["--start-from", "baseline", "--start-from", "magic"], "unknown heuristic"),
            (["--config", "none.toml"], "cannot be read"),
        ],
    )
    def test_bad_input_ends_in_one_message(
        self,
        words: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.call(monkeypatch, *words) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("text", "words", "message"),
        [
            ("seed = 3", [], "seed: not for a benchmark"),
            ("settings = 3", [], "expected tables"),
            ("[settings]\na = 3", [], "expected tables"),
            ("[settings.a]\ngenerations = 3", [], "a, generations: not for a benchmark"),
            ("[settings.a]\nmagic = 3", [], "unknown key"),
            ("[settings.a]\npopulation = 9", ["--strategies", "random"], "settings given twice"),
            ("[settings.a]\npopulation = 9", ["--operators", "default"], "settings given twice"),
            ("[settings.a]\noperators = 'structure=x'", [], "bad weight"),
        ],
    )
    def test_bad_files(
        self,
        text: str,
        words: list[str],
        message: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        Path("bench.toml").write_text(text)
        assert self.call(monkeypatch, "--config", "bench.toml", *words) == 2
        assert message in capsys.readouterr().err
        assert [each.name for each in Path().iterdir()] == ["bench.toml"]

    def test_settings_of_a_file_in_json(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("bench.toml").write_text(
            "population = 8\n[settings.all]\n[settings.numbers]\noperators = 'parameters'\n"
        )
        words = ["--config", "bench.toml", "--seeds", "1", "--evaluations", "12", "--no-figures", "--json"]
        assert self.call(monkeypatch, *words) == 0
        first = capsys.readouterr()
        data = json.loads(first.out)
        assert [each["name"] for each in data["settings"]] == ["all", "numbers"]
        assert data["configurations"]["numbers"]["operators"] == {"parameters": 2.0}
        assert len(data["timing"]) == 2
        assert Path(data["report"]).is_file()
        assert "run 2/2" in first.err
        assert self.call(monkeypatch, *words) == 0  # finds its own runs again, without a name
        assert json.loads(capsys.readouterr().out) == data
