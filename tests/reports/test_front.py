"""The front of a run and what its operators earned: as pages, as files of their own, as JSON."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from small_runs import ROOT, make_run

import evolve.reports.front as front_module
from evolve.errors import PluginError
from evolve.evaluation import Arena
from evolve.reports.front import collect_front
from evolve.reports.verification import verify
from evolve.search.fronts import dominates, objectives_of, pareto_front
from evolve.signals import LEVELS
from evolve.verdicts.models import shares


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run that leaves a front of several rules."""
    return make_run(
        tmp_path_factory.mktemp("front"), strategy="nsga2", population=24, generations=8, signals="curves"
    )


def rows(run):
    return list(csv.DictReader((run.folder / "front" / "front.csv").read_text().splitlines()))


def test_every_rule_of_the_front_has_a_file_that_allocates_as_it_does_here(searched):
    front = collect_front(searched.setup, searched.outcome)
    templates = searched.setup.problem.templates
    expected = pareto_front(searched.outcome.scored, templates)
    assert [each.id for each in front.rules] == [each.candidate.id for each in expected]
    assert len(front.rules) > 1
    names = {path.name for path in (searched.folder / "front").iterdir()}
    assert names == {"front.md", "front.csv", *(each.file for each in front.rules)}
    profile = ROOT / "datasets" / "reference" / "test.json"
    arena = Arena(searched.setup.dataset.test, "curves")
    for each, scored in zip(front.rules, expected, strict=True):
        file = searched.folder / "front" / each.file
        done = subprocess.run(
            [sys.executable, "-I", str(file), str(profile), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        told = json.loads(done.stdout)
        formats = [layer["format"] for layer in told] if isinstance(told[0], dict) else told
        names = arena.profiles[0].format_names
        choices = np.array([[names.index(name) for name in formats]])
        fitness = arena._groups[0][1].table.score(choices.astype(np.uint8)).fitness[0, 0]
        assert fitness / arena.optimum_fitness[0] == pytest.approx(each.test, abs=1e-12)
        assert shares([scored.candidate], templates, arena)[0, 0] == each.test
        assert each.file in file.read_text()


def test_no_rule_of_the_front_is_beaten_and_every_other_is(searched):
    templates = searched.setup.problem.templates
    front = {each.id for each in searched.contents.front.rules}
    points = {
        each.candidate.id: objectives_of(each, templates)
        for each in searched.outcome.scored
        if each.evaluation.status == "ok"
    }
    on_it = {points[name] for name in front}
    for name, point in points.items():
        assert (name in front or point in on_it) != any(dominates(other, point) for other in on_it)


def test_table_and_json_say_the_same(searched):
    told = json.loads(searched.text("report.json"))["front"]
    assert len(told) == len(rows(searched))
    for row, each in zip(rows(searched), told, strict=True):
        assert each["file"] == f"front/{row['file']}"
        assert each["level"] in LEVELS
        for key in ("train", "valid", "test", "worst_test", "complexity"):
            assert float(row[key]) == each[key]
    assert [each["complexity"] for each in told] == sorted(each["complexity"] for each in told)
    assert sum(each["champion"] for each in told) <= 1
    page = searched.text("front/front.md")
    assert all(f"({each['file'].removeprefix('front/')})" in page for each in told)
    assert "[front/front.md](front/front.md)" in searched.text()


def test_every_run_has_a_front_and_it_is_verified(searched):
    assert verify(searched.store, searched.setup, searched.reports) == ()
    file = searched.folder / "front" / "front.csv"
    file.write_text(file.read_text().replace("True", "False").replace(",metadata,", ",curves,", 1))
    assert any("front.csv, line" in each for each in verify(searched.store, searched.setup, searched.reports))


def test_without_a_test_split_or_any_rule_nothing_is_made_up(suite, single, hopeless):
    assert all(row["test"] == row["worst_test"] == "" for row in rows(suite))
    assert all(row["valid"] == "" for row in rows(single))
    assert hopeless.contents.front.rules == ()
    assert not (hopeless.folder / "front").exists()
    assert "## The front\n\nThere is none" in hopeless.text()


def test_a_rule_that_cannot_stand_alone_is_named(searched, monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise PluginError("the rule cannot stand alone", file="/secret/place.py", field="model.x")

    monkeypatch.setattr(front_module, "standalone_source", refuse)
    front = front_module.collect_front(searched.setup, searched.outcome)
    texts = front_module.front_texts(front)
    assert set(texts) == {"front/front.md", "front/front.csv"}
    for rule in front.rules:
        assert (
            f"`{rule.id}` (cannot stand alone: model.x: the rule cannot stand alone)"
            in texts["front/front.md"]
        )
    assert {each["file"] for each in front_module.front_json(front)} == {None}


def test_every_operator_is_told_with_its_share_and_what_it_earned(searched):
    told = {each["operator"]: each for each in json.loads(searched.text("report.json"))["operators"]}
    made = [each.offspring.operator for each in searched.outcome.scored]
    assert set(told) == {"seed", *searched.setup.problem.operators}
    for name, each in told.items():
        assert each["evaluations"] == made.count(name)
        assert each["words"]
    others = [each for name, each in told.items() if name != "seed"]
    assert told["seed"]["share"] is None
    assert sum(each["share"] for each in others) == pytest.approx(1.0)
    best = max(each.evaluation.objective for each in searched.outcome.scored)
    first = next(each for each in searched.outcome.scored if each.evaluation.status == "ok")
    # Simpler rules that are worse within the resolution are records that earn nothing.
    assert sum(each["earned"] for each in told.values()) == pytest.approx(
        best - first.evaluation.objective, abs=1e-5
    )
    page = searched.text()
    assert all(f"| `{name}` | {each['words']} |" in page for name, each in told.items())
