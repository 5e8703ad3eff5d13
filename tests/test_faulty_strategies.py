"""Strategies from plugins that break their contract end a search with their file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evolve.benchmarking import Plan, Setting, run_bench
from evolve.configuration import RunConfig
from evolve.engine import search
from evolve.errors import PluginError
from evolve.setup import prepare_run
from evolve.store import RunStore, create_run

STRATEGY = """
from dataclasses import replace
from evolve.extensions import strategy
from evolve.search.random_search import RandomSearch

@strategy
class Mine(RandomSearch):
    \"\"\"Random search with a fault.\"\"\"
    BODY
"""
#: Asks for one candidate more, the first one with other values of its fields.
CHANGED = "def ask(self):\n        asked = super().ask()\n        return [replace(asked[0], CHANGE), *asked]"
FAULTS = [
    ("def __init__(self, *_): self.a", 9, "raises AttributeError when it is made: 'Mine' object has no"),
    ("def ask(self): raise ValueError('no luck')", 9, "raises ValueError when it is asked: no luck. 'evolve"),
    ("def ask(self): raise SystemExit(0)", 9, "raises SystemExit when it is asked: 0"),
    ("def ask(self): return [1]", 7, "asks for no candidate; expected .*Offspring, found 1"),
    ("def ask(self): return (each for each in ())", 7, "asks for no candidates; expected a list"),
    ("def ask(self): return []", 7, "asks for nothing; expected candidates from the first generation on"),
    (CHANGED.replace("CHANGE", "candidate=None"), 7, "asks for no candidate; expected"),
    (CHANGED.replace("CHANGE", "parents=None"), 7, "does not say where a candidate comes from"),
    (CHANGED.replace("CHANGE", "operator=3"), 7, "does not say where a candidate comes from"),
    (
        CHANGED.replace("CHANGE", "candidate=replace(asked[0].candidate, template='none')"),
        7,
        "asks for a candidate of an unknown template; expected one of .*, found 'none'",
    ),
    (
        CHANGED.replace("CHANGE", "candidate=replace(asked[0].candidate, slots=3)"),
        7,
        "asks for a candidate that cannot be read: 'int' object is not iterable",
    ),
    (
        "def tell(self, scored): super().tell(scored[1:])",
        9,
        "raises ValueError when it is told: tell: expected 14 evaluations, one an offspring, found 13",
    ),
    ("def state(self): return {'seen': {1}}", 7, "has a state that is not JSON: Object of type set"),
    ("def state(self): return [1]", 7, r"has no state; expected a dict that is JSON, found \[1\]"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heuristics").mkdir()
    return tmp_path / "heuristics"


def write(folder: Path, body: str) -> None:
    (folder / "mine.py").write_text(STRATEGY.replace("BODY", body))


def run(strategy: str, name: str = "a") -> RunStore:
    setup = prepare_run(RunConfig(strategy=strategy, population=8, generations=3))
    store = create_run(name, json.loads(json.dumps(setup.resolved())))
    search(setup, store)
    return store


@pytest.mark.parametrize(("body", "line", "said"), FAULTS)
def test_a_run_ends_with_file_and_line(folder: Path, body: str, line: int, said: str) -> None:
    write(folder, body)
    with pytest.raises(PluginError, match=rf"heuristics/mine\.py, line {line}: the strategy {said}") as found:
        run("mine")
    assert found.value.exit_status == 2


def test_islands_of_one_end_with_its_file(folder: Path) -> None:
    write(folder, "def ask(self): return [1]")
    with pytest.raises(PluginError, match=r"heuristics/mine\.py, line 7: the strategy asks for no candidate"):
        run("islands:2:mine")


@pytest.mark.parametrize(
    ("body", "raised"), [("1 / 0", "ZeroDivisionError"), ("raise SystemExit(0)", "SystemExit")]
)
def test_a_faulty_operator_within_it_is_blamed_itself(folder: Path, body: str, raised: str) -> None:
    text = STRATEGY.replace("random_search", "genetic").replace("RandomSearch", "Genetic")
    (folder / "mine.py").write_text(text.replace("BODY", "pass"))
    operator = (
        f"from evolve.extensions import operator\n@operator()\ndef vary(parent, template, words): {body}\n"
    )
    (folder / "hers.py").write_text(operator)
    setup = prepare_run(RunConfig(strategy="mine", population=60, operators={"hers": 1.0}))
    with pytest.raises(PluginError, match=rf"hers\.py, line 3: the operator raises {raised}"):
        search(setup, create_run("a", json.loads(json.dumps(setup.resolved()))))


def test_a_run_that_goes_on_ends_with_file_and_line(folder: Path) -> None:
    write(folder, "def restore(self, state, archive): state['nothing']")
    setup = prepare_run(RunConfig(strategy="mine", population=8, generations=3))
    store = create_run("a", json.loads(json.dumps(setup.resolved())))
    search(setup, store, should_stop=lambda: True)
    with pytest.raises(PluginError, match=r"mine\.py, line 9: the strategy raises KeyError when it is rest"):
        search(setup, store)


def test_one_that_runs_dry_later_is_no_fault(folder: Path) -> None:
    body = "def ask(self):\n        self.asked = [] if hasattr(self, 'asked') else super().ask()\n"
    write(folder, body + "        return self.asked\n    def tell(self, scored): pass")
    snapshot = run("mine").snapshot()
    assert snapshot is not None
    assert snapshot.finished


@pytest.mark.parametrize("workers", [1, 2])
def test_a_benchmark_names_the_setting_and_keeps_what_was_finished(folder: Path, workers: int) -> None:
    settings = tuple(
        Setting(each, {"strategy": name}) for each, name in (("good", "random"), ("bad", "mine"))
    )
    base = {"datasets": "reference", "population": 8}
    write(folder, "pass")
    assert run_bench(Plan("b", settings[:1], 1, 9, base)) is not None
    before = (Path("runs/bench-b/good/seed-0/result.json")).read_bytes()
    # No other process can be sent what is found here.
    write(folder, "def ask(self): return (each for each in ())")
    with pytest.raises(PluginError, match=r"mine\.py, line 7: in the setting bad, the strategy asks for no"):
        run_bench(Plan("b", settings, 2, 9, base), workers=workers)
    assert (Path("runs/bench-b/good/seed-0/result.json")).read_bytes() == before
