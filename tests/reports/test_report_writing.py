"""How a report comes to lie in its folder: whole or not at all, and the same wherever it is made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import BROKEN_RULE, ROOT, make_run

from evolve.errors import RunError
from evolve.plugins import load_catalogue
from evolve.reports import writer
from evolve.reports.contents import collect
from evolve.reports.writer import write_report
from evolve.setup import prepare_run
from evolve.store import RunStore


def test_another_name_gives_the_same_bytes(run, tmp_path):
    again = make_run(tmp_path, "quite-another-name", figures=True)
    files = sorted(path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(again.folder) for path in again.folder.rglob("*") if path.is_file()
    )
    alone = ["champion.json", "champion.py", "generations.csv", "lineage.md", "report.json", "report.md"]
    assert [str(file) for file in files if len(file.parts) == 1] == alone
    for file in files:
        assert (run.folder / file).read_bytes() == (again.folder / file).read_bytes(), file


def test_an_older_report_is_replaced_whole(copy):
    (copy.folder / "stale.txt").write_text("old")
    folder = write_report(copy.store, copy.setup, copy.outcome, copy.reports, figures=False)
    assert folder == copy.folder
    assert {path.name for path in folder.iterdir()} == {
        "report.md",
        "lineage.md",
        "champion.json",
        "champion.py",
        "report.json",
        "generations.csv",
        "front",
    }
    assert {path.name for path in copy.reports.iterdir()} == {copy.store.name, "README.md"}


def test_the_report_of_a_benchmark_is_not_replaced(copy):
    folder = copy.reports / copy.store.name
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "bench.json").write_text("{}")
    with pytest.raises(RunError, match=r"the report of a benchmark is here\. Move it elsewhere"):
        write_report(copy.store, copy.setup, copy.outcome, copy.reports, figures=False)
    assert [each.name for each in folder.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("content", [None, "mine.txt"])
def test_what_is_no_report_is_not_replaced(copy, content):
    shutil.rmtree(copy.folder)
    mine = copy.folder / content if content else copy.folder
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(RunError, match=r"no report is here, and would be lost\. Move it elsewhere"):
        write_report(copy.store, copy.setup, copy.outcome, copy.reports, figures=False)
    assert mine.read_text() == "mine"


def test_a_failure_in_between_leaves_the_old_report(copy, monkeypatch):
    before = copy.text()
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        write_report(copy.store, copy.setup, copy.outcome, copy.reports, figures=False)
    monkeypatch.undo()
    assert copy.text() == before
    assert {path.name for path in copy.reports.iterdir()} == {copy.store.name, "README.md"}


def test_a_report_left_aside_by_a_kill_comes_back(copy):
    copy.folder.rename(copy.folder.with_name(f".{copy.folder.name}.old"))
    (copy.reports / f".{copy.folder.name}.new").mkdir()
    write_report(copy.store, copy.setup, copy.outcome, copy.reports, figures=False)
    assert {path.name for path in copy.reports.iterdir()} == {copy.store.name, "README.md"}


def test_reasons_do_not_name_the_place_of_a_plugin(tmp_path):
    heuristics = tmp_path / "heuristics"
    heuristics.mkdir()
    text = BROKEN_RULE.replace('"no | such `layer`"', "__file__")
    (heuristics / "broken.py").write_text(text)
    run = make_run(tmp_path, heuristics=heuristics, start_from="broken", population=2, generations=1)
    assert str(tmp_path) not in run.text()


def test_the_report_loads_no_matplotlib_without_figures(run):
    script = """import sys
import evolve.reports.writer, evolve.reports.verification
print("matplotlib" in sys.modules)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert shown.stdout == "False\n"


def test_an_unwritable_place_is_one_message(copy, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError, match="evolve report zebra"):
        write_report(copy.store, copy.setup, copy.outcome, blocked, figures=False)


def test_default_catalogue_and_store_are_enough(run):
    setup = prepare_run(run.setup.config, load_catalogue([ROOT / "heuristics"]))
    assert collect(RunStore(run.store.path), setup, run.outcome) == run.contents
    assert Path("reports") == writer.REPORTS
