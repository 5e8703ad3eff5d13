"""The verb `allocate`, as users type it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import REFERENCE, assert_refused, tree

from evolve.allocations import load_allocation
from evolve.datasets import find_dataset
from evolve.profile_files import save_profile

HAWQ = find_dataset("hawqv3").train[0]
OPTIMAL = HAWQ.provenance["optimal"]
KEYS = {
    *("model", "source", "predicted", "tied_layers", "layers", "question"),
    *("budgets", "optimum", "shortfall", "uniform", "notes"),
}


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("model_size", f"size={OPTIMAL['model_size']['limit']}MB"),
        ("bops", f"operations={OPTIMAL['bops']['limit']}"),
        ("latency", f"latency={OPTIMAL['latency']['limit']}ms"),
    ],
)
def test_the_three_proven_allocations_of_a_measured_network(evolve, name, budget):
    answer = evolve("allocate", "hawqv3", "--budget", budget, "--output", "chosen.json", "--json")
    found = answer.json
    assert set(found) == KEYS | {"output"}
    assert [each["format"] for each in found["layers"]] == OPTIMAL[name]["formats"]
    assert found["optimum"]["proven"] is True
    assert found["shortfall"] == pytest.approx(0, abs=1e-9)
    assert found["budgets"][0]["used"] == pytest.approx(OPTIMAL[name]["cost"], rel=1e-9)
    assert found["budgets"][0]["limit"] == pytest.approx(OPTIMAL[name]["limit"], rel=1e-9)
    allocation = load_allocation("chosen.json")
    assert list(allocation.formats) == OPTIMAL[name]["formats"]
    assert allocation.tied_layers == HAWQ.tied_layers
    assert allocation.predicted["loss"] == pytest.approx(OPTIMAL[name]["loss"], rel=1e-9)
    assert set(tree(Path())) == {"chosen.json"}


def test_people_read_a_table(evolve):
    answer = evolve("allocate", "hawqv3", "--budget", "latency=4.246179795ms", "--output", "chosen.json")
    assert answer.status == 0
    assert answer.err == ""
    for words in (
        "resnet18-hawqv3: the best retention with latency_ms at most 4.24618 ms",
        "INT4 everywhere",
        "latency_ms: 4.2201 ms, at most 4.24618 ms",
        "proven: no allocation within the budgets has a better retention",
        "wrote chosen.json",
    ):
        assert words in answer.out


def test_without_a_budget_it_is_the_cliff(evolve):
    found = evolve("allocate", "reference:test", "--json").json
    (expected,) = (
        each for each in evolve("optimum", "--json").json if each["dataset"] == REFERENCE.test[0].name
    )
    assert found["optimum"]["goal"] == "fitness"
    assert found["optimum"]["value"] == pytest.approx(expected["optimum"], rel=1e-9)
    assert found["predicted"]["fitness"] == pytest.approx(expected["optimum"], rel=1e-9)
    assert found["uniform"]["format"] == "FP16"


def test_a_floor_at_least_cost(evolve):
    found = evolve("allocate", "hawqv3", "--retention", 0.9, "--minimise", "latency", "--json").json
    assert found["optimum"]["goal"] == "latency_ms"
    assert found["predicted"]["retention"] >= 0.9
    assert found["predicted"]["latency_ms"] == pytest.approx(found["optimum"]["bound"])
    assert found["uniform"]["predicted"]["latency_ms"] >= found["predicted"]["latency_ms"]


def test_several_budgets(evolve):
    budgets = ("--budget", "latency=4.3ms", "--budget", "size=6.9MB", "--budget", "operations=68")
    found = evolve("allocate", "hawqv3", *budgets, "--json").json
    assert found["optimum"]["proven"] is True
    for each in found["budgets"]:
        assert each["used"] <= each["limit"]


def test_what_the_solver_prints_stays_off_standard_output():
    code = """
import ctypes
from evolve.cli.allocating import _no_stray_output
print("before")
with _no_stray_output():
    ctypes.CDLL(None).printf(b"stray\\n")
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nafter\n"


def test_the_front_as_json_and_csv(evolve):
    found = evolve("allocate", "hawqv3", "--front", "--output", "front.csv", "--json").json
    assert found["complete"] is True
    with Path("front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found["points"])
    assert [float(each["size_MB"]) for each in rows] == [each["cost"] for each in found["points"]]
    assert evolve("allocate", "hawqv3", "--front", "--output", "front.json").status == 0
    assert json.loads(Path("front.json").read_text())["points"] == found["points"]
    narrow = evolve("allocate", "hawqv3", "--front", "--budget", "latency=4ms", "--json").json
    assert narrow["cost"] == "latency_ms"
    assert narrow["points"][-1]["cost"] <= 4
    assert "all allocations that no other one beats" in evolve("allocate", "hawqv3", "--front").out


def test_a_rule_beside_the_optimum(evolve):
    command = ("allocate", "reference:test", "--rule", "pareto_optimal", "--budget", "size=30MB")
    found = evolve(*command, "--json", "--output", "chosen.json").json
    assert found["rule"]["swept"] == "weight"
    assert found["rule"]["handed_out"] is True
    assert found["predicted"]["size_bytes"] <= 30e6
    assert found["optimum"]["predicted"]["retention"] >= found["predicted"]["retention"]
    assert load_allocation("chosen.json").source.startswith("pareto_optimal with weight")
    assert "best at no more cost" in evolve(*command).out


def test_a_champion_of_a_run(one):
    found = one("allocate", "reference:test", "--rule", "runs/one/champion.json", "--json").json
    assert found["rule"]["name"].startswith("champion ")
    assert found == one("allocate", "reference:test", "--rule", "runs/one", "--json").json


def test_a_champion_that_stands_alone(evolve, tmp_path):
    alone = Path(__file__).parents[2] / "reports" / "discovered-curves" / "champion.py"
    (tmp_path / "alone.py").write_bytes(alone.read_bytes())
    words = ("allocate", "measured:gpt-text-2x32-s0", "--budget", "avg_bits=4", "--json", "--rule")
    found = evolve(*words, tmp_path / "alone.py").json
    assert 3.5 < found["predicted"]["avg_bits"] <= 4
    assert found["rule"]["name"] == "alone"
    assert evolve(*words, alone).json["layers"] == found["layers"]


@pytest.mark.parametrize("how", [("--budget", "size=8MB"), ("--front",)])
def test_a_file_that_is_there_is_replaced_only_if_asked(evolve, how):
    Path("chosen.json").write_text("kept")
    command = ("allocate", "hawqv3", *how, "--output", "chosen.json")
    assert_refused(evolve(*command), "chosen.json: exists already", "give --overwrite")
    assert Path("chosen.json").read_text() == "kept"
    assert evolve(*command, "--overwrite").status == 0
    assert "resnet18-hawqv3" in Path("chosen.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (("mine.json",), "mine.json"),
        (("mine.json",), "linked.json"),
        (("mine.json:resnet18-hawqv3",), "mine.json"),
        (("folder",), "folder/train/one.json"),
        (("folder:train",), "folder/train/one.json"),
        (("own",), "datasets/own/test.json"),
        (("hawqv3", "--rule", "champion.json"), "champion.json"),
        (("hawqv3", "--rule", "runs/one"), "runs/one/champion.json"),
        (("hawqv3", "--rule", "champion.py"), "champion.json"),
    ],
)
def test_what_is_read_is_never_replaced(evolve, arguments, output):
    for name in ("mine.json", "folder/train/one.json", "datasets/own/test.json"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save_profile(HAWQ, name)
    Path("runs/one").mkdir(parents=True)
    for name in ("champion.json", "champion.py", "runs/one/champion.json"):
        Path(name).write_text("{}")
    Path("linked.json").symlink_to("mine.json")
    before = tree(Path())
    for front in ((), ("--front",)) if "--rule" not in arguments else ((),):
        answer = evolve("allocate", *arguments, *front, "--output", output, "--overwrite")
        assert_refused(answer, output, "this file is read, and would be lost")
    assert tree(Path()) == before


@pytest.mark.parametrize(
    ("model", "bits", "end"),
    [
        ("resnet-digits-16x16x32-s0", 2.5, "beyond 0.01 in a convolutional network they"),
        ("gpt-text-2x64-s0", 3, "beyond 0.1 they"),
        ("resnet-digits-16x16x32-s0", 8, None),
        ("gpt-text-2x64-s0", 5, None),
    ],
)
def test_sums_that_need_not_add_up_are_said_to(evolve, model, bits, end):
    found = evolve("allocate", f"measured:{model}", "--budget", f"avg_bits={bits}", "--json").json
    assert len(found["notes"]) == (end is not None)
    assert all(end in each and "evolve check-network" in each for each in found["notes"])


def test_a_rule_worse_than_one_format_is_replaced_aloud(evolve):
    rule = "from evolve.heuristics import heuristic\n\n\n@heuristic()\ndef allocate(model, p):\n"
    Path("wasteful.py").write_text(
        rule + "    return model.where(model.relative_position > 0.5, 'INT2', 'FP32')\n"
    )
    answer = evolve("allocate", "reference:test", "--rule", "wasteful.py", "--json")
    assert "note: wasteful is worse than" in answer.err
    assert "everywhere is handed out" in answer.err
    assert len({each["format"] for each in answer.json["layers"]}) == 1
    kept = evolve("allocate", "reference:test", "--rule", "wasteful.py", "--no-fallback", "--json")
    assert "note: wasteful is worse than" in kept.err
    assert {each["format"] for each in kept.json["layers"]} == {"INT2", "FP32"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hawqv3", "--budget", "size=5MB"), ["size", "at least 5.57876 MB", "found 5 MB"]),
        (("hawqv3", "--budget", "latency=3ms"), ["latency_ms", "at least 3.14868 ms"]),
        (("hawqv3", "--budget", "latency=3.2ms", "--retention", 0.9), ["at least", "with retention 0.9"]),
        (("hawqv3", "--retention", 1), ["retention", "at most 0.995751"]),
        (("hawqv3", "--budget", "latncy=3"), ["unknown cost", "Did you mean 'latency_ms'"]),
        (("hawqv3", "--budget", "latency=3MB"), ["unknown unit", "found MB"]),
        (("hawqv3", "--budget", "size"), ["bad budget", "size=8.4MB"]),
        (("hawqv3", "--budget", "avg_bits=1e400"), ["bad budget", "expected a finite number"]),
        (("hawqv3", "--budget", "avg_bits=0"), ["bad budget", "expected more than 0"]),
        (("hawqv3", "--retention", 0.9, "--minimise", "sise"), ["--minimise", "Did you mean 'size'"]),
        (("hawqv3", "--minimise", "size"), ["--minimise", "--retention"]),
        (("hawqv3", "--retention", 2), ["--retention", "at most 1"]),
        (("reference",), ["several models", "reference:train"]),
        (("reference:tst",), ["no such model", "Did you mean 'test'"]),
        (("nowhere.json",), ["no such file"]),
        (("hawqv3", "--rule", "uniform_int9"), ["unknown heuristic", "uniform_int"]),
        (("hawqv3", "--rule", "uniform_int8", "--budget", "size=8MB"), ["no price", "8 bits"]),
        (("hawqv3", "--rule", "uniform_int8", "--signals", "all"), ["all"]),
        (("hawqv3", "--rule", "uniform_fp32"), ["the rule fails", "INT4, INT8"]),
        (("hawqv3", "--rule", "uniform_int8", "--front"), ["--front", "--rule"]),
        (("hawqv3", "--sweep", "price"), ["--sweep", "--rule"]),
        (("hawqv3", "--output", "chosen.txt"), ["--output", ".json"]),
        (("hawqv3", "--output", "nowhere/chosen.json"), ["--output", "nowhere"]),
        (("hawqv3", "--output", "x" * 300 + ".json"), ["--output", "name too long", "at most 230 bytes"]),
        (("hawqv3", "--output", "x" * 300 + "/chosen.json"), ["--output", "too long"]),
        (("hawqv3", "--front", "--budget", "size=8MB", "--budget", "latency=4"), ["another cost"]),
    ],
)
def test_refusals(evolve, arguments, words):
    assert_refused(evolve("allocate", *arguments), *words)
    assert tree(Path()) == {}
