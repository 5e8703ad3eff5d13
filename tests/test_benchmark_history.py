"""What stands where a benchmark is to go: it goes on with its own, and replaces nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from evolve.benchmarking import Plan, Setting, run_bench
from evolve.errors import PluginError, RunError
from evolve.reports.benchmark import write_bench
from evolve.reports.benchmark_tables import collect_bench

BASE = {"datasets": "reference", "population": 8}
GENETIC, RANDOM = (Setting(each, {"strategy": each}) for each in ("genetic", "random"))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("runs/bench-z/config.json", r"runs/bench-z: a run is here\. Choose another"),
        ("runs/bench-z/journal.jsonl", "runs/bench-z: a run is here"),
        (
            "reports/bench-z/report.md",
            r"reports/bench-z: the report of a run is here\. Choose another --name",
        ),
        ("reports/bench-z/champion.json", "reports/bench-z: the report of a run is here"),
    ],
)
def test_a_run_of_that_name_is_left_alone(tmp_path: Path, file: str, words: str) -> None:
    place = tmp_path / file
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=words):
        run_bench(Plan("z", (RANDOM,), 1, 9, BASE), runs=tmp_path / "runs", reports=tmp_path / "reports")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A benchmark of two settings and two seeds, with its report; to be changed at will."""
    bench(tmp_path, Plan("w", (GENETIC, RANDOM), 2, 9, BASE))
    return tmp_path


def bench(folder: Path, plan: Plan) -> None:
    outcome = run_bench(plan, runs=folder / "runs", reports=folder / "reports")
    assert outcome is not None
    write_bench(collect_bench(outcome), folder / "reports", figures=False)


def bytes_in(folder: Path) -> dict[Path, bytes]:
    return {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def refuse(folder: Path, plan: Plan, words: str) -> None:
    before = bytes_in(folder)
    with pytest.raises(RunError, match=words):
        bench(folder, plan)
    assert bytes_in(folder) == before


W = {"name": "w", "settings": (GENETIC, RANDOM), "seeds": 2, "evaluations": 9, "base": BASE}
HILLCLIMB = Setting("hillclimb", {"strategy": "hillclimb"})
OTHERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "all settings": (
        {"settings": (HILLCLIMB,)},
        "settings: .*expected only some of hillclimb, found .'genetic', 'random'.",
        r"remove \S+runs/bench-w and \S+reports/bench-w\.$",
    ),
    "a setting dropped": (
        {"settings": (RANDOM,)},
        "settings: .*only some of random",
        r"remove \S+runs/bench-w/genetic and \S+reports/bench-w\.$",
    ),
    "fewer seeds": (
        {"seeds": 1},
        "seeds: .*expected at most 1, found 2",
        r"Ask for --seeds 2\. Choose another",
    ),
    "other evaluations": ({"evaluations": 10}, "evaluations: .*expected 10, found 9", "another --name"),
    "other models": (
        {"base": {**BASE, "datasets": "suite"}},
        "datasets?: .*expected .*suite",
        "another --name",
    ),
    "another population": ({"base": {**BASE, "population": 9}}, "population: .*9, found 8", "another --name"),
    "a name for something else": (
        {"settings": (Setting("genetic", {"strategy": "hillclimb"}), RANDOM)},
        "strategy: .*expected 'hillclimb', found 'genetic'",
        "another --name",
    ),
}


@pytest.mark.parametrize("kept", ["both", "reports", "runs"])
@pytest.mark.parametrize(("changes", "differs", "cure"), OTHERS.values(), ids=OTHERS)
def test_another_benchmark_is_refused(
    made: Path, kept: str, changes: dict[str, Any], differs: str, cure: str
) -> None:
    if kept != "both":
        shutil.rmtree(made / ("runs" if kept == "reports" else "reports"))
        # What is not there need not be removed.
        cure = re.sub(r"\\S\+.*", "", cure)
    refuse(made, Plan(**{**W, **changes}), f"started with something else.*{cure}")
    refuse(made, Plan(**{**W, **changes}), differs)


def test_another_setting_to_compare_with_is_another_report(made: Path) -> None:
    words = "first setting: .*expected random, with which the others are compared, found 'genetic'"
    refuse(made, Plan(**{**W, "settings": (RANDOM, GENETIC)}), words)


@pytest.mark.parametrize("runs_are_kept", [True, False])
def test_the_same_goes_on_and_more_of_it_too(made: Path, runs_are_kept: bool) -> None:
    if not runs_are_kept:  # as in a fresh checkout, where reports are
        shutil.rmtree(made / "runs")
    page = made / "reports" / "bench-w" / "bench.md"
    before = page.read_bytes()
    bench(made, Plan(**W))
    assert page.read_bytes() == before
    bench(made, Plan(**{**W, "seeds": 3, "settings": (GENETIC, HILLCLIMB, RANDOM)}))
    record = json.loads(page.with_name("bench.json").read_text())
    assert [each["name"] for each in record["settings"]] == ["genetic", "hillclimb", "random"]
    assert len(record["runs"]) == 9


def test_what_was_killed_before_its_report_goes_on_too(tmp_path: Path) -> None:
    asked = iter((*[False] * 5, *[True] * 99))
    plan = Plan(**W)
    assert run_bench(plan, runs=tmp_path / "runs", should_stop=lambda: next(asked)) is None
    assert (tmp_path / "runs" / "bench-w" / "genetic" / "seed-0").is_dir()
    refuse(tmp_path, Plan(**{**W, "settings": (HILLCLIMB,)}), "settings: ")
    bench(tmp_path, plan)


def test_a_damaged_report_is_not_replaced(made: Path) -> None:
    file = made / "reports" / "bench-w" / "bench.json"
    for text in ("{", "[]", "{}", file.read_text().replace('"population"', '"people"')):
        file.write_text(text)
        refuse(
            made, Plan(**W), r"bench\.json: cannot be read: .*another --name, or remove \S+reports/bench-w\.$"
        )


def test_a_repaired_plugin_costs_its_own_setting_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "from evolve.extensions import strategy\nfrom evolve.search.random_search import RandomSearch\n"
    text += "@strategy\nclass Mine(RandomSearch):\n    def ask(self):\n        {}return super().ask()\n"
    (tmp_path / "heuristics").mkdir()
    (tmp_path / "heuristics" / "mine.py").write_text(text.format("1 / 0; "))
    plan = Plan(**{**W, "settings": (GENETIC, Setting("mine", {"strategy": "mine"}))})
    with pytest.raises(PluginError, match="in the setting mine, the strategy raises ZeroDivisionError"):
        bench(tmp_path, plan)
    (tmp_path / "heuristics" / "mine.py").write_text(text.format(""))
    refuse(
        tmp_path, plan, r"hashes: .*Restore the plugin, .* or remove \S+bench-w/mine to make its runs again"
    )
    before = (tmp_path / "runs" / "bench-w" / "genetic" / "seed-0" / "result.json").stat()
    shutil.rmtree(tmp_path / "runs" / "bench-w" / "mine")
    bench(tmp_path, plan)
    after = (tmp_path / "runs" / "bench-w" / "genetic" / "seed-0" / "result.json").stat()
    assert after.st_mtime_ns == before.st_mtime_ns
