"""The objective of budgets through the command line: run, resume, verify, bench, evaluate, allocate."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from measured_profiles import measured_dataset

from evolve.cli import main
from evolve.configuration import RunConfig
from evolve.engine import recorded_outcome, search
from evolve.setup import prepare_run, stored_config
from evolve.store import create_run, open_run

SMALL = ("--datasets", "small", "--objective", "budgets:3,4", "--signals", "gradient", "--no-figures")


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def small(tmp_path, monkeypatch, capsys) -> Callable[..., Answer]:
    """The command line in a directory with a small data set of measured networks."""
    monkeypatch.chdir(tmp_path)
    measured_dataset(Path("small"))

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["evolve", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        written = capsys.readouterr()
        return Answer(leaving.value.code, written.out, written.err)

    return call


def config(**values: object) -> RunConfig:
    given = {"datasets": "small", "objective": "budgets:3,4", "signals": "gradient", "generations": 3}
    return RunConfig(**{**given, "population": 12, **values})


@pytest.mark.parametrize("kind", ["budgets", "relaxed"])
def test_a_budget_that_nothing_can_keep_is_refused(small, kind):
    refused = small("run", "--datasets", "reference", "--objective", f"{kind}:1,4")
    assert (refused.status, refused.out) == (2, "")
    assert "no train model can keep this budget; expected at least 2 bits, found 1.0" in refused.err
    assert not Path("runs").exists()


def test_a_run_with_its_report_and_verification(small):
    done = small("run", *SMALL, "--generations", 3, "--name", "one", "--json")
    assert done.status == 0, done.err
    told = done.json
    assert told["champion"]["id"]
    assert all(0 < each["optimum_ratio"] <= 1 for each in told["results"])
    assert all(each["optimum"] == 1 for each in told["results"])
    stored = json.loads(Path("runs/one/config.json").read_text())
    assert stored["objective"] == "budgets:3,4"
    text = Path("reports/one/report.md").read_text()
    assert "The objective is `budgets:3,4`" in text
    assert "--objective budgets:3,4" in text
    assert "0.1 × retention" not in text
    assert "Lagrangian on Fisher information" in text
    assert small("verify", "one").status == 0
    assert small("resume", "one").status == 0
    champion = json.loads(Path("reports/one/champion.json").read_text())
    (profile,) = sorted(Path("small/test").iterdir())[:1]
    answer = small("allocate", profile, "--rule", "runs/one", "--budget", "avg_bits=3.5", "--json")
    assert answer.status == 0, answer.err
    assert answer.json["layers"]
    assert champion["signals"] == "gradient"


def test_no_workers_and_no_interruption_change_anything(small):
    outcomes, journals = [], []
    for name, workers in (("serial", 1), ("two", 2)):
        setup = prepare_run(config())
        store = create_run(name, setup.resolved())
        outcomes.append(search(setup, store, workers=workers))
        journals.append((store.path / "journal.jsonl").read_bytes())
    setup = prepare_run(config())
    create_run("parts", setup.resolved())
    for _ in range(3):
        store = open_run("parts")
        outcome = search(prepare_run(stored_config(store.config())), store, should_stop=lambda: True)
    assert outcome.finished
    assert recorded_outcome(store) == outcome == outcomes[0] == outcomes[1]
    assert journals[0] == journals[1] == (store.path / "journal.jsonl").read_bytes()
    assert any("fisher_loss" in str(each.candidate.slots) for each in outcome.scored)


def test_only_families_are_started_from(small):
    setup = prepare_run(config())
    assert {each.change for each in setup.problem.seeds} == {
        "gradient_weighted",
        "greedy_sensitivity",
        "pareto_optimal",
    }
    assert "ladder" not in setup.problem.templates
    refused = small("run", *SMALL, "--start-from", "uniform_fp16")
    assert refused.status == 2
    assert "rules with a parameter that trades bits for loss" in refused.err


def test_the_usual_objective_leaves_no_trace():
    plain, named = RunConfig(), RunConfig(objective="cliff")
    assert plain == named == RunConfig.from_json(plain.to_json())
    assert "objective" not in plain.to_json()
    assert config().to_json()["objective"] == "budgets:3,4"


def test_evaluate(small):
    answer = small(
        "evaluate",
        "pareto_optimal",
        "uniform_int4",
        "--datasets",
        "small",
        "--objective",
        "budgets:3,4",
        "--json",
    )
    assert answer.status == 0
    found = answer.json
    assert {each["optimum_ratio"] is None for each in found if each["heuristic"] == "pareto_optimal"} == {
        False
    }
    reasons = {each["failure"] for each in found if each["heuristic"] == "uniform_int4"}
    assert len(reasons) == 1
    assert "no parameter that trades bits for loss" in reasons.pop()
    bad = small("evaluate", "--objective", "budgets:4,3")
    assert bad.status == 2
    assert "unknown objective" in bad.err


def test_a_plugin_function_can_be_a_family(small):
    Path("heuristics").mkdir()
    text = '''"""A family."""

from evolve.heuristics import heuristic, log


@heuristic(parameters=[log("price", 1.0, 1e-4, 1e6)]{})
def allocate(model, p):
    """The Lagrangian."""
    return model.cheapest(model.param_fraction * model.bits + p.price * model.fisher_loss)
'''
    plugin = Path("heuristics/mine.py")
    arguments = ("evaluate", "mine", "--datasets", "small", "--objective", "budgets:3,4", "--json")
    plugin.write_text(text.format(""))
    assert all(each["failure"] for each in small(*arguments).json)
    plugin.write_text(text.format(', sweep="price"'))
    assert all(each["optimum_ratio"] > 0.5 for each in small(*arguments).json)
    checked = small("heuristics", "check", "mine", "--datasets", "small")
    assert checked.status == 0, checked.out
    plugin.write_text(text.format(', sweep="prize"'))
    wrong = small(*arguments)
    assert wrong.status == 2
    assert "sweep: no such parameter; expected one of price, found 'prize'" in wrong.err


def test_bench(small):
    arguments = ("--strategies", "genetic,random", "--seeds", 2, "--evaluations", 20, "--population", 10)
    done = small("bench", *SMALL, *arguments, "--json")
    assert done.status == 0, done.err
    assert done.json["settings"]
