from __future__ import annotations

import json
import shutil
from pathlib import Path

from evolve.reports.index import index_row, render_index

SHIPPED = Path(__file__).parents[2] / "reports"


def rows(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("| [")]


def test_every_report_has_a_line_with_its_scores(run):
    text = (run.reports / "README.md").read_text()
    (line,) = rows(text)
    assert text == render_index(run.reports)
    assert line.startswith("| [zebra](zebra/report.md) | reference | ")
    champion = run.contents.tables[0].champion
    assert f"{champion.fitness:.4f}" in line
    assert "the search found" in line
    assert line.count("|") - line.count("\\|") == 7


def test_the_index_that_ships_says_what_the_reports_say():
    """Runs of one's own may stand beside them."""
    listed = rows((SHIPPED / "README.md").read_text(encoding="utf-8"))
    assert set(rows(render_index(SHIPPED))) <= set(listed)


def test_folders_come_in_order_of_their_names(run, tmp_path):
    for name in ("b", "a", "c"):
        shutil.copytree(run.folder, tmp_path / name)
    assert [line[3] for line in rows(render_index(tmp_path))] == ["a", "b", "c"]


def test_what_is_no_report_is_left_out(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "good")
    for name, content in {
        "empty": None,
        "broken": "{",
        "list": "[]",
        "number": '{"dataset": 3, "found": 4}',
        "nothing": "{}",
        ".hidden": "{}",
    }.items():
        (tmp_path / name).mkdir()
        if content is not None:
            (tmp_path / name / "champion.json").write_text(content)
            (tmp_path / name / "report.md").write_text("")
    (tmp_path / "file").write_text("")
    shutil.copytree(run.folder, tmp_path / "textless")
    (tmp_path / "textless" / "report.md").unlink()
    assert [line[:8] for line in rows(render_index(tmp_path))] == ["| [good]"]


def test_a_folder_made_by_hand_stays_listed(run, tmp_path):
    by_hand = tmp_path / "my own | run"
    by_hand.mkdir(parents=True)
    (by_hand / "champion.json").write_text(json.dumps({"dataset": "mine", "found": "A | rule."}))
    (by_hand / "report.md").write_text("")
    assert index_row(by_hand) == (
        r"| [my own \| run](my%20own%20%7C%20run/report.md) | mine | – | – | – | A \| rule. |" + "\n"
    )


def test_a_run_without_champion_is_listed(hopeless):
    (line,) = rows((hopeless.reports / "README.md").read_text())
    assert "| – | – | – |" in line
    assert "no candidate worked" in line


def test_without_reports_it_says_how_to_make_one(tmp_path):
    assert "python -m evolve run" in render_index(tmp_path)
    assert "python -m evolve run" in render_index(tmp_path / "missing")
