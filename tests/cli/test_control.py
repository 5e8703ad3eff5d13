"""A run with --control: its control search is kept, resumed with it and verified like it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import QUICK

from evolve.store import RunStore

FILES = ("journal.jsonl", "snapshot.json", "champion.json")
#: Of a run and its report, all that the same seed gives again.
KEPT = [
    *(f"runs/{{}}/{name}" for name in ("config.json", *FILES)),
    *(f"runs/{{}}/control/{name}" for name in FILES),
    *(f"reports/{{}}/{name}" for name in ("report.md", "report.json", "lineage.md", "champion.py")),
]


def contents(name: str) -> list[bytes]:
    return [Path(each.format(name)).read_bytes() for each in KEPT]


def killed_at(monkeypatch, folder: str, generation: int) -> None:
    """Let the commit of a generation in a run's folder of this name be a second Ctrl-C."""
    commit = RunStore.commit

    def kill(self, records, number, *rest):
        if self.path.name == folder and number == generation:
            raise KeyboardInterrupt
        commit(self, records, number, *rest)

    monkeypatch.setattr(RunStore, "commit", kill)


@pytest.mark.parametrize(
    ("folder", "generation"), [("killed", 1), ("killed", 2), ("control", 1), ("control", 2)]
)
def test_a_killed_run_with_control_is_resumed_with_it(evolve, monkeypatch, folder, generation):
    assert evolve("run", *QUICK, "--control", "--name", "whole").status == 0
    with monkeypatch.context() as patched:
        killed_at(patched, folder, generation)
        assert evolve("run", *QUICK, "--control", "--name", "killed").status == 130
    assert not Path("reports/killed").exists()
    assert evolve("resume", "killed", "--no-figures").status == 0
    assert contents("killed") == contents("whole")
    assert evolve("verify", "killed").status == 0


def test_the_first_interrupt_stops_the_control_after_its_generation(evolve, monkeypatch):
    from evolve.verdicts import control

    real = control.search
    with monkeypatch.context() as patched:
        patched.setattr(control, "search", lambda *given, **_: real(*given, should_stop=lambda: True))
        answer = evolve("run", *QUICK, "--control", "--name", "stopped")
    assert answer.status == 130
    assert "stopped; continue with 'evolve resume stopped'" in answer.err
    assert RunStore(Path("runs/stopped/control")).snapshot().generation == 1
    assert evolve("resume", "stopped", "--no-figures").status == 0
    assert RunStore(Path("runs/stopped/control")).snapshot().finished


def test_verify_compares_the_champion_of_the_control(evolve):
    assert evolve("run", *QUICK, "--control", "--name", "one").status == 0
    assert evolve("verify", "one").status == 0
    champion = Path("runs/one/control/champion.json")
    champion.write_text(champion.read_text().replace('"kind": "candidate"', '"kind": "rule"'))
    answer = evolve("verify", "one")
    assert answer.status == 1
    assert f"{champion}, line 2: reported" in answer.out


def test_a_changed_score_of_the_control_is_found(evolve):
    assert evolve("run", *QUICK, "--control", "--name", "one").status == 0
    journal = Path("runs/one/control/journal.jsonl")
    text = journal.read_text()
    place = text.index('"objective": 0.') + len('"objective": 0.')
    other = "1" if text[place] != "1" else "2"
    journal.write_text(text[:place] + other + text[place + 1 :])
    answer = evolve("verify", "one")
    assert answer.status == 1
    assert f"{journal}, line 1, train.objective: reported 0.{other}" in answer.out


def test_a_run_without_control_gets_none(evolve):
    assert evolve("run", *QUICK, "--name", "one").status == 0
    assert evolve("resume", "one", "--no-figures").status == 0
    assert not Path("runs/one/control").exists()
    assert "--control" not in Path("reports/one/report.md").read_text()
    # Asked for later, it is as if it had been asked for at once.
    assert evolve("report", "one", "--control", "--no-figures").status == 0
    assert "--control" in Path("reports/one/report.md").read_text()
    assert evolve("run", *QUICK, "--control", "--name", "two").status == 0
    assert contents("one") == contents("two")


@pytest.mark.parametrize("verb", ["run", "resume", "report", "verify"])
def test_help_tells_of_the_control(evolve, verb):
    assert "control" in evolve(verb, "--help").out
