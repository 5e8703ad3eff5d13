"""What stands where a benchmark is to go: it goes on with its own, and replaces nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from evolve.benchmarking import Plan, Setting, run_bench
from evolve.errors import RunError

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
