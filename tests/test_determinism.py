"""Same seed, same bytes."""

from __future__ import annotations

import multiprocessing
import shutil

import pytest
from processes import (
    PATIENCE,
    SEARCH,
    TINY,
    assert_same,
    command,
    finish,
    in_this_process,
    never_killed,
    new_run,
    outputs,
)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Journal, snapshot, champion and every file of the report, pictures included, wherever it is made."""
    (tmp_path / "one").mkdir()
    (tmp_path / "much" / "deeper").mkdir(parents=True)
    finish(new_run(), tmp_path / "one", PYTHONHASHSEED="0")
    finish(new_run("--workers", "2"), tmp_path / "much" / "deeper", PYTHONHASHSEED="1")
    expected = outputs(tmp_path / "one")
    names = {"config.json", "journal.jsonl", "snapshot.json", "champion.json"}
    assert {f"runs/k/{name}" for name in names} <= set(expected)
    reported = {"report.md", "lineage.md", "champion.py", "champion.json", "figures/fitness.svg"}
    assert {"reports/README.md", *(f"reports/k/{name}" for name in reported)} <= set(expected)
    assert_same(tmp_path / "much" / "deeper", expected)
    # Pictures apart, it is the run that those below are compared with, strings hashed at random.
    plain = never_killed()
    same = [name for name in plain if not name.endswith((".md", ".py"))]
    assert len(same) >= 5
    assert {name: expected[name] for name in same} == {name: plain[name] for name in same}


@pytest.mark.parametrize("place", ["here", "spawned"])
def test_in_any_process_the_same_seed_gives_the_same_bytes(tmp_path, place):
    """In one that has searched before, and in one that starts from nothing."""
    if place == "here":
        (tmp_path / "before").mkdir()
        in_this_process(tmp_path / "before", *TINY, "--name", "other", "--no-figures")
        in_this_process(tmp_path, *new_run("--no-figures")[3:])
        shutil.rmtree(tmp_path / "before")
    else:
        arguments = (tmp_path, *new_run("--no-figures", "--workers", "2")[3:])
        process = multiprocessing.get_context("spawn").Process(target=in_this_process, args=arguments)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert_same(tmp_path, never_killed())


def test_another_seed_gives_other_bytes(tmp_path):
    """Else the tests here would show nothing."""
    finish(command("run", *SEARCH, "--seed", "4", "--name", "k", "--no-figures"), tmp_path)
    other, mine = outputs(tmp_path), never_killed()
    assert sorted(other) == sorted(mine)
    for name in (
        "runs/k/journal.jsonl",
        "runs/k/snapshot.json",
        "runs/k/champion.json",
        "reports/k/report.md",
    ):
        assert other[name] != mine[name]
