"""What the verbs for heuristics, plugins and data sets print, write and answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import BROKEN, QUICK, tree


def test_heuristics_are_listed_shown_and_checked(evolve):
    listed = evolve("heuristics", "list", "--json").json
    assert set(listed) == {"heuristics", "operators", "strategies", "broken"}
    assert listed["broken"] == listed["operators"] == listed["strategies"] == []
    rows = {each["name"]: each for each in listed["heuristics"]}
    assert all(set(each) == {"name", "role", "kind", "summary"} for each in rows.values())
    assert rows["hybrid"]["role"] == "baseline"
    assert rows["wider_fp16_zone"]["role"] == "published"
    assert all(name in evolve("heuristics", "list").out for name in rows)

    shown = evolve("heuristics", "show", "hybrid", "--json").json
    assert {"name", "role", "source", "summary", "file", "parameters", "code"} <= set(shown)
    assert shown["parameters"]["edge"] == 0.1
    text = evolve("heuristics", "show", "wider_fp16_zone").out
    assert "def allocate(model, p):" in text
    assert "0.001" in text

    assert evolve("heuristics", "check", "hybrid", "uniform_fp16", "--json").json == [
        {"heuristic": "hybrid", "problems": []},
        {"heuristic": "uniform_fp16", "problems": []},
    ]
    assert evolve("heuristics", "check", "hybrid").out == "hybrid: good\n"


@pytest.mark.parametrize("kind", ["function", "code"])
def test_a_new_heuristic_works(evolve, kind):
    answer = evolve("heuristics", "new", "mine", "--kind", kind)
    assert answer.status == 0
    ending = {"function": "py", "code": "py.j2"}[kind]
    assert answer.out.startswith(f"heuristics/mine.{ending}\n")
    assert evolve("heuristics", "check", "mine").out == "mine: good\n"
    assert evolve("heuristics", "check", f"heuristics/mine.{ending}").status == 0
    found = evolve(
        "run", "--generations", 1, "--population", 2, "--start-from", "mine", "--no-figures", "--json"
    )
    assert found.json["champion"] is not None


def test_a_new_heuristic_is_told_to_machines(evolve):
    found = evolve("heuristics", "new", "mine", "--json").json
    assert Path(found["file"]).is_file()
    assert found["kind"] == "function"
    assert found["check"] == "evolve heuristics check mine"


def test_check_names_file_and_line(evolve):
    Path("heuristics").mkdir()
    Path("heuristics/bad.py").write_text(BROKEN)
    answer = evolve("heuristics", "check", "bad")
    assert answer.status == 2
    assert answer.out.startswith("bad: 1 problem\n")
    assert "heuristics/bad.py, line 3: not Python" in answer.out
    assert answer.err == ""
    found = json.loads(evolve("heuristics", "check", "bad", "hybrid", "--json").out)
    assert [bool(each["problems"]) for each in found] == [True, False]
    assert evolve("heuristics", "list", "--json").json["broken"][0]["name"] == "bad"


def test_datasets_are_generated_shown_and_checked(evolve):
    sizes = ("--train", 2, "--valid", 1, "--test", 0)
    made = evolve(
        "datasets", "generate", "datasets/mine", *sizes, "--seed", 3, "--families", "resnet", "--json"
    )
    assert made.json["folder"] == "datasets/mine"
    assert len(made.json["models"]) == 3
    shown = evolve("datasets", "show", "mine", "--json").json
    assert [each["split"] for each in shown] == ["train", "train", "valid"]
    assert [each["model"] for each in shown] == made.json["models"]
    assert evolve("datasets", "check", "mine").out == "mine: good\n"
    assert evolve("datasets", "check", "mine", "reference", "--json").json == [
        {"dataset": "mine", "problem": None},
        {"dataset": "reference", "problem": None},
    ]
    named = {each["name"]: each["location"] for each in evolve("datasets", "list", "--json").json}
    assert {"mine", "reference", "suite"} <= set(named)
    assert "reference" in evolve("datasets", "list").out
    assert evolve("datasets", "show").status == 0
    again = evolve("datasets", "generate", "again", *sizes, "--seed", 3, "--families", "resnet")
    assert again.out == "again: 2 train, 1 valid, 0 test\n"
    written, repeated = tree(Path("datasets/mine")), tree(Path("again"))
    assert written == repeated


def test_check_says_what_is_wrong_with_data(evolve):
    Path("bad.json").write_text('{"layers": NaN}')
    answer = evolve("datasets", "check", "bad.json", "reference")
    assert answer.status == 2
    assert "bad.json" in answer.out.splitlines()[0]
    assert answer.out.splitlines()[1] == "reference: good"
    found = json.loads(evolve("datasets", "check", "bad.json", "--json").out)
    assert found[0]["dataset"] == "bad.json"
    assert found[0]["problem"]


def test_a_broken_plugin_is_named_and_left_out(evolve):
    Path("heuristics").mkdir()
    Path("heuristics/bad.py").write_text(BROKEN)
    for arguments in (("run", *QUICK, "--name", "r"), ("evaluate",), ("resume", "r", "--no-figures")):
        answer = evolve(*arguments)
        assert answer.status == 0
        (line,) = (each for each in answer.err.splitlines() if each.startswith("left out: "))
        assert "heuristics/bad.py, line 3: not Python" in line
    listed = evolve("heuristics", "list")
    assert listed.status == 0
    assert "heuristics/bad.py, line 3" in listed.err


def test_a_rule_that_fails_is_named_in_the_run_that_asks_for_it(evolve):
    Path("heuristics").mkdir()
    Path("heuristics/loud.py").write_text(
        "from evolve.heuristics import heuristic\n\n@heuristic()\ndef allocate(model, p):\n"
        "    raise RuntimeError('not today')\n"
    )
    answer = evolve(
        "run",
        "--generations",
        1,
        "--population",
        2,
        "--start-from",
        "loud",
        "--operators",
        "parameters",
        "--name",
        "r",
        "--no-figures",
    )
    assert answer.status == 1
    assert answer.err.endswith("error: every candidate failed; the report lists the reasons\n")
    assert "RuntimeError: not today" in Path("reports/r/report.md").read_text()
    as_json = evolve("resume", "r", "--no-figures", "--json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["champion"] is None
    assert evolve("lineage", "r", "--json").json == []
    assert evolve("verify", "r").status == 0
