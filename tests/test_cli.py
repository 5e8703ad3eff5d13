"""The command line: what each verb prints, writes and answers, and how it takes bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from evolve import cli as cli_module
from evolve import plugins
from evolve.cli import main
from evolve.datasets import Dataset, find_dataset, write_dataset
from evolve.profiles import save_profile
from evolve.scoring import score

REFERENCE = find_dataset("reference")
#: As issue 2 has it.
RESULT = {
    *("heuristic", "dataset", "split", "compression_ratio", "accuracy_retention"),
    *("avg_bits", "fitness", "optimum", "optimum_ratio"),
}
TINY = ("--generations", "2", "--population", "4", "--start-from", "uniform_fp16,sensitivity_threshold")
QUICK = (*TINY, "--no-figures")
BROKEN = "from evolve.heuristics import heuristic\n\ndef allocate(model, p)\n    return 1\n"


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


Evolve = Callable[..., Answer]


@pytest.fixture
def evolve(tmp_path, monkeypatch, capsys) -> Evolve:
    """The command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["evolve", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        written = capsys.readouterr()
        return Answer(leaving.value.code, written.out, written.err)

    return call


@pytest.fixture(scope="module")
def finished_folder(tmp_path_factory) -> Path:
    """A working directory with a finished run ``one``."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["evolve", "run", *QUICK, "--name", "one"]
    try:
        with pytest.raises(SystemExit) as leaving:
            main()
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    assert leaving.value.code == 0
    return folder


@pytest.fixture
def one(evolve, finished_folder) -> Evolve:
    """The command line in a copy of that working directory."""
    shutil.copytree(finished_folder, Path.cwd(), dirs_exist_ok=True)
    return evolve


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(each.relative_to(folder)): each.read_bytes() if each.is_file() else None
        for each in folder.rglob("*")
    }


def assert_refused(answer: Answer, *words: str) -> None:
    """Check for exit status 2 and one message, without a traceback, that says these words."""
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.lower().count("error:") == 1
    assert "Traceback" not in answer.err
    assert "internal" not in answer.err
    for word in words:
        assert word in answer.err


# Good input


def test_run_prints_one_json_object(evolve):
    answer = evolve("run", *QUICK, "--name", "mine", "--json")
    found = answer.json
    assert set(found) == {"run", "champion", "results", "evaluations", "generations"}
    assert found["run"] == "mine"
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
    answer = one("report", "one", "--no-figures", "--json")
    assert answer.json == {"run": "one", "report": "reports/one/report.md"}
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


def test_heuristics_are_listed_shown_and_checked(evolve):
    listed = evolve("heuristics", "list", "--json").json
    assert set(listed) == {"heuristics", "broken"}
    assert listed["broken"] == []
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


def test_check_names_file_and_line(evolve):
    Path("heuristics").mkdir()
    Path("heuristics/bad.py").write_text(BROKEN)
    answer = evolve("heuristics", "check", "bad")
    assert answer.status == 2
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


VERBS = [
    *("run", "resume", "report", "verify", "evaluate", "optimum", "lineage", "bench"),
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


# Plugins that are broken


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


# Bad input


def nothing() -> None:
    pass


def text(name: str, content: str) -> Callable[[], None]:
    def write() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content.encode("latin-1"))

    return write


def profile(change: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Write a profile with one thing wrong."""

    def write() -> None:
        save_profile(REFERENCE.train[0], "model.json")
        data = json.loads(Path("model.json").read_text())
        change(data)
        Path("model.json").write_text(json.dumps(data))

    return write


def layer_with(field: str, value: object) -> Callable[[], None]:
    return profile(lambda data: data["layers"][3].update({field: value}))


def only_test() -> None:
    write_dataset(Dataset("late", (), (), REFERENCE.test), "late")


DATA = {
    "missing file": (nothing, "nowhere.json", ["nowhere.json"]),
    "unknown name": (nothing, "referense", ["no such data set", "Did you mean 'reference'"]),
    "empty name": (nothing, "", ["no such data set"]),
    "not JSON": (text("model.json", "{"), "model.json", ["model.json", "JSON"]),
    "not UTF-8": (text("model.json", "\xff\xfe"), "model.json", ["model.json"]),
    "no object": (text("model.json", "[]"), "model.json", ["model.json"]),
    "NaN": (layer_with("weight_std", float("nan")), "model.json", ["layer 3", "weight_std", "nan"]),
    "a negative size": (layer_with("num_params", -1), "model.json", ["layer 3", "num_params", "-1"]),
    "a size of zero": (layer_with("num_params", 0), "model.json", ["layer 3", "num_params", "found 0"]),
    "text for a number": (
        layer_with("num_params", "many"),
        "model.json",
        ["layer 3", "num_params", "'many'"],
    ),
    "a sensitivity of one": (
        layer_with("sensitivity", [1.0] * 5),
        "model.json",
        ["layer 3", "sensitivity", "[0, 1)"],
    ),
    "too few sensitivities": (layer_with("sensitivity", [0.1]), "model.json", ["layer 3", "sensitivity"]),
    "an unknown field": (layer_with("colour", "red"), "model.json", ["layer 3", "colour"]),
    "a missing field": (
        profile(lambda data: data["layers"][3].pop("weight_std")),
        "model.json",
        ["weight_std"],
    ),
    "one index twice": (layer_with("layer_idx", 2), "model.json", ["layer_idx", "2"]),
    "no layers": (profile(lambda data: data.update(layers=[])), "model.json", ["layers"]),
    "no profile": (text("notes.txt", "hello"), "notes.txt", ["not a profile"]),
    "an empty folder": (lambda: Path("empty").mkdir(), "empty", ["no splits"]),
    "a misspelt split": (text("d/trian/model.json", "{}"), "d", ["trian"]),
}


@pytest.mark.parametrize("verb", ["run", "evaluate", "optimum"])
@pytest.mark.parametrize(("prepare", "spec", "words"), DATA.values(), ids=DATA)
def test_bad_data(evolve, verb, prepare, spec, words):
    prepare()
    before = tree(Path.cwd())
    assert_refused(evolve(verb, "--datasets", spec), *words)
    assert tree(Path.cwd()) == before


def broken_plugin() -> None:
    text("heuristics/bad.py", BROKEN)()


def loose_plugin() -> None:
    text("bad.py", BROKEN)()


RUN = {
    "unknown heuristic": (nothing, ["--start-from", "hybird"], ["unknown heuristic", "Did you mean hybrid"]),
    "broken heuristic": (broken_plugin, ["--start-from", "bad"], ["heuristics/bad.py, line 3"]),
    "no heuristic": (nothing, ["--start-from", ""], ["unknown heuristic"]),
    "a role nobody has": (nothing, ["--start-from", "discovered"], ["no seed heuristics"]),
    "nothing to train on": (only_test, ["--datasets", "late"], ["nothing to train on"]),
    "unknown level": (nothing, ["--signals", "magic"], ["unknown level", "metadata", "'magic'"]),
    "unknown strategy": (nothing, ["--strategy", "magic"], ["unknown strategy", "genetic", "'magic'"]),
    "unknown operator": (nothing, ["--operators", "magic"], ["unknown operator", "structure", "'magic'"]),
    "a weight that is no number": (nothing, ["--operators", "structure=big"], ["bad weight", "'big'"]),
    "a negative weight": (nothing, ["--operators", "structure=-1"], ["bad weight", "-1"]),
    "a weight of NaN": (nothing, ["--operators", "structure=nan"], ["bad weight", "nan"]),
    "an endless weight": (nothing, ["--operators", "structure=inf"], ["bad weight", "inf"]),
    "no weight": (nothing, ["--operators", "structure=0"], ["no operator has a weight"]),
    "no generation": (nothing, ["--generations", "0"], ["generations", "at least 1", "found 0"]),
    "a negative number": (nothing, ["--generations", "-3"], ["generations", "-3"]),
    "a word for a number": (nothing, ["--generations", "six"], ["'six'"]),
    "half a generation": (nothing, ["--generations", "1.5"], ["'1.5'"]),
    "NaN generations": (nothing, ["--generations", "nan"], ["'nan'"]),
    "a population of one": (nothing, ["--population", "1"], ["population", "at least 2"]),
    "a negative seed": (nothing, ["--seed", "-1"], ["seed", "at least 0"]),
    "a plateau of zero": (nothing, ["--plateau", "0"], ["plateau", "at least 1"]),
    "no worker": (nothing, ["--workers", "0"], ["--workers"]),
    "unknown option": (nothing, ["--magic"], ["--magic"]),
    "an argument too many": (nothing, ["magic"], ["magic"]),
    "an option without value": (nothing, ["--seed"], ["--seed"]),
    "no such configuration": (nothing, ["--config", "no.toml"], ["no.toml", "cannot be read"]),
    "a folder as configuration": (lambda: Path("c").mkdir(), ["--config", "c"], ["'c'"]),
    "no TOML": (
        text("c.toml", "generations = "),
        ["--config", "c.toml"],
        ["c.toml", "not TOML", "Invalid value"],
    ),
    "no UTF-8": (text("c.toml", "\xff"), ["--config", "c.toml"], ["c.toml", "cannot be read"]),
    "unknown key": (
        text("c.toml", "generation = 5"),
        ["--config", "c.toml"],
        ["unknown key", "'generation'"],
    ),
    "a text for a number": (text("c.toml", 'seed = "1"'), ["--config", "c.toml"], ["seed", "'1'"]),
    "truth for a number": (text("c.toml", "seed = true"), ["--config", "c.toml"], ["seed", "True"]),
    "a number for a text": (text("c.toml", "datasets = 5"), ["--config", "c.toml"], ["datasets", "5"]),
    "a number for names": (text("c.toml", "start_from = 5"), ["--config", "c.toml"], ["start_from", "5"]),
    "no names": (text("c.toml", "start_from = []"), ["--config", "c.toml"], ["start_from"]),
    "numbers for names": (text("c.toml", "start_from = [5]"), ["--config", "c.toml"], ["start_from"]),
    "a number for operators": (text("c.toml", "operators = 5"), ["--config", "c.toml"], ["operators", "5"]),
    "a date for a weight": (
        text("c.toml", "operators = {structure = 2020-01-01}"),
        ["--config", "c.toml"],
        ["operators.structure"],
    ),
    "a name that leads elsewhere": (nothing, ["--name", "../up"], ["bad run name", "'../up'"]),
    "an empty name": (nothing, ["--name", ""], ["bad run name"]),
    "the index's name": (nothing, ["--name", "README.md"], ["bad run name"]),
    "runs is a file": (text("runs", "mine"), [], ["runs", "cannot be made"]),
}


@pytest.mark.parametrize(("prepare", "arguments", "words"), RUN.values(), ids=RUN)
def test_a_run_that_cannot_be(evolve, prepare, arguments, words):
    prepare()
    before = tree(Path.cwd())
    assert_refused(evolve("run", *arguments), *words)
    assert tree(Path.cwd()) == before


OTHERS = {
    "unknown verb": (nothing, ["magic"], ["magic"]),
    "evaluate an unknown heuristic": (nothing, ["evaluate", "hybird"], ["unknown heuristic", "hybrid"]),
    "evaluate a broken heuristic": (broken_plugin, ["evaluate", "bad"], ["heuristics/bad.py, line 3"]),
    "evaluate a broken file": (loose_plugin, ["evaluate", "bad.py"], ["bad.py, line 3: not Python"]),
    "evaluate a missing file": (nothing, ["evaluate", "no.py"], ["no.py", "cannot be read"]),
    "evaluate at an unknown level": (nothing, ["evaluate", "--signals", "all"], ["unknown level", "'all'"]),
    "show an unknown heuristic": (nothing, ["heuristics", "show", "hybird"], ["unknown heuristic", "hybrid"]),
    "show a broken heuristic": (broken_plugin, ["heuristics", "show", "bad"], ["heuristics/bad.py, line 3"]),
    "show nothing": (nothing, ["heuristics", "show"], ["NAME"]),
    "check an unknown heuristic": (nothing, ["heuristics", "check", "hybird"], ["unknown heuristic"]),
    "check a missing file": (nothing, ["heuristics", "check", "no.py"], ["no.py", "cannot be read"]),
    "check on unknown data": (nothing, ["heuristics", "check", "--datasets", "no"], ["no such data set"]),
    "new with a bad name": (nothing, ["heuristics", "new", "two words"], ["bad name", "'two words'"]),
    "new with a keyword": (nothing, ["heuristics", "new", "lambda"], ["bad name"]),
    "new with a role's name": (nothing, ["heuristics", "new", "baseline"], ["means something else"]),
    "new with a name taken": (nothing, ["heuristics", "new", "hybrid"], ["there is a heuristic hybrid"]),
    "new with a file there": (text("heuristics/m.py", "x"), ["heuristics", "new", "m"], ["exists already"]),
    "new where no folder can be": (
        text("heuristics", "x"),
        ["heuristics", "new", "m"],
        ["cannot be written"],
    ),
    "new of an unknown kind": (nothing, ["heuristics", "new", "m", "--kind", "odd"], ["odd"]),
    "show unknown data": (nothing, ["datasets", "show", "no"], ["no such data set"]),
    "show a bad seed": (nothing, ["datasets", "show", "suite:x"], ["bad seed"]),
    "generate over something": (text("d/mine", "x"), ["datasets", "generate", "d"], ["exists already"]),
    "generate where a file is": (text("d", "x"), ["datasets", "generate", "d"], ["exists already"]),
    "generate below a file": (text("d", "x"), ["datasets", "generate", "d/e"], ["cannot be written"]),
    "generate nothing": (
        nothing,
        ["datasets", "generate", "d", "--train", "0", "--valid", "0", "--test", "0"],
        ["no profile"],
    ),
    "generate an unknown family": (nothing, ["datasets", "generate", "d", "--families", "vgg"], ["'vgg'"]),
    "generate an unknown format": (nothing, ["datasets", "generate", "d", "--formats", "FP17"], ["'FP17'"]),
    "generate from a bad seed": (nothing, ["datasets", "generate", "d", "--seed", "-1"], ["-1"]),
    "generate minus one": (nothing, ["datasets", "generate", "d", "--train", "-1"], ["-1"]),
    "bench of an unknown strategy": (nothing, ["bench", "--strategies", "magic"], ["unknown strategy"]),
    "bench of unknown data": (nothing, ["bench", "--datasets", "no"], ["no such data set"]),
    "bench at an unknown level": (nothing, ["bench", "--signals", "all"], ["unknown level"]),
    "bench of no evaluations": (nothing, ["bench", "--evaluations", "0"], ["--evaluations"]),
    "bench without configuration": (nothing, ["bench", "--config", "no.toml"], ["no.toml"]),
}


@pytest.mark.parametrize(("prepare", "arguments", "words"), OTHERS.values(), ids=OTHERS)
def test_what_cannot_be(evolve, prepare, arguments, words):
    prepare()
    before = tree(Path.cwd())
    assert_refused(evolve(*arguments), *words)
    assert tree(Path.cwd()) == before


OF_A_RUN = ("resume", "report", "lineage", "verify")


@pytest.mark.parametrize("verb", OF_A_RUN)
def test_no_such_run(evolve, verb):
    for arguments, words in (
        ((), "there are no runs"),
        (("gone",), "no such run"),
        (("../up",), "bad run name"),
        (("two", "runs"), "runs"),
    ):
        assert_refused(evolve(verb, *arguments), words)
    text("runs/half/notes.txt", "no configuration")()
    before = tree(Path.cwd())
    assert_refused(evolve(verb, "half"), "no such run")
    assert tree(Path.cwd()) == before


def cut_journal() -> None:
    journal = Path("runs/one/journal.jsonl")
    journal.write_bytes(journal.read_bytes()[:-100])


def damage_journal() -> None:
    journal = Path("runs/one/journal.jsonl")
    journal.write_bytes(b"}" + journal.read_bytes()[1:])


def change_config(**changes: object) -> Callable[[], None]:
    def change() -> None:
        file = Path("runs/one/config.json")
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


DAMAGES = {
    "no JSON in the configuration": (text("runs/one/config.json", "{"), ["config.json"]),
    "no object in the configuration": (text("runs/one/config.json", "[]"), ["config.json"]),
    "an unknown key": (change_config(magic=1), ["unknown key", "'magic'"]),
    "a bad value": (change_config(seed="x"), ["seed", "'x'"]),
    "data that changed": (change_config(hashes={"datasets": "0"}), ["have changed", "start a new run"]),
    "data that went": (change_config(datasets="gone.json"), ["gone.json"]),
}
JOURNALS = {
    "no JSON in the snapshot": (text("runs/one/snapshot.json", "{"), ["snapshot.json"]),
    "no object in the snapshot": (text("runs/one/snapshot.json", "3"), ["snapshot.json"]),
    "a journal cut short": (cut_journal, ["journal.jsonl", "cut short"]),
    "a damaged line": (damage_journal, ["journal.jsonl", "line 1", "damaged line"]),
    "no journal": (lambda: Path("runs/one/journal.jsonl").unlink(), ["journal.jsonl", "cut short"]),
}


@pytest.mark.parametrize("verb", ["resume", "report", "verify"])
@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_run_with_another_configuration(one, verb, damage, words):
    damage()
    before = tree(Path.cwd())
    assert_refused(one(verb, "one"), *words)
    assert tree(Path.cwd()) == before


@pytest.mark.parametrize("verb", ["resume", "report", "lineage"])
@pytest.mark.parametrize(("damage", "words"), JOURNALS.values(), ids=JOURNALS)
def test_a_run_with_a_damaged_journal(one, verb, damage, words):
    damage()
    before = tree(Path.cwd())
    assert_refused(one(verb, "one"), *words)
    assert tree(Path.cwd()) == before


@pytest.mark.parametrize(("damage", "words"), JOURNALS.values(), ids=JOURNALS)
def test_verify_finds_a_damaged_journal(one, damage, words):
    damage()
    answer = one("verify", "one")
    assert answer.status in (1, 2)
    told = answer.out + answer.err
    assert "Traceback" not in told
    assert all(word in told for word in words)


def test_a_run_that_exists_is_not_touched(one):
    before = tree(Path.cwd())
    assert_refused(one("run", *QUICK, "--name", "one"), "this run exists", "evolve resume one", "--name")
    assert tree(Path.cwd()) == before


def test_where_no_report_can_be_written_the_run_is_kept(evolve):
    Path("reports").write_text("a file")
    answer = evolve("run", *QUICK, "--name", "r")
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.splitlines()[-1].startswith("error: ")
    assert "evolve report r" in answer.err
    assert Path("runs/r/champion.json").is_file()
    assert Path("reports").read_text() == "a file"
    Path("reports").unlink()
    assert evolve("report", "r", "--no-figures").status == 0
    assert evolve("verify", "r").status == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(evolve):
    Path.cwd().chmod(0o555)
    try:
        assert_refused(evolve("run", *QUICK), "runs", "cannot be made")
    finally:
        Path.cwd().chmod(0o755)
    assert not list(Path.cwd().iterdir())


def test_a_run_that_was_only_begun_can_be_reported_and_resumed(evolve, finished_folder):
    """Killed before its first generation was committed."""
    Path("runs/one").mkdir(parents=True)
    shutil.copy(finished_folder / "runs/one/config.json", "runs/one")
    assert evolve("lineage", "one", "--json").json == []
    assert evolve("report", "one", "--no-figures").status == 0
    assert evolve("resume", "one", "--no-figures").status == 0
    for name in ("journal.jsonl", "champion.json"):
        assert Path("runs/one", name).read_bytes() == (finished_folder / "runs/one" / name).read_bytes()
    assert (
        Path("reports/one/report.md").read_bytes() == (finished_folder / "reports/one/report.md").read_bytes()
    )


def test_models_on_which_nothing_is_worth_anything(evolve):
    """Even the optimum retains nothing a float can hold; shares of nothing are no reason to stop."""
    model = REFERENCE.train[0]
    save_profile(replace(model, sensitivity=model.sensitivity * 0 + 0.9999), "model.json")
    rows = evolve("evaluate", "--datasets", "model.json", "--json").json
    assert {each["optimum"] for each in rows} == {0.0}
    assert {each["optimum_ratio"] for each in rows} == {1.0}
    assert evolve("evaluate", "--datasets", "model.json").status == 0
    assert evolve("optimum", "--datasets", "model.json").status == 0


# Ways out


def test_a_fault_of_ours_is_one_message_too(evolve, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(plugins, "load_catalogue", fail)
    answer = evolve("heuristics", "list")
    assert answer.status == 1
    assert answer.err == ("internal error: ZeroDivisionError: oops. Set EVOLVE_TRACEBACK=1 to see where.\n")
    monkeypatch.setenv("EVOLVE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["evolve", "heuristics", "list"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_an_interrupt_is_130(evolve, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "load_catalogue", interrupt)
    answer = evolve("heuristics", "list")
    assert answer.status == 130
    assert answer.err.strip() == "interrupted"


def test_a_reader_that_has_gone_is_no_fault(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "evolve", "heuristics", "list"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_progress_is_live_on_a_terminal(evolve, monkeypatch):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", terminal)
        answer = evolve("run", *QUICK)
        terminal.flush()
        shown = os.read(master, 100_000).decode()
    os.close(master)
    assert answer.status == 0
    assert "2/2" in shown
    for word in ("best", "median", "evaluations/s"):
        assert word in shown
    assert "generation 2/2  best" not in shown


def test_a_run_with_a_limit_of_evaluations_keeps_to_it_and_verifies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-m", "evolve"]
    flags = ["--evaluations", "30", "--no-figures", "--name", "k", "--json"]
    made = subprocess.run([*command, "run", *flags], capture_output=True, text=True, check=True)
    assert json.loads(made.stdout)["evaluations"] == 30
    checked = subprocess.run([*command, "verify", "k"], capture_output=True, text=True, check=True)
    assert checked.stdout == "k: every number holds\n"
