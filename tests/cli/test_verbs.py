"""What each verb prints, writes and answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import QUICK, REFERENCE, RESULT, tree

from evolve import cli as cli_module
from evolve import plugins
from evolve.datasets import Dataset, write_dataset
from evolve.profile_files import save_profile
from evolve.scoring import score


def test_run_prints_one_json_object(evolve):
    answer = evolve("run", *QUICK, "--name", "mine", "--json")
    found = answer.json
    told = json.loads(Path("reports/mine/report.json").read_text())
    assert {"found", "front", "operators"} <= set(told)
    assert {key: found[key] for key in told} == told
    assert set(found) - set(told) == {"run", "report", "champion", "results", "evaluations", "generations"}
    assert (found["run"], found["report"]) == ("mine", "reports/mine/report.md")
    assert all(Path("reports/mine", each["file"]).is_file() for each in found["front"])
    made = sum(each["evaluations"] for each in found["operators"])
    assert made == found["evaluations"]
    assert found["generations"] == 2
    assert set(found["champion"]) == {"id", "name", "source_file"}
    assert [each["split"] for each in found["results"]] == ["train", "valid", "test"]
    assert all(set(each) == RESULT for each in found["results"])
    assert {each["heuristic"] for each in found["results"]} == {found["champion"]["name"]}
    for each, profile in zip(found["results"], (each for _, each in REFERENCE.splits()), strict=True):
        assert each["dataset"] == profile.name
        assert each["optimum_ratio"] == pytest.approx(each["fitness"] / each["optimum"])
    lines = Path("runs/mine/journal.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert found["evaluations"] == sum(each["kind"] == "candidate" for each in records)
    assert json.loads(Path("runs/mine/champion.json").read_text())["id"] == found["champion"]["id"]
    written = {each.name for each in Path("runs/mine").iterdir()} - {".lock"}
    assert written == {"config.json", "journal.jsonl", "snapshot.json", "champion.json", "manifest.json"}
    reported = {"report.md", "lineage.md", "champion.py", "champion.json"}
    assert reported <= {each.name for each in Path("reports/mine").iterdir()}
    assert Path("reports/README.md").is_file()
    # Progress goes elsewhere, as plain lines where there is no terminal.
    first, second = answer.err.splitlines()
    assert first.startswith("generation 1/2  best ")
    assert "median" in second
    assert "evaluations/s" in second


def test_the_champion_stands_alone(one):
    save_profile(REFERENCE.test[0], "model.json")
    found = one("resume", "one", "--no-figures", "--json").json
    done = subprocess.run(
        [sys.executable, "-I", found["champion"]["source_file"], "model.json"],
        capture_output=True,
        text=True,
        check=True,
    )
    formats = [line.split()[-1] for line in done.stdout.splitlines()]
    choices = [
        REFERENCE.test[0].format_names.index(each) for each in formats[-REFERENCE.test[0].num_layers :]
    ]
    (result,) = (each for each in found["results"] if each["split"] == "test")
    model = REFERENCE.test[0]
    fitness = score(choices, model.num_params, model.bits, model.sensitivity).fitness[0]
    assert fitness == pytest.approx(result["fitness"])


def test_run_for_people(evolve):
    answer = evolve("run", *QUICK)
    assert answer.status == 0
    for word in ("champion on", "train", "valid", "test", "optimum", "reports/run-001/report.md"):
        assert word in answer.out
    assert evolve("run", *QUICK, "--seed", "1").status == 0
    assert sorted(each.name for each in Path("runs").iterdir()) == ["run-001", "run-002"]


def test_pictures_are_drawn_unless_it_is_told_not_to(one):
    assert not Path("reports/one/figures").exists()
    assert one("report", "one").status == 0
    assert {each.suffix for each in Path("reports/one/figures").iterdir()} == {".svg"}
    assert one("report", "one", "--no-figures").status == 0
    assert not Path("reports/one/figures").exists()


def test_a_configuration_file_is_overridden_by_flags(evolve):
    Path("my.toml").write_text(
        'generations = 5\npopulation = 4\nseed = 7\nstart_from = ["uniform_fp16"]\nplateau = 3\n'
        "[operators]\nstructure = 2\nparameters = 1\n"
    )
    assert (
        evolve("run", "--config", "my.toml", "--generations", "1", "--no-figures", "--name", "c").status == 0
    )
    stored = json.loads(Path("runs/c/config.json").read_text())
    expected = {
        "datasets": "reference",
        "generations": 1,
        "population": 4,
        "seed": 7,
        "signals": "curves",
        "strategy": "genetic",
        "operators": {"structure": 2, "parameters": 1},
        "start_from": ["uniform_fp16"],
        "plateau": 3,
    }
    assert {key: stored[key] for key in expected} == expected
    assert stored["seeds"] == ["uniform_fp16"]
    assert set(stored["hashes"]) == {"datasets", "heuristics"}
    # The same from the command line is the same run.
    flags = (
        "--generations",
        1,
        "--population",
        4,
        "--seed",
        7,
        "--start-from",
        "uniform_fp16",
        "--plateau",
        3,
    )
    assert (
        evolve("run", *flags, "--operators", "structure=2,parameters=1", "--no-figures", "--name", "d").status
        == 0
    )
    for name in ("journal.jsonl", "snapshot.json"):
        assert Path("runs/d", name).read_bytes() == Path("runs/c", name).read_bytes()


def test_resume_of_a_finished_run_changes_nothing(one):
    before = tree(Path.cwd())
    first = one("resume", "one", "--no-figures", "--json").json
    assert first["run"] == "one"
    again = one("resume", "--no-figures", "--json").json
    assert again == first
    after = tree(Path.cwd())
    assert {name for name in after if after[name] != before.get(name)} <= {"runs/one/manifest.json"}


def test_report_is_written_again(one):
    shutil.rmtree("reports")
    told = one("report", "one", "--no-figures", "--json").json
    assert (told.pop("run"), told.pop("report")) == ("one", "reports/one/report.md")
    assert told == json.loads(Path("reports/one/report.json").read_text())
    assert Path("reports/one/report.md").is_file()
    assert one("report", "--no-figures").out == "reports/one/report.md\n"


def test_verify_says_what_differs(one):
    assert one("verify", "one", "--json").json == {"run": "one", "verified": True, "differences": []}
    report = Path("reports/one/report.md")
    text = report.read_text(encoding="utf-8")
    number = f"{REFERENCE_OPTIMUM:.4f}"
    assert number in text
    report.write_text(text.replace(number, "9.9999"), encoding="utf-8")
    answer = one("verify", "--json")
    assert answer.status == 1
    found = json.loads(answer.out)
    assert found["verified"] is False
    assert any("report.md" in each and "9.9999" in each and number in each for each in found["differences"])
    assert one("verify").out.endswith(f"one: {len(found['differences'])} differences\n")


REFERENCE_OPTIMUM = 3.2392


@pytest.mark.parametrize("path", ["reference", "file"])
def test_evaluate_prints_the_benchmark_table(evolve, path):
    if path == "file":
        save_profile(REFERENCE.train[0], "model.json")
        path = "model.json"
    rows = evolve("evaluate", "--datasets", path, "--json").json
    assert all(set(each) == RESULT for each in rows)
    names = {each["heuristic"] for each in rows}
    assert {"hybrid", "uniform_int4", "wider_fp16_zone"} <= names
    splits = ["train", "valid", "test"] if path == "reference" else ["train", "valid"]
    assert [each["split"] for each in rows if each["heuristic"] == "hybrid"] == splits
    for each in rows:
        assert each["optimum_ratio"] == pytest.approx(each["fitness"] / each["optimum"])
    assert {each["dataset"] for each in rows if each["split"] == "train"} == {REFERENCE.train[0].name}


def test_evaluate_takes_names_and_files(evolve):
    source = plugins.heuristic_folders()[0] / "hybrid.py"
    shutil.copy(source, "mine.py")
    rows = evolve("evaluate", "uniform_int8", "mine.py", "hybrid", "--json").json
    assert [each["heuristic"] for each in rows] == ["uniform_int8"] * 3 + ["mine"] * 3 + ["hybrid"] * 3
    assert [each["fitness"] for each in rows[3:6]] == [each["fitness"] for each in rows[6:]]
    table = evolve("evaluate", "mine.py").out
    assert "mine" in table
    assert f"{rows[3]['fitness']:.4f}" in table


def test_evaluate_at_a_level_names_what_may_not_be_read(evolve):
    answer = evolve("evaluate", "greedy_sensitivity", "uniform_fp16", "--signals", "metadata", "--json")
    failed, good = answer.json[0], answer.json[3]
    assert failed["fitness"] is None
    assert failed["optimum_ratio"] is None
    assert "this run allows metadata" in failed["failure"]
    assert set(good) == RESULT
    told = evolve("evaluate", "greedy_sensitivity", "--signals", "metadata")
    assert told.status == 0
    assert told.err.startswith("greedy_sensitivity failed: ")


def test_optimum_proves_itself(evolve):
    rows = evolve("optimum", "--json").json
    assert [each["dataset"] for each in rows] == [each.name for _, each in REFERENCE.splits()]
    for each, (_, model) in zip(rows, REFERENCE.splits(), strict=True):
        assert set(each) == {"dataset", "optimum", "upper_bound", "allocation"}
        choices = [model.format_names.index(name) for name in each["allocation"]]
        assert len(choices) == model.num_layers
        fitness = score(choices, model.num_params, model.bits, model.sensitivity).fitness[0]
        assert each["optimum"] == pytest.approx(fitness)
        assert each["optimum"] <= each["upper_bound"] * (1 + 1e-12) <= each["optimum"] * 1.001
    assert [f"{each['optimum']:.4f}" for each in rows] == ["3.2392", "3.4127", "4.2731"]
    assert all(f"{each['optimum']:.4f}" in evolve("optimum").out for each in rows)


def test_one_file_is_one_model(evolve):
    save_profile(REFERENCE.train[0], "model.json")
    assert len(evolve("optimum", "--datasets", "model.json", "--json").json) == 1
    found = evolve("run", *QUICK, "--datasets", "model.json", "--json").json
    assert [each["split"] for each in found["results"]] == ["train", "valid"]


@pytest.mark.parametrize("splits", ["train", "train valid", "train test"])
def test_a_folder_may_have_only_some_splits(evolve, splits):
    profiles = {
        name: getattr(REFERENCE, name) if name in splits else () for name in ("train", "valid", "test")
    }
    write_dataset(Dataset("some", **profiles), "some")
    found = evolve("run", *QUICK, "--datasets", "some", "--json").json
    assert [each["split"] for each in found["results"]] == splits.split()


def test_lineage_reaches_the_seeds(one):
    steps = one("lineage", "one", "--json").json
    champion = json.loads(Path("runs/one/champion.json").read_text())
    assert steps[-1] == champion
    assert steps[0]["operator"] == "seed"
    ids = {each["id"] for each in steps}
    assert all(set(each["parents"]) <= ids for each in steps)
    table = one("lineage").out
    assert all(each["id"] in table for each in steps)


VERBS = [
    "allocate",
    *("apply", "check-network", "export"),
    *("run", "resume", "report", "verify", "evaluate", "optimum", "lineage", "bench", "profile"),
    *("heuristics list", "heuristics show", "heuristics check", "heuristics new"),
    *("datasets list", "datasets show", "datasets check", "datasets generate"),
]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself(evolve, verb):
    answer = evolve(*verb.split(), "--help")
    assert answer.status == 0
    assert answer.out.startswith(f"Usage: evolve {verb}".strip())
    assert answer.err == ""
    assert not list(Path.cwd().iterdir())


def test_every_verb_is_under_test():
    found = set()
    for name, command in cli_module.evolve.commands.items():
        below = getattr(command, "commands", None)
        found |= {f"{name} {each}" for each in below} if below else {name}
    assert found == set(VERBS)


def test_version(evolve):
    from evolve import __version__

    assert evolve("--version").out == f"evolve, version {__version__}\n"


def test_a_run_with_a_limit_of_evaluations_keeps_to_it_and_verifies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "evolve"]
    flags = ["--evaluations", "30", "--no-figures", "--name", "k", "--json"]
    made = subprocess.run([*command, "run", *flags], capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["evaluations"] == 30
    checked = subprocess.run([*command, "verify", "k"], capture_output=True, text=True, check=True)
    assert checked.stdout == "k: every number holds\n"
