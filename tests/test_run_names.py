"""Names of runs, and the folders they stand for: taken, free, listed, whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from processes import Killed

from evolve import store as store_module
from evolve.errors import RunError
from evolve.store import (
    RunStore,
    check_name,
    create_free_run,
    create_run,
    free_name,
    list_runs,
    newest_run,
    open_run,
)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "../up", "a b", "é", "a\0b", "a\n", "-", "x" * 101, "~", "README.md"],
)
def test_a_bad_name_is_refused(tmp_path, name):
    for use in (
        check_name,
        lambda name: create_run(name, {}, tmp_path),
        lambda name: open_run(name, tmp_path),
    ):
        with pytest.raises(RunError, match="bad run name"):
            use(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "run-001", "v1.2_final", "x" * 100, "0"])
def test_a_good_name_is_taken(tmp_path, name):
    assert create_run(name, {"seed": 1}, tmp_path / "deep" / "runs").name == name
    assert open_run(name, tmp_path / "deep" / "runs").config() == {"seed": 1}
    assert list_runs(tmp_path / "deep" / "runs") == [name]


@pytest.mark.parametrize("name", ["bench-z", "Bench-z", "bench-"])
def test_a_name_of_a_benchmark_is_refused(tmp_path, name):
    words = r"name: this name belongs to a benchmark; expected .* not begin with 'bench-', found .*Choose"
    with pytest.raises(RunError, match=words):
        create_run(name, {}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    # One that was started before there was such a rule can still be opened.
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    assert open_run(name, tmp_path).config() == {}


def test_a_run_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            create_run("one", {}, tmp_path)
    assert list_runs(tmp_path) == []
    with pytest.raises(RunError, match="no such run"):
        open_run("one", tmp_path)
    # The same process number may come again, as it does in containers.
    assert create_run("one", {"seed": 2}, tmp_path).config() == {"seed": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["one"]


def test_a_full_disk_leaves_no_half_made_run(tmp_path, monkeypatch):
    def full(_path: Path, _text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "write_atomically", full)
    with pytest.raises(RunError, match="No space left"):
        create_run("one", {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_text("")])
def test_what_exists_is_not_replaced(tmp_path, make):
    make(tmp_path / "one")
    with pytest.raises(RunError, match=r"exists.*resume one.*another --name"):
        create_run("one", {}, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["one"]


def test_runs_that_is_no_folder_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match="cannot be made"):
        create_run("one", {}, tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []
    assert free_name(tmp_path / "runs") == "run-001"


def test_an_unknown_run_is_an_error_that_names_those_there_are(tmp_path):
    with pytest.raises(RunError, match=r"no such run\. 'evolve run' makes the first one"):
        open_run("one", tmp_path / "runs")
    create_run("two", {}, tmp_path)
    with pytest.raises(RunError, match=r"no such run\. There are two"):
        open_run("one", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="no such run"):
        open_run("empty", tmp_path)


def test_runs_are_listed_and_the_newest_is_the_one_started_last(tmp_path):
    with pytest.raises(RunError, match="there are no runs"):
        newest_run(tmp_path)
    for age, name in enumerate(["b", "c", "a"]):
        run = create_run(name, {}, tmp_path)
        os.utime(run.path / "config.json", (1000 + age, 1000 + age))
    (tmp_path / ".b.123").mkdir()
    (tmp_path / ".b.123" / "config.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("no run")
    assert list_runs(tmp_path) == ["a", "b", "c"]
    assert newest_run(tmp_path) == "a"
    # What is done with a run later does not make it newer.
    RunStore(tmp_path / "b").commit([], 1, {}, finished=False)
    assert newest_run(tmp_path) == "a"


def test_free_names_count_up_from_the_first_gap(tmp_path):
    assert free_name(tmp_path / "runs") == "run-001"
    for name in ("run-001", "run-003", "other"):
        create_run(name, {}, tmp_path)
    assert free_name(tmp_path) == "run-002"


def test_two_that_want_a_free_name_at_once_both_get_one(tmp_path, monkeypatch):
    names = iter(["run-001", "run-001", "run-002"])
    monkeypatch.setattr(store_module, "free_name", lambda _runs: next(names))
    assert create_free_run({}, tmp_path).name == "run-001"
    assert create_free_run({}, tmp_path).name == "run-002"
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(store_module, "free_name", lambda _runs: "run-001")
    with pytest.raises(RunError, match="cannot be made"):
        create_free_run({}, tmp_path / "file")
