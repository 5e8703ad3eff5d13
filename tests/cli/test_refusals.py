"""How each verb takes bad input: one message, the right status, nothing half made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import BROKEN, QUICK, REFERENCE, assert_refused, tree

from evolve.datasets import Dataset, write_dataset
from evolve.profile_files import save_profile


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
    "a role nobody has": (nothing, ["--start-from", "user"], ["no seed heuristics"]),
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
    "a population of one": (nothing, ["--population", "1"], ["population", "from 2 to"]),
    "more candidates than memory holds": (
        nothing,
        ["--population", "1000000000"],
        ["population", "to 1,000,000"],
    ),
    "more copies than memory holds": (nothing, ["--copies", "1000000000"], ["copies", "from 0 to 100"]),
    "no generations": (nothing, ["--generations", "0"], ["generations", "at least 1"]),
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
    "a benchmark's name": (nothing, ["--name", "bench-z"], ["belongs to a benchmark", "'bench-z'", "--name"]),
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
    "new with a name taken": (nothing, ["heuristics", "new", "hybrid"], ["there is a plugin hybrid"]),
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
